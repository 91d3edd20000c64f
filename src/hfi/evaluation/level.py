"""Erasures at equal retention: each laid over the model at rising strengths, and compared where it still keeps as much of the rest (ours).

Erasers keep different shares of the rest at strength 1, and whoever keeps less erases more easily. Where retention first falls under a
level the pictures on both sides are interpolated; where it never does, the strongest counts, and `reached` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from hfi.evaluation.statistics import crossing

LEVEL = 0.95


def at_level(strengths: Sequence[float], kept: Sequence[float], hits: Sequence[Sequence[float]], level: float = LEVEL) -> dict:
    """The place where retention falls under `level`, and each picture's chance of showing the concept there.

    Args:
        strengths: (n,) rising, 0 (the original model) first.
        kept: (n,) retention at each; hits: (n, N) 0 or 1 for each picture at each, the same prompts and seeds in one order.

    Returns {"strength", "reached", "retention", "values": (N,) in [0, 1]}; `reached` is False where retention never falls so far.
    """
    i, j, w = crossing(kept, level)
    between = lambda values: (1 - w) * values[i] + w * values[j]  # noqa: E731
    return {
        "strength": round(between(strengths), 4),
        "reached": i != j or kept[i] < level,
        "retention": round(between(kept), 4),
        "values": [(1 - w) * a + w * b for a, b in zip(hits[i], hits[j], strict=True)],
    }
