"""Active choice: uncertain first, clusters in turn, and what happens to files that are missing, partial or damaged."""

from __future__ import annotations

import json

import pytest

from hfi.errors import HFIError
from hfi.feedback.active import Score, order, read_scores, teaching_order


def write(path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(image: str, uncertainty: float, cluster: int = 0) -> dict:
    return {"image": image, "score": 0.5, "uncertainty": uncertainty, "cluster": cluster}


def test_the_most_uncertain_come_first():
    scores = {f"p{i}": Score(0.0, i / 100, 0) for i in range(50)}
    assert teaching_order(scores) == [f"p{i}" for i in reversed(range(50))]


def test_alike_pictures_wait_for_others():
    scores = {f"a{i}": Score(0.5, 0.50 - i / 1000, 0) for i in range(10)} | {f"b{i}": Score(0.5, 0.40 - i / 1000, 1) for i in range(10)}
    assert {name[0] for name in teaching_order(scores)[:2]} == {"a", "b"}
    found = teaching_order(scores)
    assert sorted(found) == sorted(scores) and [n for n in found if n[0] == "a"] == [f"a{i}" for i in range(10)]


def test_a_settled_cluster_does_not_come_before_a_doubtful_one():
    scores = {f"a{i}": Score(0.5, 0.5, 0) for i in range(10)} | {f"b{i}": Score(0.0, 0.001, 1) for i in range(10)}
    assert all(name[0] == "a" for name in teaching_order(scores)[:10])


def test_the_order_follows_from_the_seed():
    scores = {f"p{i}": Score(0.5, 0.2, i % 3) for i in range(30)}
    assert teaching_order(scores, 1) == teaching_order(scores, 1) != teaching_order(scores, 2)


def test_without_scores_the_order_given_stays(tmp_path):
    assert order(tmp_path, ["b", "a"]) == ["b", "a"] and read_scores(tmp_path) == {}


def test_pictures_that_nothing_scored_come_last(tmp_path):
    write(tmp_path / "reward" / "scores.jsonl", [row("a", 0.1), row("b", 0.3), row("gone", 0.5)])
    assert order(tmp_path, ["new", "a", "b", "newer"]) == ["b", "a", "new", "newer"]


def test_a_machine_s_scores_serve_until_the_reward_has_its_own(tmp_path):
    write(tmp_path / "machines" / "machine-1-abc.jsonl", [row("a", 0.1), row("b", 0.3)])
    assert order(tmp_path, ["a", "b"]) == ["b", "a"]
    write(tmp_path / "reward" / "scores.jsonl", [row("a", 0.4), row("b", 0.3)])
    assert order(tmp_path, ["a", "b"]) == ["a", "b"]


DAMAGED = ["{", "[]", '{"image": "a"}', *(f'{{"image": "a", "score": {x}, "uncertainty": 1, "cluster": 0}}' for x in ('"x"', "NaN"))]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, line):
    write(tmp_path / "reward" / "scores.jsonl", [row("a", 0.4)])
    with (tmp_path / "reward" / "scores.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(HFIError, match=r"scores\.jsonl: line 2: half-written or damaged"):
        read_scores(tmp_path)


def test_two_hundred_thousand_pictures_are_ordered_in_seconds():
    import time

    scores = {f"p{i}": Score(0.5, (i * 7919 % 1000) / 2000, i % 25) for i in range(200_000)}
    started = time.process_time()
    assert len(teaching_order(scores)) == 200_000
    assert time.process_time() - started < 10
