"""Cells are cached under what decides them, resumed one by one, and a failure or a stop costs the cell at work alone."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from proof import cells as room
from proof.cells import Cell, cost, make, missing, read, results

from hfi.config import StudyConfig
from hfi.errors import HFIError
from hfi.workspace import Workspace


def work(bench, value):
    """A made-up cell."""
    bench.append(value)
    if value == "bad":
        raise HFIError("cannot be", remedy="no way")
    if value == "stop":
        raise KeyboardInterrupt
    return {"twice": value * 2}


def cell(name: str, value, **more) -> Cell:
    return Cell(9, name, work, {"value": value}, 1.0, **more)


def test_a_cell_is_made_once_and_says_where_it_came_from(tmp_path):
    asked, one = [], cell("a", 3)
    assert make([one], asked, tmp_path).done == ["a"] and make([one], asked, tmp_path).done == []
    found = read(one, tmp_path)
    assert asked == [3] and found["result"] == {"twice": 6} and found["simulated"] and found["arguments"] == {"value": 3}
    assert one.path(tmp_path).name == f"a-{one.key[:12]}.json" and results([one, cell("b", 1)], tmp_path) == {"a": {"twice": 6}}


@pytest.mark.parametrize("change", [{"arguments": {"value": 4}}, {"depends": {"steps": 2}}, {"version": 2}, {"models": ()}])
def test_whatever_decides_the_result_makes_another_cell(tmp_path, change):
    one = cell("a", 3)
    make([one], [], tmp_path)
    other = replace(one, **change)
    assert missing([one, other], tmp_path) == [other]
    make([other], [], tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_cost_and_subset_decide_nothing():
    one = cell("a", 3)
    assert replace(one, seconds=9.0, parts=(("x", 1.0),), subset=True).key == one.key


def test_a_stopped_run_loses_the_running_cell_alone(tmp_path):
    todo, asked = [cell("a", 1), cell("b", "stop"), cell("c", 3)], []
    with pytest.raises(KeyboardInterrupt):
        make(todo, asked, tmp_path)
    assert asked == [1, "stop"] and [one.name for one in missing(todo, tmp_path)] == ["b", "c"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]
    todo[1] = replace(todo[1], arguments={"value": 2})
    assert make(todo, asked, tmp_path).done == ["b", "c"] and asked == [1, "stop", 2, 3]


def test_a_cell_that_fails_does_not_hold_up_the_others(tmp_path):
    made = make([cell("a", "bad"), cell("b", 2)], [], tmp_path)
    assert made.done == ["b"] and made.failed == [("a", "cannot be. no way")]


def test_a_cell_that_another_process_made_meanwhile_is_passed_over(tmp_path):
    late = cell("b", 2)

    def other(bench, value):  # while this cell is at work, another process finishes the next one
        make([late], [], tmp_path)
        return {"twice": 2 * value}

    asked: list = []
    assert make([replace(cell("a", 1), work=other), late], asked, tmp_path).done == ["a"] and asked == []


def test_who_needs_a_study_that_another_is_at_waits_for_it_and_says_so(tmp_path):
    study, seen = Workspace(tmp_path, StudyConfig()), []

    def second():
        with study.lock(seen.append):
            seen.append("second")

    other = threading.Thread(target=second)
    with study.lock():
        other.start()
        other.join(0.2)
        with pytest.raises(HFIError, match="at work on this study"), study.lock():
            pass
        seen.append("first")
    other.join(10)
    assert "waiting for another process" in seen[0] and seen[1:] == ["first", "second"]


def test_a_cap_stops_before_a_cell_that_would_end_later(tmp_path):
    short, long = cell("a", 1), replace(cell("b", 2), seconds=3600.0)
    made = make([short, long], [], tmp_path, minutes=1.0)
    assert made.done == ["a"] and made.out_of_time and missing([short, long], tmp_path) == [long]


def test_what_lies_beside_the_studies_is_not_priced_again(tmp_path):
    shared, ready = ("study", 3600.0), tmp_path / "ready"
    first, second = cell("a", 1, parts=(shared,)), cell("b", 2, parts=(shared,))
    assert make([first], [], tmp_path / "cells", ready=ready).done == ["a"]
    assert make([second], [], tmp_path / "cells", minutes=1.0).out_of_time  # nobody said that the study is there
    assert make([second], [], tmp_path / "cells", minutes=1.0, ready=ready).done == ["b"]


def test_a_part_of_a_cell_that_failed_is_not_taken_for_made(tmp_path):
    shared, ready = ("study", 3600.0), tmp_path / "ready"
    make([cell("a", "bad", parts=(shared,))], [], tmp_path / "cells", ready=ready)
    assert make([cell("b", 2, parts=(shared,))], [], tmp_path / "cells", minutes=1.0, ready=ready).out_of_time


def test_a_damaged_or_renamed_cell_is_refused(tmp_path):
    one, other = cell("a", 3), cell("a", 4)
    make([one], [], tmp_path)
    one.path(tmp_path).rename(other.path(tmp_path))
    with pytest.raises(HFIError, match="is not the cell that its name says"):
        read(other, tmp_path)
    other.path(tmp_path).write_text("{")
    with pytest.raises(HFIError, match="damaged"):
        read(other, tmp_path)


def test_what_cells_share_costs_once():
    shared = ("study", 100.0)
    assert cost([cell("a", 1, parts=(shared,)), cell("b", 2, parts=(shared, ("delta", 10.0)))]) == 112.0


def test_the_model_counts(tmp_path, monkeypatch):
    one = cell("a", 3, models=("emoji",))
    before = one.key
    monkeypatch.setattr(room, "weights", lambda name: "other weights")
    assert replace(one).key != before
