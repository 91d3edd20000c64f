"""Several studies' comparisons taken together: means over concepts, and tokens against words with concepts resampled (ours).

One concept tells of one concept. Over several, the bootstrap resamples concepts and then prompts, and the p values of one question asked
of several methods are adjusted by Holm (1979). Nothing is erased or drawn: what `hfi compare` left in each study is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hfi.compare.level import LEVEL_SETS
from hfi.errors import HFIError
from hfi.evaluation.statistics import holm, two_level_mean
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, read_json

FILE = "compare.json"
TESTED = ("explicit", "implicit", "variations", "unlisted", "other", "styles")


def read_comparison(study: Workspace) -> dict:
    """{"concept", "judge", "cells": as `together` takes them} of a study whose comparison is done; raises HFIError where it is not."""
    file = study.path("compare", FILE)
    if not file.exists():
        raise HFIError("its comparison is not done", file=study.root, field="--together", remedy=f"run 'hfi compare {study.root}' first")
    found = read_json(file)
    cells = []
    for cell in found["cells"]:
        folder = study.path("compare", f"{cell['method']}-{cell['given_as']}")
        whole = read_json(folder / "cell.json")
        if whole["key"] != cell["key"]:
            raise HFIError("was done anew under other settings", file=folder, remedy=f"run 'hfi compare {study.root}' again")
        level = {"level": read_json(folder / "level.json")} if found["at_level"] else {}
        cells.append({**cell, "outcomes": whole["outcomes"], **level})
    return {"concept": found["concept"], "judge": found["judge"], "cells": cells}


def together(found: Sequence[dict], seed: int, resamples: int) -> dict:
    """Rows and tests over concepts.

    Args:
        found: {"concept", "judge", "cells"} of each study; a cell has "method", "given_as", "retention", "outcomes" and, where the
            comparison was made at several strengths, "level" (compare.level.level_of).

    Returns {"concepts", "rows", "tests"}: of each method and what it was told the mean concept rate (named, keywords, wordings) at
    strength 1 and at equal retention, and mean and lowest retention; of each method told both the difference tokens - words on each set,
    with "p (Holm)" over the methods. Only what every study has is compared. Raises HFIError where the judges differ or a study comes twice.
    """
    if len({one["judge"] for one in found}) > 1:
        names = ", ".join(f"{one['concept']}: {one['judge']}" for one in found)
        raise HFIError(f"scored by different judges ({names})", field="--together", remedy="compare them by one evaluate.judge")
    by = [{(cell["method"], cell["given_as"]): cell for cell in one["cells"]} for one in found]
    shared = [key for key in by[0] if all(key in one for one in by)]
    if not shared:
        raise HFIError("the studies share no method", field="--together", remedy="compare them with the same --methods and --with")
    rows = [_row(key, [one[key] for one in by], seed, resamples) for key in shared]
    tests = []
    for name in ("level", *TESTED):
        tested = [row for method in dict.fromkeys(m for m, _ in shared) if (row := _test(method, name, by, seed, resamples))]
        for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
            tests.append({**row, "p": round(row["p"], 4), "p (Holm)": round(adjusted, 4)})
    return {"concepts": [one["concept"] for one in found], "rows": rows, "tests": tests}


def _row(key: tuple[str, str], cells: Sequence[dict], seed: int, resamples: int) -> dict:
    kept = [value for cell in cells if (value := _retention(cell)) is not None]
    levels = [cell["level"] for cell in cells if cell.get("level")]
    rate = two_level_mean([_pooled(cell["outcomes"]) for cell in cells], numpy_generator(seed, "together", *key), resamples)[0]
    at = [(level["values"], level["prompts"]) for level in levels] if len(levels) == len(cells) else []
    return {
        "method": key[0],
        "given_as": key[1],
        "rate": rate.plain(),
        "at_level": two_level_mean(at, numpy_generator(seed, "together", "level", *key), resamples)[0].plain() if at else None,
        "reached": sum(level["reached"] for level in levels) if at else None,
        "retention": {"mean": round(sum(kept) / len(kept), 4), "lowest": min(kept)} if kept else None,
    }


def _pooled(outcomes: Mapping[str, list]) -> tuple[list[int], list[str]]:
    rows = [row for name in LEVEL_SETS for row in outcomes.get(name, ())]
    return [hit for _, hit in rows], [prompt for prompt, _ in rows]


def _retention(cell: dict) -> float | None:
    """Of objects or styles kept, the lower."""
    kept = [value for name in ("other", "styles") if (value := (cell["retention"].get(name) or {}).get("value")) is not None]
    return min(kept, default=None)


def _test(method: str, name: str, by: Sequence[Mapping[tuple[str, str], dict]], seed: int, resamples: int) -> dict | None:
    """Tokens less words on one set ("level": at equal retention) over all concepts; None where a concept lacks it."""
    groups = []
    for one in by:
        pair = [one.get((method, told)) for told in ("words", "tokens")]
        if not all(pair):
            return None
        words, tokens = (_marks(cell, name) for cell in pair)
        if not words[0] or not tokens[0]:
            return None
        if words[1] != tokens[1]:
            raise AssertionError(f"{method}, {name}: the two cells were not drawn on the same prompts")
        groups.append(([b - a for a, b in zip(words[0], tokens[0], strict=True)], words[1]))
    change, p = two_level_mean(groups, numpy_generator(seed, "together", "test", method, name), resamples)
    return {"method": method, "set": name, **change.plain(), "p": p}


def _marks(cell: dict, name: str) -> tuple[list, list[str]]:
    if name == "level":
        return (cell["level"]["values"], cell["level"]["prompts"]) if cell.get("level") else ([], [])
    rows = cell["outcomes"].get(name, ())
    return [hit for _, hit in rows], [prompt for prompt, _ in rows]
