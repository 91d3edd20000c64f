"""The cells of `hfi compare` where each keeps as much of the rest: the place of each, its concept rate there, and tokens against words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hfi.config import Evaluate
from hfi.evaluation.level import at_level
from hfi.evaluation.statistics import mean, paired_difference, wilson
from hfi.seeds import numpy_generator

LEVEL_SETS = ("explicit", "implicit", "variations")


def level_of(before: Mapping[str, list], at: Mapping[str, Mapping[str, list]]) -> dict:
    """The place where a cell's retention (of objects or styles, the lower) falls under 0.95, as `at_level`, with strengths and prompts.

    Args:
        before: set -> [[prompt, 0 or 1], ...] of the original model; at: the same of the cell at each strength, by its name ("0.5").
    """
    strengths = sorted(at, key=float)
    looks = [before, *(at[name] for name in strengths)]
    sets = [name for name in LEVEL_SETS if before.get(name)]
    hits = [[float(hit) for name in sets for _, hit in look[name]] for look in looks]
    found = at_level([0.0, *map(float, strengths)], [1.0, *(_retention(before, look) for look in looks[1:])], hits)
    return {**found, "strengths": strengths, "prompts": [prompt for name in sets for prompt, _ in before[name]]}


def _retention(before: Mapping[str, list], after: Mapping[str, list]) -> float:
    """Right after over right before, of objects or of styles, whichever keeps less; 1 where the original draws none right."""
    kept = [1.0]
    for name in ("other", "styles"):
        right = sum(hit for _, hit in before.get(name, ()))
        if right and name in after:
            kept.append(sum(hit for _, hit in after[name]) / right)
    return min(kept[1:], default=1.0)


def shown(level: dict, seed: int, config: Evaluate) -> dict:
    """A cell's place and its concept rate there, bootstrap over prompts with the place held fixed."""
    found = mean(level["values"], level["prompts"], numpy_generator(seed, "bootstrap", "level"), config.bootstrap).plain()
    if found["low"] == found["high"]:  # every prompt has the same: no width, which claims too much
        low, high = wilson(found["value"] * found["prompts"], found["prompts"])
        found |= {"low": round(low, 4), "high": round(high, 4), "interval": "wilson over prompts (the bootstrap has no width)"}
    return {"rate": found, **{name: level[name] for name in ("strength", "reached", "retention")}}


def level_tests(cells: Sequence[dict], seed: int, resamples: int) -> list[dict]:
    """One row a method that was told both: its rate under tokens less that under words, each at its own place, paired over prompts."""
    by = {(cell["method"], cell["given_as"]): cell["level"] for cell in cells if "level" in cell}
    rows = []
    for method in dict.fromkeys(method for method, _ in by):
        words, tokens = by.get((method, "words")), by.get((method, "tokens"))
        if words and tokens:
            if words["prompts"] != tokens["prompts"]:
                raise AssertionError(f"{method}: the two cells were not drawn on the same prompts")
            rng = numpy_generator(seed, "compare", method, "level")
            found = paired_difference(words["values"], tokens["values"], words["prompts"], rng, resamples)
            rows.append({"method": method, "set": "level", **found.plain()})
    return rows
