"""The same cells made twice: how far the figures of two machines lie apart (`make proof AGAIN=1`, docs/proof/again.md).

An interval of the proof is over the prompts, seeds, targets or tokens of one study; what another run of the study would have given is not
in it. Processors differ in the last digit of a sum, and training carries that on: the same cell made elsewhere is such another run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfi.workspace import read_json, write_bytes

from . import charts
from .cells import CELLS, ROOT, Cell, results

AGAIN = ROOT / "docs" / "proof" / "again"  # the cells of the second machine, committed
WHERE = "another machine (2026-11-30, two cores of an AMD EPYC, Zen 4)"
UNERASED = ("original", "before", "named before", "floor", "control")  # columns of models that nothing was erased from
FAR = 0.15  # so far apart that the chart says what it is
HEAD = """# The proof, made again

<!-- Written by `python -m proof`; do not edit. -->

{cells} cells of [the proof]({page}) stand here twice: as its page has them, and made again from nothing (studies, judgements, tokens,
erasures) on {where}. Settings, prompts and seeds are the same to the letter. **All of it is simulated where people would be**, as there.

The second time took {minutes:.0f} minutes by the cells' own clocks; the cells of the page took {before:.0f} by theirs, on several machines
that did other things beside it. **{same} of {cells} cells came out the same in every picture and verdict**, costs aside.
The others are, as far as is known, another run of the same study: one machine's arithmetic (float32 where a processor has no fast
bfloat16, `dtype: auto`), kernels or number of threads change last digits, and training carries that on. An interval of the proof holds
what other prompts, seeds, targets or tokens of one study would have given, and not what another run of it would have; how far such runs
lie apart is below. `outside` is a second figure outside the first's 95 % interval. Two draws that share nothing but the truth fall
outside each other's in 17 of 100; these share prompts and seeds as well.
"""


@dataclass(frozen=True)
class Pair:
    """One figure made twice: {"value", "low", "high"} under a column of a row."""

    part: str
    row: str
    column: str
    first: Mapping[str, object]
    second: Mapping[str, object]

    @property
    def apart(self) -> float:
        """The second minus the first."""
        return float(self.second["value"]) - float(self.first["value"])

    @property
    def outside(self) -> bool | None:
        """Whether the second lies outside the first's interval; None where it has none."""
        low, high = self.first.get("low"), self.first.get("high")
        return None if low is None or high is None else not low <= self.second["value"] <= high


def pairs(first: Mapping[str, list], second: Mapping[str, list]) -> list[Pair]:
    """Every figure with an interval that both have, by the part of the table, what its row is about, and its column."""
    found = []
    for part, rows in first.items():
        theirs = named(second.get(part, []))
        for name, row in named(rows).items():
            for column, value in row.items():
                other = theirs.get(name, {}).get(column)
                if all(isinstance(one, Mapping) and one.get("value") is not None for one in (value, other)):
                    found.append(Pair(part, name, column, value, other))
    return found


def named(rows: Sequence[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """{what the row is about: row}: the entries before its first figure; rows that say the same are numbered."""
    found: dict[str, Mapping[str, object]] = {}
    for row in rows:
        words = []
        for column, value in row.items():
            if isinstance(value, Mapping):
                break
            if value not in (None, ""):
                words.append(value if isinstance(value, str) or column == "value" else f"{column} {value:g}")
        about = ", ".join(map(str, words))
        name, number = about, 1
        while name in found:
            number += 1
            name = f"{about} ({number})"
        found[name] = row
    return found


def summary(title: str, found: Sequence[Pair]) -> dict:
    """How far figures lie apart: how many differ at all, how far those do, and how many of all with an interval are outside."""
    moved = [pair for pair in found if pair.apart]
    furthest = max(found, key=lambda pair: abs(pair.apart))
    bounded = [pair.outside for pair in found if pair.outside is not None]
    return {
        "figures of table": title,
        "differ": f"{len(moved)} of {len(found)}",
        "their mean distance": round(sum(abs(pair.apart) for pair in moved) / len(moved), 3) if moved else None,
        "second minus first": round(sum(pair.apart for pair in moved) / len(moved), 3) if moved else None,
        "furthest": f"{furthest.apart:+.2f} ({furthest.row}: {furthest.column})" if moved else "",
        "outside": f"{sum(bounded)} of {len(bounded)}",
    }


def outcome(result: object) -> object:
    """A cell's result without what it cost."""
    if isinstance(result, Mapping):
        return {name: outcome(value) for name, value in result.items() if name not in ("cost", "seconds")}
    return [outcome(value) for value in result] if isinstance(result, list) else result


def write(tables: Sequence, options, where: str, first: Path = CELLS, second: Path = AGAIN, page: Path = AGAIN.with_suffix(".md")) -> None:
    """Write the page, and a chart beside it, from the cells that both folders have; nothing where they share none."""
    from .write import markdown, verdict

    both = [(table, [cell for cell in table.cells(options) if _there(cell, first, second)]) for table in tables]
    shared = {str(cell.path()): cell for _, cells in both for cell in cells}
    if not shared:
        return
    lines, rows, points, unerased = [], [], [], []
    for table, cells in both:
        made = [table.figures(results(cells, root)) for root in (first, second)]
        found = pairs(*(one["parts"] for one in made))
        if not found:
            continue
        erased = [pair for pair in found if pair.column not in UNERASED]
        unerased += [pair for pair in found if pair.column in UNERASED]
        title = f"{table.NUMBER}. {table.TITLE}"
        rows += [summary(title, erased)] if erased else []
        points += [(pair.first["value"], pair.second["value"], _name(pair)) for pair in erased]
        lines += [f"## Table {title} (simulated)", "", f"First. {verdict(made[0])}", "", f"Again. {verdict(made[1])}", ""]
        lines += [markdown([_shown(pair) for pair in found]), ""]
    rows += [summary("models that nothing was erased from", unerased)] if unerased else []
    chart = page.with_suffix("") / "apart.svg"
    write_bytes(chart, charts.against(points, "the proof's figure", "made again").encode())
    records = [[read_json(cell.path(root)) for root in (first, second)] for cell in shared.values()]
    same = sum(outcome(one["result"]) == outcome(other["result"]) for one, other in records)
    before, minutes = (sum(record["seconds"] for record in side) / 60 for side in zip(*records, strict=True))
    page_of_all = os.path.relpath(ROOT / "docs" / "proof.md", page.parent)
    head = HEAD.format(page=page_of_all, cells=len(shared), same=same, where=where, minutes=minutes, before=before)
    picture = f"![Each figure of an erased model, made twice, as a point; on the line they are the same]({page.stem}/{chart.name})"
    write_bytes(page, "\n".join([head, "## How far apart", "", picture, "", markdown(rows), "", *lines]).rstrip().encode() + b"\n")


def _name(pair: Pair) -> str:
    return f"{pair.row}: {pair.column}" if abs(pair.apart) > FAR else ""


def _there(cell: Cell, *roots: Path) -> bool:
    return all(cell.path(root).exists() for root in roots)


def _shown(pair: Pair) -> dict:
    outside = {True: "yes", False: "", None: "no interval"}[pair.outside]
    columns = {"row": pair.row, "figure": pair.column, "first": pair.first, "again": pair.second}
    return {**columns, "apart": round(pair.apart, 3), "outside": outside}
