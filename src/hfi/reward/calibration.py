"""How good the reward is on pictures it never learned from: AUC or pairwise accuracy with intervals, and calibration."""

from __future__ import annotations

import numpy
from numpy.typing import ArrayLike

from hfi.seeds import numpy_generator

RESAMPLES = 1000
BINS = 10


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Chance that a positive scores higher than a negative, ties counting half (area under the ROC curve).

    Args:
        scores: (n,) numbers; labels: (n,) true where the concept is present.

    None when one of the two is missing.
    """
    scores, labels = numpy.asarray(scores, dtype=float), numpy.asarray(labels, dtype=bool)
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return None
    _, inverse, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = numpy.cumsum(counts) - (counts - 1) / 2  # ranks from 1, ties share theirs
    return float((middle_rank[inverse][labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auc_with_interval(scores: ArrayLike, labels: ArrayLike, seed: int) -> dict | None:
    """{"value", "low", "high", "n"}: AUC with a 95 % bootstrap interval over pictures; None when not defined."""
    scores, labels = numpy.asarray(scores, dtype=float), numpy.asarray(labels, dtype=bool)
    value = auc(scores, labels)
    if value is None:
        return None
    rng, found = numpy_generator(seed, "reward", "auc interval"), []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(scores), size=len(scores))
        if (again := auc(scores[chosen], labels[chosen])) is not None:
            found.append(again)
    return _interval(value, found, len(scores))


def pairwise_accuracy(difference: ArrayLike) -> float | None:
    """Share of pairs whose first picture has the higher reward, ties counting half; `difference` (p,) = r(x+) - r(x-)."""
    difference = numpy.asarray(difference, dtype=float)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean()) if len(difference) else None


def accuracy_with_interval(difference: ArrayLike, groups: ArrayLike, seed: int) -> dict | None:
    """{"value", "low", "high", "n"}: pairwise accuracy with a 95 % bootstrap interval over rankings (pairs of one are not independent)."""
    difference, groups = numpy.asarray(difference, dtype=float), numpy.asarray(groups)
    value = pairwise_accuracy(difference)
    if value is None:
        return None
    _, inverse = numpy.unique(groups, return_inverse=True)
    right = numpy.bincount(inverse, (difference > 0) + 0.5 * (difference == 0))
    size = numpy.bincount(inverse)
    rng, found = numpy_generator(seed, "reward", "accuracy interval"), []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(size), size=len(size))
        found.append(float(right[chosen].sum() / size[chosen].sum()))
    return _interval(value, found, len(difference))


def reliability(predicted: ArrayLike, observed: ArrayLike) -> dict:
    """Reliability bins and expected calibration error (Naeini et al. 2015; equal-width bins).

    Args:
        predicted: (n,) probabilities, clipped to [0, 1]; observed: (n,) shares of "yes" in [0, 1].
    """
    predicted = numpy.clip(numpy.asarray(predicted, dtype=float), 0, 1)
    observed = numpy.asarray(observed, dtype=float)
    place = numpy.minimum((predicted * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            bins.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "predicted": float(predicted[inside].mean()),
                    "observed": float(observed[inside].mean()),
                    "n": int(inside.sum()),
                }
            )
    error = sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in bins) / max(1, len(predicted))
    return {"bins": bins, "expected_calibration_error": error}


def _interval(value: float, found: list[float], n: int) -> dict:
    low, high = numpy.percentile(found, [2.5, 97.5]) if found else (value, value)
    return {"value": value, "low": float(low), "high": float(high), "n": n}
