"""How many labels does active choice save against random order? Simulated annotators, a pool in which the concept is rare.

    .venv/bin/python benchmarks/label_efficiency.py [--seeds 20] [--labels 400] [--target 0.95]

The embedded model draws pictures once (studies/pool). For each seed a pool with 10 % positives and a held-out set are taken
from them. Simulated annotators (networks, one judgement a picture, erring as in the demo) answer round after round: the
aggregation, the reward's fit, its score file's numbers and the queue's order are the ones that a study uses.

random   the queue's random order
active   random for the first round, then what the reward's scores say teaches most
words    like active, but the first round is ordered by a machine annotator (the embedded CLIP with words)

A curve 1 - AUC = c + a n^-b is fitted through all seeds; the labels that it needs for the target have 95 % bootstrap intervals
over seeds. Ends with one line of JSON; a number beyond the labels given is marked as extrapolated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy
import torch
from numpy import ndarray
from pool import Pool, draw_pool, rare
from scipy.optimize import least_squares

from hfi.config import Reward
from hfi.feedback.active import Score, teaching_order
from hfi.feedback.aggregation.aggregate import aggregate
from hfi.feedback.judgements import Judgement
from hfi.feedback.machines import concept_and_others, unsure
from hfi.feedback.simulated import annotators
from hfi.perception.clusters import alike
from hfi.perception.detectors import load_detector
from hfi.progress import console
from hfi.reward.calibration import auc
from hfi.reward.fit import fit, gather
from hfi.reward.reward import uncertainty
from hfi.seeds import numpy_generator

WAYS = ("random", "active", "words")
RESAMPLES = 500


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--labels", type=int, default=400, help="labels given in each run")
    parser.add_argument("--round", type=int, default=40, help="labels between two fits of the reward (and before the first)")
    parser.add_argument("--target", type=float, default=0.95, help="held-out AUC")
    parser.add_argument("--positives", type=float, default=0.10, help="share of positives in the pool")
    parser.add_argument("--pictures", type=int, default=1600, help="pictures to draw; 3/8 of them are held out")
    parser.add_argument("--steps", type=int, default=12, help="DDIM steps of those pictures")
    parser.add_argument("--only", action="append", choices=WAYS, help="one way; repeat for several; default: all")
    parser.add_argument("--error-rate", type=float, default=0.05, help="of the simulated annotators, on average")
    parser.add_argument("--aggregation", default=Reward().aggregation)
    parser.add_argument("--folder", type=Path, default=Path("studies/pool"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    pool = draw_pool(options.folder, options.pictures, 0.8, options.steps)
    words = word_scores(pool)
    ways, started = options.only or list(WAYS), time.perf_counter()
    curves: dict[str, list[dict[int, float]]] = {way: [] for way in ways}
    console.quiet = True  # hundreds of fits follow
    for seed in range(options.seeds):
        for way in ways:
            curves[way].append(run(pool, words, way, seed, options))
        print(f"seed {seed + 1} of {options.seeds}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    found = {way: summary(rows, options) for way, rows in curves.items()}
    sizes = sorted(curves[ways[0]][0])
    print("| labels | " + " | ".join(ways) + " |\n|" + "---|" * (len(ways) + 1))
    for size in sizes:
        print(f"| {size} | " + " | ".join(cell(numpy.array([row[size] for row in curves[way]])) for way in ways) + " |")
    ratios = {way: ratio(curves[way], curves["random"], options) for way in ways if way != "random" and "random" in ways}
    facts = {"target": options.target, "positives": options.positives, "seeds": options.seeds, "simulated": True}
    print(json.dumps({**facts, "labels_needed": found, "ratio_to_random": ratios, "seconds": round(time.perf_counter() - started)}))


def cell(values: ndarray) -> str:
    """Mean and half its 95 % interval over seeds."""
    spread = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.3f} +- {spread:.3f}"


def word_scores(pool: Pool) -> ndarray:
    """The machine's probability of the concept (N,), by words."""
    detector = load_detector("clip:emoji", *concept_and_others(pool.study))
    return detector([pool.images.path(image) for image in pool.images.images]).numpy()


