"""People only, people with a machine, a machine only: what each makes of the labels and of the reward. All simulated.

    .venv/bin/python benchmarks/machines.py [--seeds 10] [--people 50 --people 150 --people 400]

The embedded model's pictures (studies/pool, drawn once) are judged by simulated people (networks that err, one judgement a
picture) and by a machine annotator (the embedded CLIP with words: see hfi/perception/detectors.py) that looks at all of them. Dawid-Skene
learns how far each is right. Truth is what the annotator judge sees. Prints a table in Markdown and ends with one line of JSON.
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
from pool import Pool, draw_pool

from hfi.config import Label, Reward
from hfi.feedback.aggregation.aggregate import Aggregate, aggregate
from hfi.feedback.judgements import Judgement
from hfi.feedback.machines import answer, concept_and_others
from hfi.feedback.simulated import annotators
from hfi.perception.detectors import load_detector
from hfi.progress import console
from hfi.reward.calibration import auc
from hfi.reward.fit import fit, gather
from hfi.seeds import numpy_generator


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--people", type=int, action="append", help="labels by people; repeat for several")
    parser.add_argument("--machine", default="clip:emoji")
    parser.add_argument("--pictures", type=int, default=1600, help="pictures to draw; 3/8 of them are held out")
    parser.add_argument("--steps", type=int, default=12, help="DDIM steps of those pictures")
    parser.add_argument("--error-rate", type=float, default=0.05, help="of the simulated people, on average")
    parser.add_argument("--folder", type=Path, default=Path("studies/pool"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    budgets, started = options.people or [50, 150, 400], time.perf_counter()
    pool = draw_pool(options.folder, options.pictures, 0.8, options.steps)
    detector = load_detector(options.machine, *concept_and_others(pool.study))
    p = detector([pool.images.path(image) for image in pool.images.images]).numpy()
    said = [answer(float(x), detector.threshold, detector.margin) for x in p]
    cases = [("machine only", 0, True), *((name, n, with_it) for n in budgets for name, with_it in (("people", False), ("both", True)))]
    results: dict[tuple[str, int], list[dict]] = {(name, n): [] for name, n, _ in cases}
    console.quiet = True  # dozens of fits follow
    for seed in range(options.seeds):
        for name, people, with_machine in cases:
            results[name, people].append(run(pool, said, people, with_machine, seed, options))
        print(f"seed {seed + 1} of {options.seeds}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print("| who judges | labels by people | pictures with a label | wrong labels | reward's held-out AUC | machine: found / true |")
    print("|---|---|---|---|---|---|")
    found = {}
    for (name, people), rows in results.items():
        table = {key: numpy.array([row[key] for row in rows], dtype=float) for key in rows[0]}
        learned = "" if numpy.isnan(table["found"]).all() else f"{table['found'].mean():.2f} / {table['true'].mean():.2f}"
        cells = [cell(table[key]) for key in ("labelled", "wrong", "auc")]
        print(f"| {name} | {people} | {' | '.join(cells)} | {learned} |")
        found[f"{name}, {people}"] = {key: round(float(values.mean()), 4) for key, values in table.items() if not numpy.isnan(values).any()}
    facts = {"machine": detector.name, "unsure": round(said.count("unsure") / len(said), 3), "seeds": options.seeds, "simulated": True}
    print(json.dumps({**facts, "results": found, "seconds": round(time.perf_counter() - started)}))


def run(pool: Pool, said: list[str], people: int, with_machine: bool, seed: int, options: argparse.Namespace) -> dict:
    """One study: {"labelled", "wrong", "auc", "found", "true"}; the last two are the machine's balanced accuracy (nan without it)."""
    rng = numpy_generator(seed, "machines")
    order = rng.permutation(len(pool.ids))
    cut = round(len(order) * 3 / 8)
    held_out, shown = order[:cut], order[cut:]
    crowd = annotators(Label(annotators=3, error_rate=options.error_rate), ("noto",), seed)
    rows = [pool.say(crowd[n % len(crowd)], int(i), seed) for n, i in enumerate(shown[:people])]
    if with_machine:
        rows += [Judgement((pool.ids[i],), "machine-1", "machine", said[i]) for i in shown]
    found = aggregate(rows, "dawid_skene")
    index = {pool.ids[i]: int(i) for i in shown}
    wrong = [(label.present > 0.5) != pool.truth[index[name]] for name, label in found.labels.items()]
    machine = next((one.balanced for one in found.annotators if one.kind == "machine"), float("nan"))
    return {
        "labelled": len(found.labels) / len(shown),
        "wrong": float(numpy.mean(wrong)),
        "auc": held_out_auc(pool, found, index, held_out, seed),
        "found": machine,
        "true": balanced(said, pool.truth, shown) if with_machine else float("nan"),
    }


def held_out_auc(pool: Pool, found: Aggregate, index: dict[str, int], held_out: ndarray, seed: int) -> float:
    """The reward's, learned from these labels as stage 3 does."""
    config = Reward()
    labels = {name: (one.present, one.weight) for name, one in found.labels.items()}
    model, _ = fit(
        pool.embeddings,
        gather(index, labels, [], set(labels)),
        gather(index, {}, [], set()),
        hidden=config.hidden,
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        ranking_size=5,
        seed=seed,
    )
    with torch.no_grad():
        r = model(pool.embeddings).double().numpy()
    return auc(r[held_out], pool.truth[held_out])


def balanced(said: list[str], truth: ndarray, shown: ndarray) -> float:
    """The machine's balanced accuracy on the pictures that it decided."""
    decided = [i for i in shown if said[i] != "unsure"]
    rates = [numpy.mean([(said[i] == "present") == there for i in decided if truth[i] == there]) for there in (True, False)]
    return float(numpy.mean(rates))


def cell(values: ndarray) -> str:
    """Mean and half its 95 % interval over seeds."""
    spread = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.3f} +- {spread:.3f}"


if __name__ == "__main__":
    main()
