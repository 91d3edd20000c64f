"""The proof made twice: every figure beside its first, told how far apart, and nothing said of cells that only one machine has."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

from proof import again, charts
from proof.__main__ import HERE, parse
from proof.cells import CELLS, Cell, record

from hfi.workspace import write_json


def rate(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "n": 10}


def test_figures_are_paired_by_what_their_rows_are_about():
    row = lambda concept, after, **more: {"concept": concept, "steps": 2, "before": rate(0.9, 0.8, 1.0), "after": after, **more}  # noqa: E731
    first = {"bars": [row("a", rate(0.1, 0.0, 0.2), floor=None), row("b", rate(0.4, 0.3, 0.5))]}
    second = {"bars": [row("b", rate(0.6, 0.5, 0.7)), row("a", rate(0.15, 0.1, 0.3), floor=rate(0.1))]}
    found = {(pair.row, pair.column): pair for pair in again.pairs(first, second)}
    assert set(found) == {(f"{name}, steps 2", column) for name in "ab" for column in ("before", "after")}
    near, far = found["a, steps 2", "after"], found["b, steps 2", "after"]
    assert abs(near.apart - 0.05) < 1e-9 and not near.outside and far.outside
    told = again.summary("bars", [near, far])
    assert told["outside"] == "1 of 2" and told["differ"] == "2 of 2" and told["their mean distance"] == 0.125
    assert told["furthest"] == "+0.20 (b, steps 2: after)"


def test_rows_that_say_the_same_are_numbered_and_a_figure_without_an_interval_is_outside_of_none():
    rows = [{"told by": "HFI", "drops": rate(0.1)}, {"told by": "HFI", "drops": rate(0.3)}]
    assert list(again.named(rows)) == ["HFI", "HFI (2)"]
    assert [pair.outside for pair in again.pairs({"look": rows}, {"look": rows})] == [None, None]


def test_the_page_is_of_the_cells_that_both_have(tmp_path):
    cells = [Cell(1, name, print, {"name": name}, 1.0, models=()) for name in ("both", "one", "same")]

    def figures(made):
        rows = [{"arm": name, "rate": rate(value, 0.0, 0.3)} for name, value in made.items()]
        return {"parts": {"rates": rows}, "shows": True, "where_not": ""}

    table = SimpleNamespace(NUMBER=1, TITLE="Rates", cells=lambda options: cells, figures=figures)
    for root, made in ((tmp_path / "a", {"both": 0.1, "one": 0.2, "same": 0.3}), (tmp_path / "b", {"both": 0.4, "same": 0.3})):
        for cell in cells:
            if cell.name in made:
                write_json(cell.path(root), record(cell, made[cell.name], 90.0))
    page = tmp_path / "again.md"
    again.write([table], None, "a test's machine", tmp_path / "a", tmp_path / "b", page)
    text = page.read_text()
    assert text.split("\n\n")[2].startswith("2 cells of") and "a test's machine" in text and "took 3 minutes" in text
    assert "**1 of 2 cells came out the same" in text and "| 1. Rates | 1 of 2 | 0.3 |" in text
    assert "| both | rate | 0.10 (0.00 to 0.30, n 10) | 0.40 (0.00 to 0.30, n 10) | 0.3 | yes |" in text and "| one |" not in text
    assert (tmp_path / "again" / "apart.svg").exists() and "simulated" in text
    again.write([table], None, "nowhere", tmp_path / "a", tmp_path / "empty", tmp_path / "none.md")
    assert not (tmp_path / "none.md").exists()


def test_what_a_cell_cost_is_no_part_of_how_it_came_out():
    one = {"cost": {"seconds": 1}, "sides": [{"hits": "01", "seconds": 2}], "hits": "1"}
    assert again.outcome(one) == {"sides": [{"hits": "01"}], "hits": "1"}


def test_points_lie_on_the_line_where_both_are_the_same():
    found = ElementTree.fromstring(charts.against([(0.25, 0.25, ""), (1.2, 0.0, "far off")], "first", "again"))
    same, edge = found.findall("{http://www.w3.org/2000/svg}circle")
    assert float(same.get("cx")) - 60 == 410 - float(same.get("cy")) == 95
    assert "far off" in [text.text for text in found.findall("{http://www.w3.org/2000/svg}text")]
    assert float(edge.get("cx")) == 440 and float(edge.get("cy")) == 410


def test_again_leaves_the_committed_cells_and_page_alone():
    options = parse(["--again"])
    assert {options.studies, options.cells.parent, options.page.parent} == {HERE} and HERE.parts[0] == "studies"
    assert parse([]).cells == CELLS and parse(["--again", "--cells", "x"]).cells == Path("x")
