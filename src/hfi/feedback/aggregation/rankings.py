"""Many orders become one strength per picture: Bradley-Terry (1952), Plackett-Luce, and annotators who differ in reliability.

All are posterior modes under a small quadratic penalty, which fixes the zero of the strengths (their sum is 0) and keeps
pictures finite that won or lost every comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import expit

PENALTY = 0.1  # of strength^2, per picture: a Gaussian prior of standard deviation sqrt(1 / 0.2) = 2.2 (ours)
PRIOR = (4.0, 1.0)  # as if each annotator had put four pairs as the strengths have them, and one the other way (ours)
ROUNDS, TOLERANCE = 100, 1e-4
Objective = Callable[[ndarray], tuple[float, ndarray]]


@dataclass(frozen=True)
class Strengths:
    """How strongly pictures show the concept; only differences mean something."""

    value: ndarray  # (n,) log-strengths, mean 0
    deviation: ndarray  # (n,) standard deviation of each: curvature of the log-posterior in that strength alone


def bradley_terry(pairs: ndarray, count: int, weights: ndarray | None = None, penalty: float = PENALTY) -> Strengths:
    """Strengths from comparisons: P(i before j) = sigmoid(s_i - s_j).

    Args:
        pairs: (p, 2) indices, the concept stronger in the first; count: n pictures; weights: (p,) from 0 up.
    """
    pairs = numpy.asarray(pairs, dtype=int).reshape(-1, 2)
    first, second = pairs.T
    w = numpy.ones(len(pairs)) if weights is None else numpy.asarray(weights, dtype=float)

    def objective(s: ndarray) -> tuple[float, ndarray]:
        difference = s[first] - s[second]
        slope = -w * expit(-difference)
        gradient = numpy.bincount(first, slope, count) - numpy.bincount(second, slope, count)
        return float((w * numpy.logaddexp(0, -difference)).sum()), gradient

    s = _minimum(objective, count, penalty)
    p = expit(s[first] - s[second])
    curvature = numpy.bincount(first, w * p * (1 - p), count) + numpy.bincount(second, w * p * (1 - p), count)
    return Strengths(s, (curvature + 2 * penalty) ** -0.5)


def plackett_luce(orders: Sequence[Sequence[int]], count: int, penalty: float = PENALTY) -> Strengths:
    """Strengths from whole orders: place by place, the next picture is chosen among those left with chance exp(s_i) / sum exp(s).

    Args:
        orders: indices of pictures, the concept strongest first; count: n pictures.
    """
    kept = [numpy.asarray(order, dtype=int) for order in orders if len(order) > 1]
    longest = max((len(order) for order in kept), default=0)
    table = numpy.full((len(kept), longest), -1)
    for row, order in zip(table, kept, strict=True):
        row[: len(order)] = order
    there = table >= 0

    def chances(s: ndarray) -> tuple[ndarray, ndarray]:
        """Log of the sum over the pictures left at each place (r, M), and each place's share of that sum for each picture (r, M, M)."""
        value = numpy.where(there, s[table], -numpy.inf)
        left = numpy.logaddexp.accumulate(value[:, ::-1], axis=1)[:, ::-1]
        with numpy.errstate(invalid="ignore"):
            share = numpy.exp(value[:, None, :] - left[:, :, None])
        later = numpy.triu(numpy.ones((longest, longest), dtype=bool))
        return left, numpy.where(there[:, :, None] & there[:, None, :] & later, share, 0.0)

    def objective(s: ndarray) -> tuple[float, ndarray]:
        left, share = chances(s)
        value = float((left[there] - s[table[there]]).sum())
        gradient = numpy.bincount(table[there], share.sum(1)[there], count) - numpy.bincount(table[there], minlength=count)
        return value, gradient

    if not len(kept):
        return Strengths(numpy.zeros(count), numpy.full(count, (2 * penalty) ** -0.5))
    s = _minimum(objective, count, penalty)
    _, share = chances(s)
    curvature = numpy.bincount(table[there], (share * (1 - share)).sum(1)[there], count)
    return Strengths(s, (curvature + 2 * penalty) ** -0.5)


def crowd_bradley_terry(
    pairs: ndarray, annotator: ndarray, count: int, annotators: int, penalty: float = PENALTY, prior: tuple[float, float] = PRIOR
) -> tuple[Strengths, ndarray]:
    """Bradley-Terry of annotators who differ (Chen et al. 2013, WSDM): each reports a pair as seen with a chance eta of its own.

    Args:
        pairs: (p, 2) as in `bradley_terry`; annotator: (p,) who compared; prior: pseudo-counts (as seen, turned round).

    Returns the strengths and eta (a,): 1 is always as seen, 1/2 says nothing, 0 is always turned round. Found by EM.
    """
    pairs, annotator = numpy.asarray(pairs, dtype=int).reshape(-1, 2), numpy.asarray(annotator, dtype=int)
    both = numpy.concatenate([pairs, pairs[:, ::-1]])
    given = numpy.bincount(annotator, minlength=annotators)
    eta = numpy.full(annotators, prior[0] / sum(prior))
    found = bradley_terry(pairs, count, penalty=penalty)
    for _ in range(ROUNDS):
        p = expit(found.value[pairs[:, 0]] - found.value[pairs[:, 1]])
        trust = eta[annotator]
        as_seen = trust * p / (trust * p + (1 - trust) * (1 - p))
        fresh = (numpy.bincount(annotator, as_seen, annotators) + prior[0]) / (given + sum(prior))
        moved, eta = numpy.abs(fresh - eta).max(initial=0.0), fresh
        found = bradley_terry(both, count, numpy.concatenate([as_seen, 1 - as_seen]), penalty)
        if moved < TOLERANCE:
            break
    return found, eta


def pairs_of(order: Sequence[int]) -> list[tuple[int, int]]:
    """All ordered pairs (before, after) of one order."""
    return [(order[i], later) for i in range(len(order)) for later in order[i + 1 :]]


def _minimum(objective: Objective, count: int, penalty: float) -> ndarray:
    """The minimum (n,) of objective + penalty * sum of squares, shifted to mean 0."""

    def penalised(s: ndarray) -> tuple[float, ndarray]:
        value, gradient = objective(s)
        return value + penalty * float(s @ s), gradient + 2 * penalty * s

    s = minimize(penalised, numpy.zeros(count), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-7}).x
    return s - s.mean()
