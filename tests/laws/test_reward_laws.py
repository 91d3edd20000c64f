"""Laws of the reward: its losses by hand, its weights, its numbers by brute force, and the same fit from the same seed."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfi.reward.calibration import accuracy_with_interval, auc, auc_with_interval, pairwise_accuracy, reliability
from hfi.reward.curve import learning_curve
from hfi.reward.fit import fit, gather, held_out_pictures, loss
from hfi.reward.losses import bradley_terry, mse
from hfi.reward.model import RewardModel
from hfi.reward.probe import fit_probe, other_side, unsure_strength
from hfi.reward.topk import k_means, select, weights

rewards = st.lists(st.floats(-30, 30, allow_nan=False), min_size=1, max_size=30)


@given(rewards, st.floats(-5, 5), st.floats(0, 4))
def test_weights_are_never_negative_and_have_mean_one(values, mean, deviation):
    mapped = weights(numpy.array(values), mean, deviation)
    assert (mapped >= 0).all() and mapped.mean() == pytest.approx(1)
    assert (weights(numpy.array(values), mean, deviation, "equal") == 1).all()


@given(st.floats(-30, 30), st.integers(1, 20), st.floats(-5, 5), st.floats(0.01, 4))
def test_equal_rewards_weigh_equally(value, count, mean, deviation):
    assert weights(numpy.full(count, value), mean, deviation) == pytest.approx(numpy.ones(count))


@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=2, max_size=20, unique=True))
def test_a_higher_reward_never_weighs_less(values):
    ordered = numpy.sort(numpy.array(values))
    assert (numpy.diff(weights(ordered, 0.0, 1.0)) >= 0).all()


@given(st.floats(-20, 20))
def test_weights_do_not_change_when_a_ranking_score_is_shifted(shift):
    values = numpy.array([-3.0, -1.0, 0.5, 2.0])
    assert weights(values + shift, values.mean() + shift, values.std()) == pytest.approx(weights(values, values.mean(), values.std()))


def test_the_gradient_of_the_squared_error_is_the_derived_one():
    """d/dr_i mean (r - y)^2 = 2 (r_i - y_i) / N; weighted: 2 w_i (r_i - y_i) / sum w."""
    r, y, w = torch.tensor([0.2, 0.9, -1.0], requires_grad=True), torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 2.0, 3.0])
    (plain,) = torch.autograd.grad(mse(r, y), r)
    (weighted,) = torch.autograd.grad(mse(r, y, w), r)
    assert torch.allclose(plain, 2 * (r - y).detach() / 3) and torch.allclose(weighted, 2 * w * (r - y).detach() / 6)


def test_the_gradient_of_bradley_terry_is_the_derived_one():
    """d/dr+ of -(1/M^2) mean log sigmoid(r+ - r-) = -(1 - sigmoid(r+ - r-)) / (M^2 P), and the opposite for r-."""
    r_plus = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    r_minus = torch.tensor([0.1, 1.0], dtype=torch.float64, requires_grad=True)
    value = bradley_terry(r_plus, r_minus, 5)
    by_hand = sum(math.log(1 + math.exp(-(a - b))) for a, b in [(0.3, 0.1), (-2.0, 1.0)]) / 2 / 25
    assert value.item() == pytest.approx(by_hand)
    plus, minus = torch.autograd.grad(value, (r_plus, r_minus))
    expected = -(1 - torch.sigmoid(r_plus - r_minus)) / (25 * 2)
    assert torch.allclose(plus, expected.detach()) and torch.allclose(minus, -expected.detach())


@given(st.floats(-50, 50))
def test_bradley_terry_does_not_see_a_shift(shift):
    r_plus, r_minus = torch.tensor([0.3, -2.0, 4.0]).double(), torch.tensor([0.1, 1.0, -3.0]).double()
    assert bradley_terry(r_plus + shift, r_minus + shift, 5).item() == pytest.approx(bradley_terry(r_plus, r_minus, 5).item())


def test_votes_weigh_as_judgements_do():
    """Shares weighed by votes have the same gradient as one term for each judgement."""
    answers = [[1.0, 0.0, 1.0], [0.0]]
    r = torch.tensor([0.4, 0.7], requires_grad=True)
    each = torch.stack([(r[i] - y) ** 2 for i, given in enumerate(answers) for y in given]).mean()
    by_share = mse(r, torch.tensor([2 / 3, 0.0]), torch.tensor([3.0, 1.0]))
    assert torch.allclose(torch.autograd.grad(each, r)[0], torch.autograd.grad(by_share, r)[0])


def learnable(count: int = 60, width: int = 12):
    random = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(count, width, generator=random), dim=1)
    names = [f"im{i:03d}" for i in range(count)]
    truth = embeddings @ torch.linspace(-1, 1, width)
    votes = {name: (int(value > 0) * 2, 2) for name, value in zip(names, truth, strict=True)}
    by_truth = sorted(names, key=lambda name: -truth[int(name[2:])])
    orders = [tuple(by_truth[i] for i in sorted(numpy.random.default_rng(n).choice(count, 5, replace=False))) for n in range(60)]
    return embeddings, names, votes, orders


def weighed(votes):
    """Votes as shares that count as many judgements as there are."""
    return {name: (present / total, float(total)) for name, (present, total) in votes.items()}


def even(orders):
    return [(order, 1.0) for order in orders]


@pytest.mark.parametrize("sort", ["binary", "ranking", "both"])
def test_the_same_seed_gives_the_same_fit_bit_for_bit_and_it_learns(sort):
    embeddings, names, votes, orders = learnable()
    votes, orders = votes if sort != "ranking" else {}, orders if sort != "binary" else []
    labels = {name: p / n for name, (p, n) in votes.items()}
    kept = held_out_pictures(labels, names, 0.25, seed=4)
    index = {name: i for i, name in enumerate(names)}
    train, held_out = gather(index, weighed(votes), even(orders), set(names) - kept), gather(index, weighed(votes), even(orders), kept)
    settings = {"hidden": (16,), "steps": 150, "learning_rate": 1e-2, "weight_decay": 1e-2, "ranking_size": 5, "seed": 4}
    first, curves = fit(embeddings, train, held_out, **settings)
    torch.manual_seed(99)  # the global generator has no say
    second, again = fit(embeddings, train, held_out, **settings)
    assert curves == again and all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert curves["train"][-1][1] < curves["train"][0][1] / 2
    r = first(embeddings).detach()
    if sort != "ranking":
        assert auc(r[held_out.rows], held_out.y > 0.5) > 0.9
    if sort != "binary":
        assert pairwise_accuracy(r[held_out.pairs[:, 0]] - r[held_out.pairs[:, 1]]) > 0.8
    other, _ = fit(embeddings, train, held_out, **{**settings, "seed": 5})
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_both_losses_add_up():
    embeddings, names, votes, orders = learnable()
    index, model = {name: i for i, name in enumerate(names)}, RewardModel(12, (8,), seed=1)
    parts = [gather(index, weighed(v), even(o), set(names)) for v, o in [(votes, []), ({}, orders), (votes, orders)]]
    binary, ranking, both = (loss(model, embeddings, part, 5).item() for part in parts)
    assert both == pytest.approx(binary + ranking)


def test_no_picture_is_learned_from_and_tested_on():
    embeddings, names, votes, orders = learnable()
    labels = {name: p / n for name, (p, n) in votes.items()}
    kept = held_out_pictures(labels, names, 0.25, seed=0)
    index = {name: i for i, name in enumerate(names)}
    train, held_out = gather(index, weighed(votes), even(orders), set(names) - kept), gather(index, weighed(votes), even(orders), kept)
    learned = set(train.rows.tolist()) | set(train.pairs.flatten().tolist())
    assert not learned & (set(held_out.rows.tolist()) | set(held_out.pairs.flatten().tolist()))
    assert len(kept) == pytest.approx(15, abs=1) and len(train.rows) + len(held_out.rows) == 60
    assert {labels[name] > 0.5 for name in kept} == {True, False}


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    positive, negative = [s for s, label in rows if label], [s for s, label in rows if not label]
    value = auc([s for s, _ in rows], [label for _, label in rows])
    if not positive or not negative:
        assert value is None
    else:
        count = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
        assert value == pytest.approx(count / (len(positive) * len(negative)))


def test_intervals_hold_the_value_and_narrow_with_more_pictures():
    rng = numpy.random.default_rng(0)
    widths = []
    for count in (40, 1000):
        labels = rng.random(count) < 0.5
        found = auc_with_interval(labels + rng.normal(0, 1, count), labels, seed=0)
        assert found["low"] <= found["value"] <= found["high"] and found["n"] == count
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 2
    pairs = accuracy_with_interval(rng.normal(1, 1, 200), numpy.repeat(numpy.arange(20), 10), seed=0)
    assert pairs["low"] <= pairs["value"] <= pairs["high"] and pairs["value"] == pytest.approx(0.84, abs=0.08)


def test_a_perfect_forecaster_is_calibrated_and_an_overconfident_one_is_not():
    p = numpy.repeat([0.05, 0.35, 0.95], 1000)
    y = numpy.random.default_rng(0).random(3000) < p
    assert reliability(p, y)["expected_calibration_error"] < 0.03
    assert reliability((p > 0.5).astype(float), y)["expected_calibration_error"] > 0.1
    assert sum(row["n"] for row in reliability(p, y)["bins"]) == 3000


@pytest.mark.parametrize("count", [20, 200])  # fewer and many more pictures than numbers in an embedding
def test_the_probe_is_ridge_regression_with_its_posterior_s_deviation(count):
    rng = numpy.random.default_rng(0)
    points, others, w = rng.normal(size=(count, 30)), rng.normal(size=(7, 30)), rng.uniform(0.2, 2, count)
    y = points[:, 0] + rng.normal(size=count)
    probe = fit_probe(points, y, w)
    w = w * count / w.sum()
    z, q = (points - probe.centre) / probe.scale, (others - probe.centre) / probe.scale
    precision = z.T @ (w[:, None] * z) + probe.ridge * numpy.eye(30)
    mean, deviation = probe.predict(others)
    assert mean == pytest.approx(q @ numpy.linalg.solve(precision, z.T @ (w * (y - probe.middle))) + probe.middle, abs=1e-8)
    covariance = probe.noise * numpy.linalg.inv(precision)
    assert deviation == pytest.approx(numpy.sqrt(numpy.einsum("ij,jk,ik->i", q, covariance, q)), abs=1e-8)


def test_doubt_is_greatest_at_one_half_and_where_little_is_known():
    assert other_side([0.5, 0.9, 0.9], [0.1, 0.1, 1.0]) == pytest.approx([0.5, 3.17e-5, 0.3446], abs=1e-4)
    assert unsure_strength(numpy.array([0.0, 1.0, 100.0]), 1.0) == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)


def test_the_learning_curve_knows_how_many_more_are_needed(monkeypatch):
    """The number read off at 150 pictures is near the number at which the same reward then gets there."""
    monkeypatch.setattr("hfi.reward.curve.RESAMPLES", 20)  # they make the interval alone, and most of the time
    rng, ratios = numpy.random.default_rng(1), []
    direction = rng.normal(size=20)
    points = rng.normal(size=(6000, 20))
    y = ((points @ direction / 2 + rng.normal(size=6000)) > 0).astype(float)
    test, test_y = points[4000:], y[4000:]
    for start in range(0, 3000, 1000):
        part = slice(start, start + 150)
        own = auc(fit_probe(points[part], y[part]).predict(test)[0], test_y > 0.5)
        found = learning_curve(points[part], y[part], numpy.ones(150), test, test_y, own, seed=0)
        assert found["sizes"][-1] == 150 and found["auc"][-1] > found["auc"][0] and found["exponent"]["low"] <= found["exponent"]["high"]
        target = 1 - (1 - own) * 2.0 ** -found["exponent"]["value"]  # what the law promises of twice as many
        seen = auc(fit_probe(points[start : start + 300], y[start : start + 300]).predict(test)[0], test_y > 0.5)
        ratios.append((1 - seen) / (1 - target))
    assert numpy.mean(ratios) == pytest.approx(1.0, abs=0.2)


def test_no_curve_from_too_little():
    assert learning_curve(numpy.eye(20), numpy.ones(20), numpy.ones(20), numpy.eye(20)[:4], numpy.ones(4), 0.5, 0) is None


def three_kinds(seed=0):
    rng = numpy.random.default_rng(seed)
    points = numpy.concatenate([numpy.eye(6)[kind] + rng.normal(0, 0.05, (size, 6)) for kind, size in enumerate((60, 20, 10))])
    reward = numpy.concatenate([rng.uniform(0.9, 1.0, 60), rng.uniform(0.7, 0.8, 20), rng.uniform(0.6, 0.7, 10)])
    return [f"im{i:03d}" for i in range(90)], reward, points


def test_k_means_finds_separate_kinds_and_numbers_them_by_size():
    _, _, points = three_kinds()
    assert (k_means(points, 3, seed=1) == numpy.repeat([0, 1, 2], [60, 20, 10])).all()
    assert len(set(k_means(numpy.ones((5, 2)), 3, seed=1))) == 1


def test_a_union_is_not_reduced_to_its_commonest_member():
    ids, reward, points = three_kinds()
    plain = select(ids, reward, points, [True] * 90, 30, 1, seed=1)
    spread = select(ids, reward, points, [True] * 90, 30, 3, seed=1)
    assert {int(one.image_id[2:]) // 60 for one in plain} == {0}
    assert sorted(one.cluster for one in spread) == [0] * 10 + [1] * 10 + [2] * 10
    assert [one.reward for one in spread] == sorted((one.reward for one in spread), reverse=True)
    for cluster, first in enumerate((0, 60, 80)):
        best = sorted(reward[first : first + (60, 20, 10)[cluster]])[-10:]
        assert sorted(one.reward for one in spread if one.cluster == cluster) == pytest.approx(best)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 89))
def test_the_top_k_holds_eligible_pictures_once_with_weights_of_mean_one(k, clusters, barred):
    ids, reward, points = three_kinds()
    allowed = [i > barred for i in range(90)]
    found = select(ids, reward, points, allowed, k, clusters, seed=2)
    names = [one.image_id for one in found]
    assert len(set(names)) == len(names) == min(k, sum(allowed)) and all(allowed[int(name[2:])] for name in names)
    if found:
        assert numpy.mean([one.weight for one in found]) == pytest.approx(1) and min(one.weight for one in found) >= 0


def test_a_saved_reward_model_scores_the_same(tmp_path):
    model = RewardModel(8, (16, 4), seed=3)
    points = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    model.fit_scale(points)
    model.save(tmp_path, {"meaning": "test"})
    assert torch.equal(RewardModel.load(tmp_path)(points), model(points))
