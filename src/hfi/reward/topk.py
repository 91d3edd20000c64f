"""Stage 4: which pictures are inverted and how much each weighs (METHOD sections 4 and 5). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from hfi.perception.clusters import k_means


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
