"""A cell: one measurement behind a table, a plain function with plain arguments -> a small JSON file, made once.

docs/proof/cells/table<N>/<name>-<key>.json     what it gave, with its arguments and cost; committed

The key is a hash of the weights of all networks, all settings that count and the cell's own version, so a changed setting is another
cell and the old file stays beside it, unused. A file is written last and whole: a stopped run loses the cell at work, and of that only
what its studies and erasures do not keep by themselves. Imports no torch: planning and --dry-run answer at once.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hfi.diffusion.identity import model_hash
from hfi.errors import HFIError
from hfi.progress import bar, console
from hfi.workspace import digest, peak_memory_mib, read_json, reset_peak_memory, versions, write_bytes, write_json

ROOT = Path(__file__).resolve().parents[1]
CELLS = ROOT / "docs" / "proof" / "cells"


@functools.cache
def weights(model: str) -> str:
    """The hash of a model's weights, asked of the disk once a run."""
    return model_hash(model)


@functools.cache
def networks() -> list[str]:
    """The hashes of CLIP and both judges, which every cell looks with."""
    from hfi import emoji

    return [model_hash(str(Path(emoji.folder()).parent / name)) for name in ("clip", "judges/annotator", "judges/scorer")]


@dataclass(frozen=True)
class Cell:
    """One measurement.

    work: (bench, **arguments) -> plain data; bench says where studies lie and holds the models (studies.py).
    depends: settings that decide the result beside the arguments; hashed, not stored. models: weights that it looks at.
    seconds: what the cell itself takes on 2 cores, about. parts: (name, seconds) of studies and erasures that it stands on and shares.
    subset: whether `make proof` makes it; FULL=1 makes all.
    """

    table: int
    name: str
    work: Callable[..., dict]
    arguments: Mapping[str, object]
    seconds: float
    parts: tuple[tuple[str, float], ...] = ()
    subset: bool = False
    version: int = 1
    depends: object = None
    models: tuple[str, ...] = ("emoji",)

    @functools.cached_property
    def key(self) -> str:
        """What the result depends on, as one hash."""
        models = [*(weights(name) for name in self.models), *networks()]
        return digest({"models": models, "arguments": self.arguments, "depends": self.depends, "version": self.version})

    def path(self, root: Path = CELLS) -> Path:
        return root / f"table{self.table}" / f"{self.name}-{self.key[:12]}.json"


def read(cell: Cell, root: Path = CELLS) -> dict | None:
    """The cell's record {"key", "result", "seconds" ...}, or None where it is not made; raises HFIError for a damaged file."""
    path = cell.path(root)
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("key") != cell.key:
        raise HFIError("is not the cell that its name says", file=path, remedy="delete it and run 'make proof' again")
    return found


def results(cells: Iterable[Cell], root: Path = CELLS) -> dict[str, dict]:
    """{name: result} of the cells that are made."""
    return {cell.name: found["result"] for cell in cells if (found := read(cell, root)) is not None}


def missing(cells: Iterable[Cell], root: Path = CELLS) -> list[Cell]:
    return [cell for cell in cells if not cell.path(root).exists()]


def cost(cells: Sequence[Cell], paid: Collection[str] = ()) -> float:
    """Seconds of these cells, about; what several stand on counts once, what is `paid` already not at all."""
    parts = {name: seconds for cell in cells for name, seconds in cell.parts if name not in paid}
    return sum(cell.seconds for cell in cells) + sum(parts.values())


@dataclass
class Made:
    """What a run did: names of finished cells, (name, one line) of those that failed, and whether time ran out first."""

    done: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    out_of_time: bool = False


def make(cells: Sequence[Cell], bench: object, root: Path = CELLS, minutes: float = 0.0, ready: Path | None = None) -> Made:
    """Make what is missing, in order. A cell that fails is told and left out; the others are still made.

    Several processes may share the work: one that needs a study which another is at waits for it, and a cell that another one has made
    meanwhile is passed over.

    Args:
        minutes: stop before a cell that would, at the pace so far, end later; 0: no cap.
        ready: a folder beside the studies that remembers which parts lie there, so that they are not priced again.
    """
    todo, made, began = missing(cells, root), Made(), time.monotonic()
    paid = {name for cell in todo for name, _ in cell.parts if ready and _mark(ready, name).exists()}
    spent = 0.0  # estimated seconds of the finished cells: with the clock they give the pace
    with bar() as progress:
        in_all = cost(todo, paid)
        task = progress.add_task("Proof", total=round(in_all), note="")
        for number, cell in enumerate(todo, 1):
            if cell.path(root).exists():
                continue
            fresh = [(name, seconds) for name, seconds in cell.parts if name not in paid]
            needs, elapsed = cell.seconds + sum(seconds for _, seconds in fresh), time.monotonic() - began
            pace = (elapsed + 60) / (spent + 60)  # the estimates count for a minute: one quick cell says little
            if minutes and elapsed + pace * needs > 60 * minutes:
                made.out_of_time = True
                break
            progress.update(task, description=f"Proof {number}/{len(todo)}: table {cell.table}, {cell.name}")
            if not console.is_terminal:
                left = pace * (in_all - spent) / 60
                console.print(
                    f"{number}/{len(todo)} table {cell.table}, {cell.name}: about {pace * needs:.0f} s; {left:.0f} min left in all"
                )
            reset_peak_memory()
            start = time.monotonic()
            try:
                found = cell.work(bench, **cell.arguments)
            except HFIError as error:
                made.failed.append((cell.name, str(error)))
                console.print(f"table {cell.table}, {cell.name} failed: {error}", style=None, highlight=False, soft_wrap=True)
            else:
                write_json(cell.path(root), record(cell, found, time.monotonic() - start))
                made.done.append(cell.name)
                for name, _ in cell.parts if ready else ():
                    write_bytes(_mark(ready, name), name.encode())
            paid |= {name for name, _ in fresh}
            spent += needs
            progress.update(task, completed=round(spent))
    return made


def _mark(ready: Path, part: str) -> Path:
    return ready / digest(part)[:16]


def record(cell: Cell, found: dict, seconds: float) -> dict:
    """What a cell's file holds."""
    return {
        "key": cell.key,
        "table": cell.table,
        "name": cell.name,
        "version": cell.version,
        "simulated": True,
        "arguments": dict(cell.arguments),
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "versions": versions(),
        "result": found,
    }
