"""Stage 4: which pictures are inverted and how much each weighs (METHOD sections 4 and 5). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from hfi.seeds import numpy_generator

ITERATIONS = 100


@dataclass(frozen=True)
class Selected:
    """One of the top-K pictures."""

    image_id: str
    reward: float
    weight: float  # >= 0; mean 1 over the top-K
    cluster: int


def weights(rewards: numpy.ndarray, mean: float, deviation: float, kind: str = "proportional") -> numpy.ndarray:
    """The stated non-negative map of the reward, mean 1 (K,).

    "proportional": sigmoid((r - mean) / deviation) over its mean; "equal": 1. HFI weighs by r itself; a Bradley-Terry reward
    is free up to a shift and can be negative, which would unlearn, and the paper does not say how it maps it.

    Args:
        rewards: r of the top-K (K,); mean, deviation: of r over all pictures of the study.
    """
    rewards = numpy.asarray(rewards, dtype=float)
    if kind == "equal" or deviation <= 0 or not len(rewards):
        return numpy.ones(len(rewards))
    mapped = 1 / (1 + numpy.exp(-numpy.clip((rewards - mean) / deviation, -50, 50)))
    return mapped / mapped.mean()


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


def select(
    ids: Sequence[str],
    rewards: numpy.ndarray,
    embeddings: numpy.ndarray,
    eligible: Sequence[bool],
    k: int,
    clusters: int,
    seed: int,
    kind: str = "proportional",
) -> tuple[Selected, ...]:
    """The K pictures of highest reward among the eligible, K / clusters of each cluster of embeddings (ours).

    Without clusters a union ("weapon") would be reduced to its commonest member. What a small cluster cannot fill goes to the
    next best pictures of the others. Fewer than K come back when fewer are eligible.

    Args:
        ids: N picture ids; rewards: (N,); embeddings: (N, D); eligible: (N,), vetoed and low pictures are False.
    """
    rewards = numpy.asarray(rewards, dtype=float)
    pool = numpy.array(sorted((i for i in range(len(ids)) if eligible[i]), key=lambda i: (-rewards[i], ids[i])), dtype=int)
    if not len(pool):
        return ()
    cluster_of = k_means(embeddings[pool], clusters, seed) if clusters > 1 else numpy.zeros(len(pool), dtype=int)
    taken = sorted(_shared_out(cluster_of, min(k, len(pool))))
    found = pool[taken]
    mass = weights(rewards[found], float(rewards.mean()), float(rewards.std()), kind)
    return tuple(Selected(ids[i], float(rewards[i]), float(mass[n]), int(cluster_of[taken[n]])) for n, i in enumerate(found))


def _shared_out(cluster_of: numpy.ndarray, k: int) -> list[int]:
    """Positions of K pictures, best first within each cluster, dealt round the clusters until K are taken."""
    queues = [list(numpy.flatnonzero(cluster_of == number)) for number in range(int(cluster_of.max()) + 1)]
    taken: list[int] = []
    while len(taken) < k:
        for queue in queues:
            if queue and len(taken) < k:
                taken.append(int(queue.pop(0)))
    return taken


def _distances(points: numpy.ndarray, centres: numpy.ndarray) -> numpy.ndarray:
    """Squared distances (n, c), never negative."""
    square = (points**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2 * points @ centres.T
    return numpy.maximum(square, 0)
