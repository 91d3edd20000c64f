"""Whether more labels would help, in words: by counts before there is a reward, by the learning curve after."""

from __future__ import annotations

import pytest

from hfi.feedback.advice import from_counts, from_curve, from_rankings


def votes(present: int, absent: int) -> dict:
    found = {f"p{i}": {"present": 1, "absent": 0} for i in range(present)}
    return found | {f"a{i}": {"present": 0, "absent": 1} for i in range(absent)}


def curve(now: float, exponent: float, pictures: int = 150, held_out: float = 0.25, spread: float = 0.1) -> dict:
    def needed(b: float) -> int | None:
        if now >= 0.95:
            return pictures
        return round(pictures * ((1 - now) / 0.05) ** (1 / b)) if b > 0 else None

    ends = {"value": needed(exponent), "low": needed(exponent + spread), "high": needed(exponent - spread)}
    return {
        "now": now,
        "target": 0.95,
        "pictures": pictures,
        "held_out": held_out,
        "exponent": {"value": exponent, "low": exponent - spread, "high": exponent + spread},
        "needed": ends,
    }


def test_too_few_to_begin():
    found = from_counts(votes(5, 10), 15, 40)
    assert found.help and found.more == 25 and "About 25 more pictures must be judged" in found.words


def test_rare_positives_are_counted_in_labels():
    """Four in eighty: ten of them want about 120 labels more."""
    found = from_counts(votes(4, 76), 80, 40)
    assert found.help and found.more == 120 and "only 4 pictures are present" in found.words
    assert "Nobody has said 'present'" in from_counts(votes(0, 80), 80, 40).words


def test_enough_to_learn_from_but_nothing_learned_yet():
    found = from_counts(votes(30, 50), 80, 40)
    assert found.help is None and "hfi reward" in found.words


def test_a_number_where_the_curve_gets_there():
    """AUC 0.93, b = 1: from 150 to 210 pictures to learn from, so 80 more to judge when a quarter is held out."""
    found = from_curve(curve(0.93, 1.0), 150)
    assert found.help and found.more == 80 and found.low <= found.more <= found.high
    assert found.words.startswith("About 80 more labels would help (")


def test_labels_given_since_count():
    assert from_curve(curve(0.93, 1.0), 180).more == 40
    since = from_curve(curve(0.93, 1.0), 215)
    assert since.more == 0 and "run 'hfi reward' again" in since.words


def test_more_would_hardly_help_where_the_target_is_reached():
    found = from_curve(curve(0.97, 0.5), 150)
    assert found.help is False and found.more == 0 and "hardly help" in found.words


@pytest.mark.parametrize("exponent", [0.02, -0.1])
def test_a_flat_curve_is_not_mended_by_labels(exponent):
    found = from_curve(curve(0.80, exponent, spread=0.01), 150)
    assert found.help is False and found.more is None and "guideline" in found.words


def test_an_open_upper_end_is_said_to_be_open():
    found = from_curve(curve(0.93, 0.5, spread=0.6), 150)
    assert found.high is None and "or more" in found.words


def test_rankings_go_by_the_width_of_their_interval():
    wide = from_rankings({"pairwise_accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 80}})
    narrow = from_rankings({"pairwise_accuracy": {"value": 0.8, "low": 0.78, "high": 0.82, "n": 2000}})
    assert wide.help and "4.0 times" in wide.words and narrow.help is False
    assert from_rankings({"pairwise_accuracy": None}) is None
