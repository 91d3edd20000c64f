"""Pictures that look alike: k-means on embeddings. Pure numpy."""

from __future__ import annotations

import numpy

from hfi.seeds import numpy_generator

ITERATIONS = 100
ALIKE = 25  # clusters of all pictures of a study, between which active choice takes turns (ours)


def k_means(points: numpy.ndarray, clusters: int, seed: int) -> numpy.ndarray:
    """Cluster numbers (n,) of points (n, D): k-means++ and Lloyd's iterations; clusters are numbered by falling size."""
    points = numpy.asarray(points, dtype=float)
    clusters = min(clusters, len(numpy.unique(points, axis=0)))
    if clusters <= 1:
        return numpy.zeros(len(points), dtype=int)
    rng = numpy_generator(seed, "reward", "clusters")
    centres = points[rng.integers(len(points))][None]
    while len(centres) < clusters:
        distance = _distances(points, centres).min(1)
        centres = numpy.vstack([centres, points[rng.choice(len(points), p=distance / distance.sum())]])
    labels = numpy.full(len(points), -1)
    for _ in range(ITERATIONS):
        distance = _distances(points, centres)
        fresh = distance.argmin(1)
        for empty in set(range(clusters)) - set(fresh.tolist()):  # an empty cluster takes the point farthest from its centre
            farthest = int(distance[numpy.arange(len(points)), fresh].argmax())
            fresh[farthest], distance[farthest] = empty, 0
        if (fresh == labels).all():
            break
        labels = fresh
        centres = numpy.stack([points[labels == number].mean(0) for number in range(clusters)])
    order = numpy.argsort(-numpy.bincount(labels, minlength=clusters), kind="stable")
    return numpy.argsort(order)[labels]


def alike(points: numpy.ndarray, seed: int) -> numpy.ndarray:
    """Cluster numbers (n,) for active choice: at most ALIKE clusters, of eight pictures or more on average."""
    return k_means(points, min(ALIKE, max(1, len(points) // 8)), seed)


def _distances(points: numpy.ndarray, centres: numpy.ndarray) -> numpy.ndarray:
    """Squared distances (n, c), never negative."""
    square = (points**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2 * points @ centres.T
    return numpy.maximum(square, 0)
