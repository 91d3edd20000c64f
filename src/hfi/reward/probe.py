"""A linear model of the labels with error bars, in closed form: how unsure the reward is, and what more labels would bring.

Ridge regression as a Gaussian linear model (Bishop 2006, section 3.3) on the embeddings that the reward sees. The reward
itself is an MLP; this is its cheap stand-in wherever it would have to be fitted many times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.special import ndtr

RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # candidates of the penalty; embeddings have mean square 1


@dataclass(frozen=True)
class Probe:
    """A fitted linear model."""

    centre: ndarray  # (D,)
    scale: float
    middle: float  # weighted mean of the labels
    basis: ndarray  # (k, D) right singular vectors of the weighted embeddings
    along: ndarray  # (k,) coefficients in that basis
    spectrum: ndarray  # (k,) squared singular values
    ridge: float
    noise: float  # variance of a label around the model

    def predict(self, embeddings: ArrayLike) -> tuple[ndarray, ndarray]:
        """Mean (N,) and standard deviation (N,) of the model's value at embeddings (N, D); noise of labels not included."""
        points = (numpy.asarray(embeddings, dtype=float) - self.centre) / self.scale
        inside = points @ self.basis.T
        rest = numpy.maximum((points**2).sum(1) - (inside**2).sum(1), 0)
        variance = (inside**2 / (self.spectrum + self.ridge)).sum(1) + rest / self.ridge
        return inside @ self.along + self.middle, numpy.sqrt(self.noise * variance)


def fit_probe(embeddings: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None) -> Probe:
    """Ridge regression whose penalty is the candidate of least leave-one-out error.

    Args:
        embeddings: (n, D), n >= 2; y: (n,) labels; weight: (n,) from 0 up, one where not given.
    """
    points, y = numpy.asarray(embeddings, dtype=float), numpy.asarray(y, dtype=float)
    w = numpy.ones(len(y)) if weight is None else numpy.asarray(weight, dtype=float)
    w = w * (len(y) / w.sum())
    centre, middle = numpy.average(points, axis=0, weights=w), float(numpy.average(y, weights=w))
    scale = float(numpy.sqrt(((points - centre) ** 2).mean())) or 1.0
    root = numpy.sqrt(w)
    u, s, basis = _factors(root[:, None] * (points - centre) / scale)
    target = root * (y - middle)
    onto, best = u.T @ target, None
    for ridge in RIDGES:
        shrink = s**2 / (s**2 + ridge)
        leverage = numpy.minimum((u**2 * shrink).sum(1) + w / w.sum(), 0.99)
        error = float((((target - u @ (shrink * onto)) / (1 - leverage)) ** 2).mean())
        if best is None or error < best[0]:
            best = error, ridge
    noise, ridge = best
    return Probe(centre, scale, middle, basis, s * onto / (s**2 + ridge), s**2, ridge, max(noise, 1e-12))


def _factors(points: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """A thin singular value decomposition (n, k), (k,), (k, D); of many points by their covariance, which is faster."""
    count, width = points.shape
    if count <= 2 * width:
        return numpy.linalg.svd(points, full_matrices=False)
    values, vectors = numpy.linalg.eigh(points.T @ points)
    kept = values > 1e-10 * values[-1]
    s, basis = numpy.sqrt(values[kept]), vectors[:, kept].T
    return points @ basis.T / s, s, basis


def other_side(r: ArrayLike, deviation: ArrayLike) -> ndarray:
    """Chance (N,), at most 1/2, that a picture lies on the other side of r = 1/2 than its reward says.

    Args:
        r: rewards (N,); deviation: their standard deviations (N,).
    """
    return ndtr(-numpy.abs(numpy.asarray(r) - 0.5) / numpy.maximum(numpy.asarray(deviation), 1e-9))


def unsure_strength(deviation: ArrayLike, spread: float) -> ndarray:
    """How unsure a ranking score is (N,), in [0, 1): its variance as a share of that and of the scores' spread^2."""
    variance = numpy.asarray(deviation) ** 2
    return variance / (variance + max(spread, 1e-9) ** 2)