def run(pool: Pool, words: ndarray, way: str, seed: int, options: argparse.Namespace) -> dict[int, float]:
    """Held-out AUC after each round of one simulated study: {labels: AUC}."""
    rng = numpy_generator(seed, "label efficiency")
    order = rng.permutation(len(pool.ids))
    cut = round(len(order) * 3 / 8)
    held_out, rest = order[:cut], order[cut:]
    members = rest[rare(pool.truth[rest], options.positives, rng)]  # in the queue's random order
    names = {pool.ids[i]: int(i) for i in members}
    people = annotators(with_error(options), ("noto",), seed)
    clusters = dict(zip(members.tolist(), alike(pool.embeddings[members].numpy(), seed).tolist(), strict=True))
    rows: list[Judgement] = []
    scores: dict[str, Score] = {}
    if way == "words":
        scores = {name: Score(float(words[i]), unsure(float(words[i]), 0.5), clusters[i]) for name, i in names.items()}
    found = {}
    while len(rows) < min(options.labels, len(members)):
        asked = {row.images[0] for row in rows}
        left = [name for name in names if name not in asked]
        queue = teaching_order({name: scores[name] for name in left}, seed) if scores else left
        for name in queue[: options.round]:
            rows.append(pool.say(people[len(rows) % len(people)], names[name], seed))
        r, unsure_now = reward(pool, rows, names, seed, options)
        found[len(rows)] = 0.5 if r is None else auc(r[held_out], pool.truth[held_out])
        if way != "random" and r is not None:
            scores = {name: Score(float(r[i]), float(unsure_now[i]), clusters[i]) for name, i in names.items()}
    return found


def with_error(options: argparse.Namespace):
    from hfi.config import Label

    return Label(annotators=3, error_rate=options.error_rate)


def reward(pool: Pool, rows: list[Judgement], names: dict[str, int], seed: int, options: argparse.Namespace):
    """r (N,) and its uncertainty (N,) from the judgements so far, as stage 3 learns it; (None, None) with one class only."""
    labels = {name: (one.present, one.weight) for name, one in aggregate(rows, options.aggregation).labels.items()}
    if len({present > 0.5 for present, _ in labels.values()}) < 2:
        return None, None
    examples, nothing = gather(names, labels, [], set(labels)), gather(names, {}, [], set())
    config = Reward()
    model, _ = fit(
        pool.embeddings,
        examples,
        nothing,
        hidden=config.hidden,
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        ranking_size=5,
        seed=seed,
    )
    with torch.no_grad():
        r = model(pool.embeddings).double().numpy()
    return r, uncertainty(r, pool.embeddings.numpy(), examples, nothing)


def curve(rows: list[dict[int, float]]) -> tuple[float, float, float]:
    """(c, a, b) of 1 - AUC = c + a (n / n_0)^-b by least squares over all runs; n_0 the smallest number of labels."""
    n = numpy.array([size for row in rows for size in row], dtype=float)
    error = numpy.array([1 - value for row in rows for value in row.values()])
    base = n.min()
    start = (0.5 * error.min(), max(1e-3, error.max() - 0.5 * error.min()), 0.5)
    fitted = least_squares(lambda p: p[0] + p[1] * (n / base) ** -p[2] - error, start, bounds=([0, 0, 0], [0.5, 1, 3]))
    return tuple(float(x) for x in fitted.x)


def needed(rows: list[dict[int, float]], target: float) -> float:
    """Labels at which the fitted curve reaches the target; infinite where it does not within ten thousand rounds."""
    c, a, b = curve(rows)
    room = 1 - target - c
    if room <= 0 or a <= 0 or b <= 0:
        return float("inf")
    grown = numpy.log(a / room) / b  # of the logarithm of the labels, from the first round on
    return float("inf") if grown > numpy.log(1e4) else min(rows[0]) * float(numpy.exp(grown))


def summary(rows: list[dict[int, float]], options: argparse.Namespace) -> dict:
    """{"value", "low", "high", "extrapolated", "last_auc"}: labels for the target, null where the curve never gets there."""
    rng = numpy_generator(0, "label efficiency", "interval")
    draws = [needed([rows[i] for i in rng.integers(len(rows), size=len(rows))], options.target) for _ in range(RESAMPLES)]
    value = needed(rows, options.target)
    last = max(rows[0])
    return {
        "value": plain(value),
        "low": plain(float(numpy.percentile(draws, 2.5, method="nearest"))),
        "high": plain(float(numpy.percentile(draws, 97.5, method="nearest"))),
        "extrapolated": not value <= last,
        "last_auc": round(float(numpy.mean([row[last] for row in rows])), 4),
    }


def ratio(rows: list[dict[int, float]], random: list[dict[int, float]], options: argparse.Namespace) -> dict:
    """Labels needed over those of random order, seeds resampled in pairs; null where random order never gets there."""
    rng = numpy_generator(0, "label efficiency", "ratio")

    def share(chosen) -> float:
        mine, theirs = needed([rows[i] for i in chosen], options.target), needed([random[i] for i in chosen], options.target)
        return float("nan") if numpy.isinf(theirs) else mine / theirs

    draws = [share(rng.integers(len(rows), size=len(rows))) for _ in range(RESAMPLES)]
    known = [draw for draw in draws if not numpy.isnan(draw)] or [float("nan")]
    low, high = (float(numpy.percentile(known, q, method="nearest")) for q in (2.5, 97.5))
    return {"value": plain(share(range(len(rows))), 3), "low": plain(low, 3), "high": plain(high, 3)}


def plain(x: float, digits: int = 0) -> float | int | None:
    if not numpy.isfinite(x):
        return None
    return round(x, digits) if digits else round(x)


if __name__ == "__main__":
    main()
