"""Laws of the intervals: against hand-computed numbers, scipy, and synthetic data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfi.evaluation import statistics
from hfi.evaluation.quality import cmmd
from hfi.seeds import numpy_generator


def rng(*index):
    return numpy_generator(0, "test", *index)


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + 3.8415/20) / (1 + 0.38415), half width 1.96 sqrt(0.016 + 0.009604) / 1.38415
    low, high = statistics.wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


@given(n=st.integers(1, 400), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(n, share):
    from scipy import stats

    hits = round(share * n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert statistics.wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_hits_obey_the_rule_of_three_roughly():
    for n in (30, 150, 1000):
        low, high = statistics.wilson(0, n)
        assert low == 0 and 3 / n < high < 3.9 / n


def test_no_hits_over_prompts_with_several_seeds_never_have_a_zero_width_interval():
    found = statistics.rate(np.zeros(150, bool), np.repeat(np.arange(75), 2), rng())
    assert found.value == 0 and found.low == 0
    assert found.high == pytest.approx(statistics.wilson(0, 75)[1])
    assert "no width" in found.interval


def test_one_seed_per_prompt_is_wilson():
    hits = np.arange(40) % 4 == 0
    found = statistics.rate(hits, np.arange(40), rng())
    assert (found.low, found.high, found.interval) == (*statistics.wilson(10, 40), "wilson")


def test_a_rate_is_the_share_whatever_the_order():
    hits, prompts = rng(1).random(60) < 0.3, np.repeat(np.arange(20), 3)
    order = rng(2).permutation(60)
    one, two = statistics.rate(hits, prompts, rng(3)), statistics.rate(hits[order], prompts[order], rng(3))
    assert one == two and one.value == pytest.approx(hits.mean())


def test_the_same_generator_gives_the_same_interval():
    hits, prompts = rng(4).random(60) < 0.5, np.repeat(np.arange(30), 2)
    assert statistics.rate(hits, prompts, rng(5)) == statistics.rate(hits, prompts, rng(5))


def test_the_bootstrap_over_prompts_covers_the_truth_where_pictures_of_a_prompt_resemble_each_other():
    covered, naive, trials = 0, 0, 200
    for trial in range(trials):
        own = rng("coverage", trial)
        chances = own.beta(2, 2, size=80)  # each prompt its own chance; their mean is 0.5
        hits = own.random((80, 4)) < chances[:, None]
        found = statistics.rate(hits.ravel(), np.repeat(np.arange(80), 4), own, 500)
        covered += found.low <= 0.5 <= found.high
        low, high = statistics.wilson(hits.sum(), hits.size)
        naive += low <= 0.5 <= high
    assert 0.90 <= covered / trials <= 0.99
    assert naive < covered  # intervals that take pictures for independent are too short


def test_paired_ratio_by_hand():
    before = np.array([1, 1, 1, 0, 1, 0], bool)
    after = np.array([1, 0, 1, 0, 0, 1], bool)
    found = statistics.paired_ratio(before, after, np.array([0, 0, 1, 1, 2, 2]), rng())
    assert found.value == pytest.approx(3 / 4) and found.low <= found.value <= found.high and found.n == 6 and found.prompts == 3


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_retention_of_what_did_not_change_is_exactly_one(right):
    right, prompts = np.array(right), np.arange(len(right)) // 2
    found = statistics.paired_ratio(right, right, prompts, rng())
    if right.any():
        assert found.value == 1.0 and found.low < 1 < found.high and "no width" in found.interval
    else:
        assert found.value is None


def test_paired_intervals_are_shorter_than_unpaired_ones():
    own = rng("paired")
    before = own.random(400) < 0.7
    after = before & (own.random(400) < 0.95)
    prompts = np.repeat(np.arange(200), 2)
    found = statistics.paired_ratio(before, after, prompts, own)
    shuffled = statistics.paired_ratio(before, after[own.permutation(400)], prompts, own)
    assert found.high - found.low < shuffled.high - shuffled.low
    assert found.low <= 0.95 <= found.high


def test_paired_difference_of_equal_sides_is_zero_with_some_width():
    right = np.array([True, False] * 20)
    found = statistics.paired_difference(right, right, np.repeat(np.arange(20), 2), rng())
    assert found.value == 0 and found.low < 0 < found.high


def test_paired_difference_covers_the_truth():
    covered = 0
    for trial in range(100):
        own = rng("difference", trial)
        chance = own.random(100)
        before = own.random(100) < chance
        after = own.random(100) < np.clip(chance - 0.0, 0, 1) * 0.8
        found = statistics.paired_difference(before, after, np.arange(100), own, 300)
        covered += found.low <= -0.1 <= found.high
    assert covered >= 88


def test_nothing_says_nothing():
    for found in (
        statistics.rate([], [], rng()),
        statistics.paired_ratio([], [], [], rng()),
        statistics.mean([], [], rng()),
        statistics.paired_difference([], [], [], rng()),
    ):
        assert found.plain() == {"value": None, "low": None, "high": None, "n": 0, "prompts": 0, "interval": "none"}


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        statistics.rate([True], [1, 2], rng())
    with pytest.raises(ValueError, match="one length"):
        statistics.paired_ratio([True], [True, False], [1], rng())


def test_cmmd_of_a_set_with_itself_is_zero_and_grows_with_distance():
    import torch

    x = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    near, far = torch.nn.functional.normalize(x + 0.1, dim=1), torch.nn.functional.normalize(x + 1.0, dim=1)
    assert abs(cmmd(x, x)) < 1e-9
    assert 0 < cmmd(x, near) < cmmd(x, far)


def test_cmmd_by_hand():
    import math

    import torch

    # one picture a side at distance sqrt(2): 1 + 1 - 2 exp(-2 / 200), times 1000
    value = cmmd(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert value == pytest.approx(1000 * (2 - 2 * math.exp(-0.01)), rel=1e-9)


@pytest.mark.parametrize(("values", "place"), [
    ([1.0, 0.99, 0.91, 0.5], (1, 2, 0.5)),  # 0.95 lies half way from 0.99 to 0.91
    ([1.0, 0.9, 0.99, 0.5], (0, 1, 0.5)),  # the first fall counts
    ([1.0, 0.98, 0.95], (2, 2, 0.0)),  # never under it: the last point
    ([0.9, 1.0], (0, 0, 0.0)),  # under it from the start
])
def test_a_crossing_by_hand(values, place):
    i, j, w = statistics.crossing(values, 0.95)
    assert (i, j) == place[:2] and w == pytest.approx(place[2])


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 -> x4, x3, x2, x1 = 0.04, 0.06, 0.06, 0.5, each at least the one before
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0] and statistics.holm([]) == []


def test_the_two_level_mean_counts_concepts_alike_and_resamples_both_levels():
    # concept a: prompts of mean 1 and 0 -> 1/2; b: one prompt of mean -1; mean (0.5 - 1) / 2
    groups = [([1, 1, 0, 0], ["x", "x", "y", "y"]), ([-1, -1], ["z", "z"])]
    found, p = statistics.two_level_mean(groups, rng(5), 4000)
    assert found.value == -0.25 and (found.n, found.prompts) == (6, 3) and "concepts, then prompts" in found.interval
    # draws: a, a (1/4): 0, .25, .5, .75 or 1 -> above 0 mostly; b, b (1/4): -1; mixed (1/2): 0, -1/4 or -1/2
    assert found.low == -1.0 and 0.5 <= found.high <= 1.0
    # P(mean >= 0) = 1/4 (both a) + 1/2 * 1/4 (mixed, a of mean 1): 3/8, so p is about 3/4
    assert p == pytest.approx(0.75, abs=0.05)


def test_one_concept_resamples_prompts_and_a_constant_is_certain():
    found, p = statistics.two_level_mean([([-1.0] * 8, range(8))], rng(6), 999)
    assert (found.value, found.low, found.high) == (-1, -1, -1) and "one concept" in found.interval and p == pytest.approx(2 / 1000)
    assert statistics.two_level_mean([([], [])], rng(7))[0].value is None
