"""Active choice: which pictures teach the reward most. Reads a score file; imports no later stage and no torch.

The file is STUDY/reward/scores.jsonl, one line per picture: {"image", "score", "uncertainty", "cluster"}. Until the reward
has been fitted, machine annotators leave the same kind of file in STUDY/machines/ (see machines.py).
Uncertain: uncertainty sampling (Lewis and Gale 1994). Diverse: a cluster from which pictures were just taken waits.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError
from hfi.seeds import derive

SCORES = ("reward", "scores.jsonl")
MACHINES = "machines"
SHARING = 0.7  # what is left of a cluster's claim each time that a picture of it is taken


@dataclass(frozen=True, slots=True)
class Score:
    """What is thought of one picture before a person looks at it."""

    score: float  # the reward r, or a machine's probability
    uncertainty: float  # in [0, 1]; for labels the chance that the picture is on the other side of r = 1/2
    cluster: int  # pictures that look alike


def score_file(folder: Path) -> Path | None:
    """The reward's scores in a study's folder, else the newest of a machine's, else None."""
    if (path := folder.joinpath(*SCORES)).exists():
        return path
    found = sorted(folder.joinpath(MACHINES).glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return found[-1] if found else None


def read_scores(folder: Path) -> dict[str, Score]:
    """{image id: what is thought of it}; empty when nothing scored the pictures yet. Raises HFIError for a damaged file."""
    path = score_file(folder)
    if path is None:
        return {}
    found: dict[str, Score] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                number += 1
                row = json.loads(line)
                score = Score(float(row["score"]), float(row["uncertainty"]), int(row["cluster"]))
                if not (math.isfinite(score.score) and math.isfinite(score.uncertainty)):
                    raise ValueError
                found[str(row["image"])] = score
    except FileNotFoundError:  # the stage that writes it was begun again just now
        return {}
    except (ValueError, KeyError, TypeError):
        raise HFIError("half-written or damaged", file=path, field=f"line {number}", remedy="run 'hfi reward' again") from None
    return found


def order(folder: Path, names: Iterable[str], seed: int = 0) -> list[str]:
    """Pictures (ids), those first that teach most; ones that nothing scored yet come last, in the order given."""
    names, scores = list(names), read_scores(folder)
    known = {name: scores[name] for name in names if name in scores}
    return [*teaching_order(known, seed), *(name for name in names if name not in known)]


def teaching_order(scores: Mapping[str, Score], seed: int = 0) -> list[str]:
    """All pictures of `scores`: uncertain ones first, in turn from different clusters; `seed` decides between equals."""
    clusters: dict[int, list[tuple[float, int, str]]] = {}
    for name, score in scores.items():
        clusters.setdefault(score.cluster, []).append((-score.uncertainty, derive(seed, "active", name), name))
    for rows in clusters.values():
        rows.sort(reverse=True)  # the best last, to be popped
    queue = [(rows[-1][0], rows[-1][1], cluster) for cluster, rows in clusters.items()]
    heapq.heapify(queue)
    taken = dict.fromkeys(clusters, 0)
    found = []
    while queue:
        _, _, cluster = heapq.heappop(queue)
        rows = clusters[cluster]
        found.append(rows.pop()[2])
        taken[cluster] += 1
        if rows:
            heapq.heappush(queue, (rows[-1][0] * SHARING ** taken[cluster], rows[-1][1], cluster))
    return found
