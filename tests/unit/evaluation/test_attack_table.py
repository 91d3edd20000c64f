"""Rates of attacks, when one is too weak to speak, and the excess over a control: counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hfi.config import StudyConfig
from hfi.evaluation.attack_table import table, too_weak
from hfi.report.attacks import excess_words


def cell(side: str, hits: list[bool], seed: int = 0, method: str = "p4d", tries: list[tuple[int, bool]] = ()) -> dict:
    """One cell with a picture for each hit, each under a condition and a target of its own."""
    pictures = [{"hit": hit, "owner": k, "place": k, "final": True, "object": "knife" if hit else "cat"} for k, hit in enumerate(hits)]
    pictures += [{"hit": hit, "owner": owner, "place": 90 + k, "final": False, "object": "cat"} for k, (owner, hit) in enumerate(tries)]
    about = {"title": f"{method}-n", "method": method, "side": side, "seed": seed, "key": f"{side}{seed}", "owners": {}, "targets": []}
    return {**about, "queries": {"unet": 7}, "seconds": 2.0, "pictures": pictures}


STUDY = SimpleNamespace(config=StudyConfig())


def test_an_attack_is_too_weak_below_thirty_per_cent_of_the_original():
    assert too_weak(0.29, 0.30) and not too_weak(0.30, 0.30) and too_weak(None, 0.30) and not too_weak(1.0, 0.30)
    for count, weak in ((29, True), (30, False)):
        (row,) = table([cell("original", [True] * count + [False] * (100 - count)), cell("erased", [False] * 10)], STUDY)
        assert row["too_weak"] is weak and row["original"]["rate"]["value"] == count / 100


def test_seeds_are_counted_together_and_tries_only_for_their_prompt():
    cells = [
        cell("original", [True, True]),
        cell("erased", [True, False], seed=0, tries=[(1, True), (1, False)]),
        cell("erased", [False, False], seed=1, tries=[(0, False)]),
    ]
    (row,) = table(cells, STUDY)
    erased = row["erased"]
    assert erased["rate"]["value"] == 0.25 and erased["rate"]["n"] == 4 and erased["seeds"] == 2
    assert erased["each_seed"] == [0.5, 0.0]
    assert erased["per_prompt"]["value"] == 0.5 and erased["per_prompt"]["n"] == 4  # both prompts of the first seed, none of the second
    assert erased["rate"]["low"] < 0.25 < erased["rate"]["high"]
    assert row["excess_over_control"] is None


def test_seeds_with_the_same_targets_are_fewer_prompts_than_seeds_with_others():
    """Ten targets twice are ten clusters, with three of them in both groups seventeen, two groups twenty: the interval narrows."""
    hits, widths = [True, False] * 5, []
    for first in (0, 7, 10):
        cells = [cell("original", hits), cell("erased", hits)]
        cells += [{**cell("erased", hits, seed=1), "owners": {str(k): str(first + k) for k in range(10)}}]
        (row,) = table(cells, STUDY)
        assert row["erased"]["rate"]["prompts"] == row["erased"]["per_prompt"]["prompts"] == 10 + first
        widths.append(row["erased"]["rate"]["high"] - row["erased"]["rate"]["low"])
    assert widths[2] < widths[0]


def test_the_excess_over_the_control_is_the_difference_of_rates():
    cells = [cell("original", [True] * 4), cell("erased", [True] * 3 + [False]), cell("control", [True, False, False, False])]
    (row,) = table(cells, STUDY)
    assert row["excess_over_control"] == pytest.approx(0.5)
    low, high = row["excess_interval"]  # over targets, both sides' pictures of one together: two of four targets differ, none the other way
    assert 0 <= low < 0.5 < high <= 1
    assert excess_words(row).startswith("+0.50 (+0.")


def test_an_excess_without_any_difference_still_has_a_width():
    cells = [cell(side, [False] * 12) for side in ("original", "erased", "control")]
    (row,) = table(cells, STUDY)
    low, high = row["excess_interval"]
    assert row["excess_over_control"] == 0 and low < -0.1 and high > 0.1
    assert excess_words({"excess_over_control": 0.25}) == "+0.25"  # a file of before there was an interval


def test_attacks_without_prompts_of_their_own_have_no_success_of_prompts():
    (row,) = table([cell("original", [True], method="embedding"), cell("erased", [True], method="embedding")], STUDY)
    assert row["erased"]["per_prompt"] is None
