"""How far annotators agree: Krippendorff's alpha, from counts, so that a million judgements need no more memory than a few.

Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections B to E.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy


def krippendorff_alpha(counts: numpy.ndarray, level: str = "nominal") -> float | None:
    """alpha = 1 - D_o / D_e: 1 is perfect agreement, 0 is chance, negative is less than chance.

    Args:
        counts: (units, values), how many annotators gave each value to each unit; values in ascending order.
        level: "nominal" (labels), "ordinal" (ranks) or "interval" (values 0, 1, 2, ... apart).

    None when it is not defined: no unit has two judgements, or only one value was ever given.
    """
    counts = numpy.asarray(counts, dtype=float)
    counts = counts[counts.sum(1) >= 2] if counts.size else counts.reshape(0, 1)
    if not len(counts):
        return None
    per_unit = counts.sum(1)
    # coincidences o_ck: ordered pairs of values within a unit, each unit weighing as many judgements as it has
    weighted = counts / (per_unit - 1)[:, None]
    o = weighted.T @ counts - numpy.diag(weighted.sum(0))
    n_c = o.sum(1)
    n = n_c.sum()
    difference = _differences(n_c, level)
    expected = float((numpy.outer(n_c, n_c) * difference).sum() / (n - 1))
    if expected == 0:
        return None
    return float(1.0 - (o * difference).sum() / expected)


def _differences(n_c: numpy.ndarray, level: str) -> numpy.ndarray:
    """delta^2 (values, values) between values, given how often each occurs."""
    size = len(n_c)
    c, k = numpy.meshgrid(numpy.arange(size), numpy.arange(size), indexing="ij")
    if level == "nominal":
        return (c != k).astype(float)
    if level == "interval":
        return (c - k).astype(float) ** 2
    if level == "ordinal":
        low, high = numpy.minimum(c, k), numpy.maximum(c, k)
        below = numpy.concatenate([[0.0], numpy.cumsum(n_c)])
        return (below[high + 1] - below[low] - (n_c[low] + n_c[high]) / 2) ** 2 * (c != k)
    raise ValueError(f"unknown level {level!r}")


def ranking_agreement(rankings: Iterable[tuple[str, ...]]) -> float | None:
    """Nominal alpha over pairs of pictures: which of the two did each annotator put first?

    Args:
        rankings: orders of image ids, the concept strongest first; pairs that only one annotator compared say nothing.
    """
    pairs: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for order in rankings:
        for first, second in itertools.combinations(order, 2):
            pairs[min(first, second), max(first, second)][first > second] += 1
    counts = numpy.array([[seen[False], seen[True]] for seen in pairs.values()]).reshape(-1, 2)
    return krippendorff_alpha(numpy.concatenate([counts, counts[:, ::-1]]))  # mirrored, for which of two ids is named first is arbitrary
