"""Retention: of what the original model draws right, how much the erased one still draws right, on the same prompts and seeds.

right after / right before, as a ratio of sums over all pictures of a set. A prompt that the original model already draws
wrong stays in both sums: the erased model may get it right by luck as the original may, so luck cancels. Above 1 means
that more pictures are right after erasing than before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hfi.evaluation import statistics
from hfi.evaluation.drawing import Verdict
from hfi.evaluation.prompt_sets import Probe
from hfi.perception.judges import NEITHER
from hfi.seeds import numpy_generator

WORST = 5


def is_right(verdict: Verdict, probe: Probe, by: str) -> bool:
    """Whether the picture shows what was asked for: its object, or (by="style") its style in a picture of something."""
    if by == "style":
        return verdict.style == probe.style and verdict.object != NEITHER
    return verdict.object == probe.object


def retention(before: Sequence[bool], after: Sequence[bool], prompts: Sequence[str], seed: int, name: str, resamples: int) -> dict:
    """The paired ratio with its interval, and the shares right before and after."""
    found = statistics.paired_ratio(
        np.array(before, dtype=bool),
        np.array(after, dtype=bool),
        np.array(prompts),
        numpy_generator(seed, "bootstrap", "retention", name),
        resamples,
    )
    shares = {"right_before": round(float(np.mean(before)), 4), "right_after": round(float(np.mean(after)), 4)} if len(before) else {}
    return {**found.plain(), **shares}


def by_group(rows: Mapping[str, tuple[list[bool], list[bool], list[str]]], seed: int, resamples: int) -> tuple[dict, list[str]]:
    """Retention per emojibase group, and the (at most five) groups that kept least, worst first.

    Args:
        rows: group -> (right before, right after, prompts).
    """
    groups = {name: retention(*rows[name], seed, f"group {name}", resamples) for name in sorted(rows)}
    able = [name for name in groups if groups[name]["value"] is not None]
    return groups, sorted(able, key=lambda name: (groups[name]["value"], name))[:WORST]
