"""docs/proof.md and docs/proof.json from the cells that exist. Nothing in them is typed by hand: no cell, no figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hfi.workspace import write_bytes, write_json

from . import table1_words, table2_bars, table3_look, table4_attacks, table5_people, table6_many, table7_protocols
from .cells import CELLS, ROOT, Cell, results

TABLES = (table1_words, table2_bars, table3_look, table4_attacks, table5_people, table6_many, table7_protocols)
PAGE, FIGURES = ROOT / "docs" / "proof.md", ROOT / "docs" / "proof.json"
HEAD = """# Proof

<!-- Written by `python -m proof` from docs/proof/cells; do not edit. -->

Each claim is a table, made of cells that anyone can make again: `make proof` makes the declared subset (`.venv/bin/python -m proof --list`
marks its cells; 135 minutes from nothing on two cores of an AMD EPYC, Zen 4, timed in two parts: table 4 took 39 on 2026-12-01, the other
tables 96 by their cells' clocks in the run of 2026-11-30; a slower machine may take twice as long), `make proof FULL=1` all of it, over
several runs or on a GPU, which has not been tried; both continue where they were stopped, cell by cell. A checkout has the committed cells:
`make proof AGAIN=1` makes them anew. [The proof, made again](proof/again.md) is that of a second machine, figure beside figure: **read it
with table 4, whose attacks come out otherwise there**. The same figures, under the tables' numbers, are in [proof.json](proof.json). The
recipes changed on 2026-11-28; [here](proof/2026-11-23.md) is the whole subset as it stood under those before.

**All of it is simulated where people would be.** A judge network plays the annotators, another one (`emoji:scorer`) scores. The scoring
judge trains no reward model, plays no annotator and picks no setting by itself; but people read its figures, and five times something was
changed or tried after a look at them: hardening was changed until its scored attacks held (table 4), of ten concepts a rule that it scored
was not taken (docs/decisions/0012), strengths and a question were added to table 3, a variant of UCE was tried on a target of table 7, and
a rule about labels was mended when alcohol, which stands in tables 1, 2, 5 and 6, had missed a bar (docs/results.md). Settings are the
recipes', chosen by the annotator judge on the concepts "weapon" and "fluent-ink" and frozen; where those two stand in a table they are
marked (development), but in the means over ten concepts of table 6 and nine styles of table 7 they count unmarked. The strengths of table
1 are a fixed grid, and the rounds of hardened SDD are judged by the annotator judge. The prompts that score the eight concepts of tables 1,
2, 4 and 5 stand in files of their own (proof/prompts), in wordings that no feedback prompt has, under seeds of the proof's own; those of
the other tables are drawn in the same way when they are made. Settings were chosen on other draws (`hfi.evaluation.quick`), in which of the
280 texts of weapon 35 occur as well, of the 316 of fluent-ink 4, with other seeds. Attacks, further training and HUB's prompts are drawn
under the study's own seeds. Intervals are 95 %.
"""
FOOT = """## The same of a model of your own

`python -m proof` is about the embedded model and what its judges can name. Of a study of yours (README.md) these commands come nearest, \
on
pages of their own, with prompts from your concept's vocabulary and the judge that you name. What they leave out stands beside them.

| table | command | what it leaves out |
|---|---|---|
| 1, 2 | `hfi compare studies/mine --methods negative_prompt,sld,esd,uce,sdd --strengths 0.5,1,1.5,2 \
--set erase.flagged_prompts=0`; an oracle list: `--set 'erase.words=[...]'`; flagged prompts too: as your study has it; \
over several concepts: `--together studies/other` | ESD has steps of its own (`--set erase.esd.steps=...`); strengths end at 2 |
| 3 | people flag the look on the labelling page; `hfi run studies/mine`, then `hfi compare studies/mine` | a judge that knows the look: \
`--set evaluate.judge=clip:FOLDER` or `look:FOLDER` |
| 4, attacks | `hfi compare studies/mine --methods sdd,hardened --with tokens`, then for each `hfi attack studies/mine --delta \
studies/mine/compare/hardened-tokens/delta.safetensors --control MODEL --seeds 3 --vectors 1,4,16`, and again with `--set \
attack.choose=alike` | |
| 4, further training | `hfi persist studies/mine --full --lora`; `hfi persist studies/mine --then studies/other` | |
| 5 | a study for each row: `--set invert.vectors=16`, `--set 'label.machines=[clip:FOLDER]'`; fewer labels: `hfi label --export FILE`, \
a part of its lines, `--import` | what people err and overlook is theirs |
| 6 | `hfi erase studies/a --also studies/b`; `hfi export studies/a --also studies/b` adds deltas | |
| 7 | `hfi run studies/mine --set erase.method=uce`, then `hfi measure studies/mine --with unlearncanvas --with hub` | one target a study, \
a harm's members together, on a grid of its own |
"""


def tables(options) -> dict[int, list[Cell]]:
    """{number: cells} of every table."""
    return {table.NUMBER: table.cells(options) for table in TABLES}


def write(options, root: Path = CELLS, page: Path = PAGE, figures: Path = FIGURES) -> dict:
    """Write both files, and the charts into a folder beside the page that has its name; returns what proof.json holds."""
    found = {str(table.NUMBER): _table(table, options, root, page.with_suffix("")) for table in TABLES}
    write_json(figures, {"simulated": True, "tables": {number: _without_text(one) for number, one in found.items()}})
    write_bytes(page, ("\n".join([HEAD, *(one["text"] for one in found.values()), FOOT])).rstrip().encode() + b"\n")
    return found


def _without_text(one: dict) -> dict:
    return {name: value for name, value in one.items() if name != "text"}


def _table(table, options, root: Path, pictures: Path) -> dict:
    cells = table.cells(options)
    made = results(cells, root)
    found = table.figures(made)
    state = {
        "title": table.TITLE,
        "expected": table.EXPECTED,
        "cells": len(cells),
        "made": len(made),
        "shows": found["shows"],
        "where_not": found["where_not"],
        **found["parts"],
    }
    return {**state, "text": _text(table, options, cells, made, found, _charts(table, found["parts"], pictures))}


def _charts(table, parts: Mapping[str, list], pictures: Path) -> list[str]:
    """Write a table's charts; the page's lines that show them."""
    lines = []
    for name, drawn in getattr(table, "charts", lambda parts: {})(parts).items():
        file = pictures / f"table{table.NUMBER}-{name.lower().replace(' ', '-')}.svg"
        write_bytes(file, drawn.encode())
        lines += [f"![{name}: the figures of the table below as a chart]({pictures.name}/{file.name})", ""]
    return lines


def _text(table, options, cells: Sequence[Cell], made: Mapping[str, dict], found: dict, charts: Sequence[str]) -> str:
    lines = [f"## Table {table.NUMBER}. {table.TITLE} (simulated)", "", f"**Expected.** {table.EXPECTED}", ""]
    lines += [f"**How.** {' '.join(table.NOTES)}", ""]
    if words := getattr(table, "describe", lambda options: "")(options):
        lines += [f"**Missing model.** {words}", ""]
    lines += [missing_words(table.NUMBER, cells, made), "", *charts]
    for name, rows in found["parts"].items():
        if rows:
            lines += [f"*{name[0].upper()}{name[1:]} (simulated judges; share (95 % interval, n pictures)).*", "", markdown(rows), ""]
    lines += [verdict(found), ""]
    if found["shows"] is False and (why := getattr(table, "WHY", "")):
        lines += [f"**Why, as far as it is known.** {why}", ""]
    return "\n".join(lines)


def missing_words(number: int, cells: Sequence[Cell], made: Mapping[str, dict]) -> str:
    """Which cells are not there, and how to make them."""
    left = [cell for cell in cells if cell.name not in made]
    if not left:
        return f"All {len(cells)} cells are made." if cells else "This table has no cells of its own yet."
    subset = sum(cell.subset for cell in left)
    names = ", ".join(cell.name for cell in left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
    first = "Not yet made: no cell is there" if not made else f"{len(made)} of {len(cells)} cells are made"
    own = f"`.venv/bin/python -m proof --table {number}` makes the {subset} of the subset, " if subset else "The subset is complete; "
    how = f"{own}`.venv/bin/python -m proof --table {number} --full` makes all"
    return f"{first}. Missing: {names}. {how}."


def verdict(found: dict) -> str:
    """What the figures say of the expectation."""
    if not any(found["parts"].values()):
        return "**Does it show it?** Not known: no figure yet."
    words = {True: "Yes, as far as the cells above go.", False: "No.", None: "Not yet known."}[found["shows"]]
    return f"**Does it show it?** {words}" + (f" Where it does not: {found['where_not']}." if found["where_not"] else "")


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table, over all columns that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(shown(row.get(name), name, row) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def shown(value: object, name: str = "", row: Mapping[str, object] = {}) -> str:  # noqa: B006 - read only
    """One entry: an estimate with its interval and n, a number, or words."""
    from .studies import DEVELOPMENT

    if value is None:
        return "–"
    if isinstance(value, Mapping):
        if value.get("value") is None:
            return "–"
        size = f", n {value['n']}" if value.get("n") else (f", {value['targets']} targets" if value.get("targets") else "")
        between = f"{value['low']:.2f} to {value['high']:.2f}" if value.get("low") is not None else "no interval"
        return f"{value['value']:.2f} ({between}{size})"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value} (development)" if name == "concept" and value in DEVELOPMENT else str(value)
