"""Where z_t comes from, compared in one run: teacher (as published), replay, forward, mix, at equal optimiser steps.

    .venv/bin/python benchmarks/erase.py [--study studies/demo] [--steps 150]

Takes the pictures, top-K and soft tokens of a study (made by `make demo`), erases with each source from the original weights,
and lets the annotator judge (a network, simulated) draw and score each result. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from rich.console import Console
from rich.table import Table

from hfi.diffusion.model import Model, add_noise, load_model, predict_noise
from hfi.diffusion.text import encode_prompts
from hfi.erasure.delta import Delta
from hfi.erasure.erase import benign_material, conditions_of, material
from hfi.erasure.sdd import train_sdd
from hfi.erasure.trainable import cross_attention
from hfi.evaluation.quick import quick_scores
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace

SOURCES = ("teacher", "replay", "forward", "mix")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="studies/demo", help="a study with its invert stage done")
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps for each source")
    parser.add_argument("--batch-size", type=int, default=None, help="z_t per step; default: the study's")
    parser.add_argument("--pictures", type=int, default=240, help="pictures for each score")
    parser.add_argument("--preservation", type=float, default=None, help="weight of the preservation term; default: the study's")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = parse()
    study = Workspace.open(options.study)
    changes = {"steps": options.steps, "sampling_steps": 50, "start": "original"}  # 50 steps a run from the original weights, as published
    changes |= {"batch_size": options.batch_size} if options.batch_size else {}
    changes |= {"preservation": options.preservation} if options.preservation is not None else {}
    settings = study.config.erase.model_copy(update=changes)
    model = load_model(study.config.model, study.config.device, study.config.dtype)
    images, reward, tokens = Generated.load(study), RewardResult.load(study), Inverted.load(study)
    rows, prompts, stored = material([(images, reward, tokens, study.config.concept.kind)])
    conditions = conditions_of(model, rows, prompts, settings, study.config.seed)
    c_0, benign = encode_prompts(model, [""]), benign_material(model, images, reward, settings, study.config.seed)
    results = {"original": {"seconds": 0.0} | scores(model, {}, study, options)}
    for latents in SOURCES:
        config = settings.model_copy(update={"latents": latents})
        with bar() as progress:
            task = progress.add_task(f"Erasing from {latents} states", total=config.steps, note="")

            def step(done: int, _, progress=progress, task=task) -> None:
                progress.update(task, completed=done)

            started = time.perf_counter()
            delta = train_sdd(model, conditions, c_0, stored, benign, config, options.seed, on_step=step)
            seconds = time.perf_counter() - started
        results[latents] = {"seconds": round(seconds, 1)} | scores(model, delta, study, options)
    show(results, settings)
    ratio = step_over_bare_passes(model, conditions, c_0, stored, settings)
    print(json.dumps({**{name: results[name] for name in SOURCES}, "step_over_bare_passes": round(ratio, 3)}))


def scores(model: Model, delta: Delta | dict, study: Workspace, options: argparse.Namespace) -> dict[str, float]:
    """Concept rate, retention and neither by the annotator judge."""
    found = quick_scores(model, delta, study, judge="emoji:annotator", n=options.pictures)
    return {name: round(float(found[name]), 4) for name in ("concept_rate", "retention", "neither")}


def step_over_bare_passes(model: Model, conditions, c_0, stored, settings, repeats: int = 30) -> float:
    """Seconds of a whole `forward` step over those of its bare passes (two forwards, one with a backward), interleaved."""
    plain = {"preservation": 0.0, "negative_guidance": 0.0, "pag_scale": 0.0}  # the paper's passes
    config = settings.model_copy(update={"latents": "forward", "steps": 1, "accumulate": 1, **plain})
    size, trained = config.batch_size, cross_attention(model.unet)
    z_0, t = stored[torch.arange(size) % len(stored)].to(model.device), torch.full((size,), 500)
    z_t, c_s = add_noise(model, z_0, torch.randn_like(z_0), t), conditions.c[torch.arange(size) % len(conditions.c)]

    def bare() -> None:
        with torch.no_grad():
            target = predict_noise(model, z_t, t, c_0.expand_as(c_s))
        (predict_noise(model, z_t, t, c_s) - target).square().mean().backward()

    stamps: list[float] = []
    train_sdd(
        model,
        conditions,
        c_0,
        stored,
        _none(),
        config.model_copy(update={"steps": repeats}),
        0,
        on_step=lambda *_: stamps.append(time.perf_counter()),
    )
    whole = torch.tensor(stamps, dtype=torch.float64).diff().median()
    times = []
    for parameter in trained.values():
        parameter.requires_grad_(True)
    for _ in range(repeats):
        started = time.perf_counter()
        bare()
        times.append(time.perf_counter() - started)
    for parameter in trained.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    return float(whole / torch.tensor(times, dtype=torch.float64).median())


def _none():
    from hfi.erasure.loop import Benign

    return Benign(torch.empty(0), torch.empty(0))


def show(results: dict, settings) -> None:
    table = Table(
        title=f"{settings.steps} steps, batch {settings.batch_size}, runs of {settings.sampling_steps} steps (annotator judge: simulated)"
    )
    for column in ("z_t from", "seconds", "times faster", "concept rate", "retention", "neither"):
        table.add_column(column, justify="right")
    for name, row in results.items():
        faster = f"{results['teacher']['seconds'] / row['seconds']:.1f}" if row["seconds"] else ""
        table.add_row(name, f"{row['seconds']:.1f}", faster, *(f"{row[key]:.3f}" for key in ("concept_rate", "retention", "neither")))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
