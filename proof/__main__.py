"""Make the proof's cells and write docs/proof.md and docs/proof.json:

    python -m proof [--full] [--again] [--table N] [--list] [--dry-run] [--minutes M]

`make proof` makes the declared subset, `make proof FULL=1` everything. Cells that are there are not made again; a checkout has those that
are committed. `make proof AGAIN=1` makes them from nothing on this machine, in studies/proof-again, and writes there how far they lie
from the committed ones (again.md).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hfi.cli.options import changes
from hfi.errors import HFIError

from . import again
from .cells import CELLS, Cell, Made, cost, make, missing
from .studies import Bench, require_names
from .write import PAGE, TABLES, tables, write

HERE = Path("studies/proof-again")  # what --again makes


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every cell, not only the declared subset")
    parser.add_argument(
        "--again", action="store_true", help="from nothing, into studies/proof-again, and beside the cells that are committed"
    )
    parser.add_argument("--table", type=int, action="append", default=[], metavar="N", help="one table; repeat for several; default: all")
    parser.add_argument(
        "--cell", action="append", default=[], metavar="NAME", help="one cell by its name (--list); repeat for several, made in that order"
    )
    parser.add_argument("--list", action="store_true", help="print every cell with its cost and whether it is made")
    parser.add_argument("--dry-run", action="store_true", help="print what would be made and the seconds it would take, and make nothing")
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="stop cleanly before a cell that would end later; 0: no cap"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--studies", type=Path, help="where the studies lie that cells stand on; default: studies/proof")
    parser.add_argument("--cells", type=Path, help="where cells are kept; default: docs/proof/cells")
    parser.add_argument("--page", type=Path, help="the page to write; the figures go beside it as .json; default: docs/proof.md")
    parser.add_argument("--control", type=Path, default=Path("proof/models/control"), help="a model that never learned the concept")
    parser.add_argument("--look", type=Path, default=Path("proof/models/look"), help="the model with a look that no word names")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="a setting of every study, for trials; cells made so are cells of their own",
    )
    options = parser.parse_args(arguments)
    usual = (HERE, HERE / "cells", HERE / "proof.md") if options.again else (Path("studies/proof"), CELLS, PAGE)
    for name, folder in zip(("studies", "cells", "page"), usual, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, folder)
    return options


def wanted(options: argparse.Namespace) -> list[Cell]:
    """The cells that this call is about, each once: tables that read another's cells share them."""
    require_names([str(n) for n in options.table], [str(table.NUMBER) for table in TABLES], "table")
    found: dict[str, Cell] = {}
    for number, cells in tables(options).items():
        if not options.table or number in options.table:
            found |= {str(cell.path()): cell for cell in cells}
    if options.cell:
        require_names(options.cell, [cell.name for cell in found.values()], "cell")
    chosen = [cell for cell in found.values() if (cell.name in options.cell if options.cell else options.full or cell.subset)]
    if options.cell:
        chosen.sort(key=lambda cell: options.cell.index(cell.name))
    if options.settings:
        return [replace(cell, depends=[cell.depends, sorted(options.settings)]) for cell in chosen]
    return chosen


def plan(options: argparse.Namespace, chosen: list[Cell]) -> str:
    """Seconds of what is missing, by table, for this call, and of both sizes in all."""
    lines, left = [], missing(chosen, options.cells)
    for number in sorted({cell.table for cell in chosen}):
        mine = [cell for cell in chosen if cell.table == number]
        todo = [cell for cell in left if cell.table == number]
        lines.append(f"table {number}: {len(mine)} cells, {len(mine) - len(todo)} made, about {cost(todo):.0f} s for the rest (by itself)")
    lines.append(
        f"this call: {len(left)} cells to make, about {cost(left):.0f} s on 2 cores ({cost(left) / 60:.0f} minutes); studies and "
        "erasures that several cells stand on count once"
    )
    every = {str(cell.path()): cell for cells in tables(options).values() for cell in cells}.values()
    for name, cells in (("subset", [cell for cell in every if cell.subset]), ("FULL", list(every))):
        lines.append(f"{name}, from nothing: {len(cells)} cells, about {cost(cells):.0f} s ({cost(cells) / 60:.0f} minutes)")
    return "\n".join(lines)


def listing(options: argparse.Namespace, chosen: list[Cell]) -> str:
    """One line a cell."""
    rows = []
    for cell in chosen:
        state = "made" if cell.path(options.cells).exists() else "-"
        rows.append(f"table {cell.table}  {cell.name:<44} {cost([cell]):7.0f} s  {'subset' if cell.subset else 'full':6}  {state}")
    return "\n".join(rows)


def _beside(options: argparse.Namespace) -> None:
    """The page that holds cells of this machine, or the committed ones of a second machine, beside those of docs/proof/cells."""
    if options.cells != CELLS:
        again.write(TABLES, options, "this machine", CELLS, options.cells, options.page.with_name("again.md"))
    elif options.page == PAGE:
        again.write(TABLES, options, again.WHERE)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        chosen = wanted(options)
        if options.list:
            print(listing(options, chosen))
            return 0
        if options.dry_run:
            print(plan(options, chosen))
            return 0
        bench = Bench(options.studies, options.device, changes(settings=options.settings))
        made = Made()
        try:
            made = make(chosen, bench, options.cells, options.minutes, options.studies / "ready")
        finally:
            if not options.settings:
                write(options, options.cells, options.page, options.page.with_suffix(".json"))
                _beside(options)
        left = missing(chosen, options.cells)
        print(
            f"{len(made.done)} cells made, {len(left)} still missing"
            + (": time ran out; the same command goes on" if made.out_of_time else "")
        )
        return 1 if made.failed else 0
    except HFIError as error:
        print(f"proof: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("proof: stopped; the same command goes on with the next cell", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
