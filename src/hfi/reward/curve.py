"""The learning curve: held-out AUC against the number of judged pictures, and how many more would bring a given AUC.

The curve is the probe's (probe.py), fitted on random parts of the pictures that the reward learned from. Its fall is taken as
a power law, 1 - AUC = a n^-b (Cortes et al. 1993, NIPS), through the reward's own AUC at full n.
"""

from __future__ import annotations

import numpy
from numpy import ndarray

from hfi.reward.calibration import auc
from hfi.reward.probe import fit_probe
from hfi.seeds import numpy_generator

SHARES = (0.125, 0.1768, 0.25, 0.3536, 0.5, 0.7071, 1.0)  # of the pictures learned from; each sqrt(2) of the last
REPEATS = 8
LEAST = 12  # pictures below which no part is fitted
RESAMPLES = 200
TARGET = 0.95


def learning_curve(
    embeddings: ndarray, y: ndarray, weight: ndarray, test: ndarray, test_y: ndarray, own_auc: float, seed: int
) -> dict | None:
    """{"sizes", "auc", "exponent": {"value", "low", "high"}, "pictures", "held_out", "now", "target", "needed": {"value", "low", "high"}}.

    Args:
        embeddings: (n, D) learned from; y: (n,) soft labels; weight: (n,); test: (m, D) held out; test_y: (m,) soft labels.
        own_auc: the reward's held-out AUC.

    "needed" is the number of pictures to learn from for AUC `target`, null where the curve does not get there; the interval
    resamples held-out pictures and parts. None when there are too few pictures, or held-out ones of one class only.
    """
    kept = test_y != 0.5
    truth = test_y[kept] > 0.5
    sizes = sorted({size for share in SHARES if (size := round(share * len(y))) >= LEAST})
    if len(sizes) < 3 or truth.all() or not truth.any():
        return None
    rng = numpy_generator(seed, "reward", "learning curve")
    scores, counts = [], []
    for size in sizes:
        for _ in range(REPEATS if size < len(y) else 1):
            part = _part(y > 0.5, size, rng)
            scores.append(fit_probe(embeddings[part], y[part], weight[part]).predict(test[kept])[0])
            counts.append(size)
    scores, counts = numpy.stack(scores), numpy.array(counts)
    seen = numpy.array([auc(row, truth) for row in scores])
    slope = _exponent(counts, seen)
    slopes = []
    while len(slopes) < RESAMPLES:
        chosen = rng.integers(len(truth), size=len(truth))
        runs = rng.integers(len(counts), size=len(counts))
        if truth[chosen].all() or not truth[chosen].any() or len(set(counts[runs].tolist())) < 2:
            continue
        slopes.append(_exponent(counts[runs], numpy.array([auc(row[chosen], truth[chosen]) for row in scores[runs]])))
    low, high = numpy.percentile(slopes, [2.5, 97.5])
    needed = {"value": _needed(len(y), own_auc, slope), "low": _needed(len(y), own_auc, high), "high": _needed(len(y), own_auc, low)}
    return {
        "sizes": sizes,
        "auc": [round(float(seen[counts == size].mean()), 4) for size in sizes],
        "exponent": {"value": round(slope, 4), "low": round(float(low), 4), "high": round(float(high), 4)},
        "pictures": len(y),
        "held_out": round(len(test_y) / (len(y) + len(test_y)), 4),
        "now": round(own_auc, 4),
        "target": TARGET,
        "needed": needed,
    }


def _part(present: ndarray, size: int, rng: numpy.random.Generator) -> ndarray:
    """Random rows (size,), at least two of each class where there are as many."""
    first = [rng.permutation(numpy.flatnonzero(present == side))[:2] for side in (True, False)]
    kept = numpy.concatenate(first)
    rest = rng.permutation(numpy.setdiff1d(numpy.arange(len(present)), kept))
    return numpy.sort(numpy.concatenate([kept, rest])[:size])


def _exponent(counts: ndarray, seen: ndarray) -> float:
    """b of 1 - AUC = a n^-b by least squares in logarithms."""
    x, error = numpy.log(counts), numpy.log(numpy.maximum(1 - seen, 1e-3))
    x = x - x.mean()
    return float(-(x * error).sum() / (x**2).sum())


def _needed(pictures: int, own: float, exponent: float, target: float = TARGET) -> int | None:
    """Pictures at which a power law through (pictures, own) reaches the target; None where it does not within a thousandfold."""
    if own >= target:
        return pictures
    if exponent <= 0 or (factor := numpy.log((1 - own) / (1 - target)) / exponent) > numpy.log(1000):
        return None
    return round(pictures * float(numpy.exp(factor)))
