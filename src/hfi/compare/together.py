"""Several studies' comparisons taken together: means over concepts, and tokens against words with concepts resampled (ours).

One concept tells of one concept. Over several, the bootstrap resamples concepts and then prompts, and the p values of one question asked
of several methods are adjusted by Holm (1979). Nothing is erased or drawn: what `hfi compare` left in each study is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hfi.compare.level import LEVEL_SETS
from hfi.compare.page import told_by
from hfi.errors import HFIError
from hfi.evaluation.statistics import holm, two_level_mean, wilson
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, read_json

FILE = "compare.json"
READS = ("generate", "reward", "invert")
NO_WIDTH = "wilson over concepts (the bootstrap has no width)"
TESTED = ("explicit", "implicit", "variations", "unlisted", "other", "styles")


def read_comparison(study: Workspace) -> dict:
    """{"concept", "judge", "quick", "cells" as `together` takes them} of a study whose comparison is done and is of the study as it stands.

    Raises HFIError where it is not.
    """
    try:
        found = read_json(study.path("compare", FILE))
        cells = [_whole(study, cell, found) for cell in found["cells"]]
        about = {name: found[name] for name in ("concept", "judge", "quick", "inputs")}
    except (KeyError, HFIError):  # none there, stopped half-way, done anew in part, or of an older version
        raise HFIError(
            "its comparison is not done, or not whole", file=study.root, field="--together", remedy=f"run 'hfi compare {study.root}' first"
        ) from None
    if about.pop("inputs") != inputs_of(study):
        raise HFIError(
            "was compared before it changed", file=study.root, field="--together", remedy=f"run 'hfi compare {study.root}' again"
        )
    return {**about, "cells": cells}


def _whole(study: Workspace, cell: dict, found: dict) -> dict:
    folder = study.path("compare", f"{cell['method']}-{cell['given_as']}")
    whole = read_json(folder / "cell.json")
    if whole["key"] != cell["key"]:
        raise KeyError(cell["key"])
    level = {"level": read_json(folder / "level.json")} if found["at_level"] else {}
    return {**cell, "outcomes": whole["outcomes"], **level}


def inputs_of(study: Workspace) -> dict:
    """The digests of the stages that a comparison reads."""
    return {name: (study.manifest(name) or {}).get("digest") for name in READS}


def check_together(found: Sequence[dict]) -> None:
    """Raise HFIError for studies that do not compare: other judges or numbers of pictures, one concept twice, no method in common.

    Args:
        found: as `together` takes them, before anything is done; of a cell "method" and "given_as" are read.
    """
    concepts = [one["concept"] for one in found]
    if twice := [name for name in concepts if concepts.count(name) > 1]:
        raise HFIError(f"{twice[0]!r} comes twice: one concept is no two", field="--together", remedy="name studies of other concepts")
    for name, what in (("judge", "judges"), ("quick", "numbers of pictures (--quick)")):
        if len({one[name] for one in found}) > 1:
            names = ", ".join(f"{one['concept']}: {one[name]}" for one in found)
            raise HFIError(f"compared by different {what} ({names})", field="--together", remedy="compare them alike")
    if not _shared(found):
        raise HFIError("the studies share no method", field="--together", remedy="compare them with the same --methods and --with")


def _shared(found: Sequence[dict]) -> list[tuple[str, str]]:
    keys = [dict.fromkeys((cell["method"], cell["given_as"]) for cell in one["cells"]) for one in found]
    return [key for key in keys[0] if all(key in one for one in keys)]


def together(found: Sequence[dict], seed: int, resamples: int) -> dict:
    """Rows and tests over concepts.

    Args:
        found: {"concept", "judge", "quick", "cells"} of each study; a cell has "method", "given_as", "settings", "retention", "outcomes"
            and, where the comparison was made at several strengths, "level" (compare.level.level_of).

    Returns {"concepts", "rows", "tests"}: of each method and what it was told the mean concept rate (named, keywords, wordings) at
    strength 1 and at equal retention, mean and lowest retention, and whether the studies have one setting of the method; of each
    method told both the difference tokens - words on each set, with "p (Holm)" over the methods. Only what every study has is compared.
    Raises HFIError as `check_together`.
    """
    check_together(found)
    by = [{(cell["method"], cell["given_as"]): cell for cell in one["cells"]} for one in found]
    shared, tests = _shared(found), []
    rows = [_row(key, [one[key] for one in by], seed, resamples) for key in shared]
    for name in ("level", *TESTED):
        tested = [row for method in dict.fromkeys(m for m, _ in shared) if (row := _test(method, name, by, seed, resamples))]
        for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
            tests.append({**row, "p": round(row["p"], 4), "p (Holm)": round(adjusted, 4)})
    return {"concepts": [one["concept"] for one in found], "rows": rows, "tests": tests}


def _row(key: tuple[str, str], cells: Sequence[dict], seed: int, resamples: int) -> dict:
    kept = [value for cell in cells if (value := _retention(cell)) is not None]
    at, reached = _levels(cells), None
    if at:
        reached = sum(cell["level"]["reached"] for cell in cells)
    told = dict.fromkeys(told_by(cell) for cell in cells)
    return {
        "method": key[0],
        "given_as": key[1],
        "told_by": " or ".join(told),
        "one_setting": all(cell["settings"] == cells[0]["settings"] for cell in cells),
        "rate": _mean([_pooled(cell["outcomes"]) for cell in cells], numpy_generator(seed, "together", *key), resamples),
        "at_level": _mean(at, numpy_generator(seed, "together", "level", *key), resamples) if at else None,
        "reached": reached,
        "retention": {"mean": round(sum(kept) / len(kept), 4), "lowest": min(kept), "concepts": len(kept)} if kept else None,
    }


def _levels(cells: Sequence[dict]) -> list[tuple[list, list]]:
    """(values, prompts) at equal retention of each cell, where all were made at the same strengths; else nothing."""
    levels = [cell.get("level") for cell in cells]
    if not all(levels) or len({tuple(level["strengths"]) for level in levels}) > 1:
        return []
    return [(level["values"], level["prompts"]) for level in levels]


def _mean(groups: Sequence[tuple[Sequence, Sequence]], rng, resamples: int) -> dict:
    found = two_level_mean(groups, rng, resamples)[0].plain()
    if found["value"] is not None and found["low"] == found["high"]:  # all alike: no width, which claims far too much
        low, high = wilson(found["value"] * len(groups), len(groups))
        found |= {"low": round(low, 4), "high": round(high, 4), "interval": NO_WIDTH}
    return found


def _pooled(outcomes: Mapping[str, list]) -> tuple[list[int], list[str]]:
    rows = [row for name in LEVEL_SETS for row in outcomes.get(name, ())]
    return [hit for _, hit in rows], [prompt for prompt, _ in rows]


def _retention(cell: dict) -> float | None:
    """Of objects or styles kept, the lower."""
    kept = [value for name in ("other", "styles") if (value := (cell["retention"].get(name) or {}).get("value")) is not None]
    return min(kept, default=None)


def _test(method: str, name: str, by: Sequence[Mapping[tuple[str, str], dict]], seed: int, resamples: int) -> dict | None:
    """Tokens less words on one set ("level": at equal retention) over all concepts; None where a concept lacks it."""
    pairs = [[one.get((method, told)) for told in ("words", "tokens")] for one in by]
    if not all(all(pair) for pair in pairs) or (name == "level" and not _levels([cell for pair in pairs for cell in pair])):
        return None
    groups = []
    for pair in pairs:
        words, tokens = (_marks(cell, name) for cell in pair)
        if not words[0] or not tokens[0]:
            return None
        if words[1] != tokens[1]:
            raise AssertionError(f"{method}, {name}: the two cells were not drawn on the same prompts")
        groups.append(([b - a for a, b in zip(words[0], tokens[0], strict=True)], words[1]))
    change, p = two_level_mean(groups, numpy_generator(seed, "together", "test", method, name), resamples)
    found = change.plain()
    if found["low"] == found["high"]:
        width = wilson(0, len(groups))[1]
        found |= {"low": round(max(-1.0, found["low"] - width), 4), "high": round(min(1.0, found["high"] + width), 4), "interval": NO_WIDTH}
    return {"method": method, "set": name, **found, "p": p}


def _marks(cell: dict, name: str) -> tuple[list, list[str]]:
    if name == "level":
        return (cell["level"]["values"], cell["level"]["prompts"]) if cell.get("level") else ([], [])
    rows = cell["outcomes"].get(name, ())
    return [hit for _, hit in rows], [prompt for prompt, _ in rows]
