"""Compare settings of the erase stage on one study, by the annotator judge (a network: simulated), never by the scorer.

    .venv/bin/python benchmarks/settings.py --study studies/demo \\
        --variant "" --variant "preservation=0" --variant "steps=400 learning_rate=5e-5"

Each variant is the study's own erase settings with some replaced. Prompts and seeds are other than those of the final
evaluation. Ends with one line of JSON: {variant: {"seconds", "concept_rate", "explicit", "implicit", ...}}.
"""

from __future__ import annotations

import argparse
import json
import time

import yaml
from rich.console import Console

from hfi.config import with_overrides
from hfi.diffusion.model import load_model
from hfi.diffusion.text import encode_prompts
from hfi.erasure.erase import benign_material, conditions_of, material
from hfi.erasure.sdd import train_sdd
from hfi.evaluation.quick import quick_scores
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace, write_tensors


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="studies/demo", help="a study with its invert stage done")
    parser.add_argument("--variant", action="append", required=True, help='erase settings to replace, e.g. "steps=300 ema_decay=0.99"')
    parser.add_argument("--pictures", type=int, default=96, help="pictures for each prompt set")
    parser.add_argument("--sampling-steps", type=int, default=12, help="DDIM steps of those pictures")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options, console, results, known = parse(), Console(stderr=True), {}, {}
    study = Workspace.open(options.study)
    model = load_model(study.config.model, study.config.device, study.config.dtype)
    images, reward, tokens = Generated.load(study), RewardResult.load(study), Inverted.load(study)
    rows, prompts, stored = material([(images, reward, tokens, study.config.concept.kind)])
    c_0 = encode_prompts(model, [""])
    for variant in options.variant:
        changes = dict(item.split("=", 1) for item in variant.split())
        changed = with_overrides(study.config, {f"erase.{name}": yaml.safe_load(value) for name, value in changes.items()}, "--variant")
        config = changed.erase
        conditions = conditions_of(model, rows, prompts, config, options.seed)
        benign = benign_material(model, images, reward, config, options.seed)
        log: list[dict] = []
        with bar() as progress:
            task = progress.add_task(variant or "the study's own", total=config.steps, note="")

            def step(done: int, _, progress=progress, task=task) -> None:
                progress.update(task, completed=done)

            started = time.perf_counter()
            delta = train_sdd(model, conditions, c_0, stored, benign, config, options.seed, on_log=log.append, on_step=step)
            seconds = time.perf_counter() - started
        found = quick_scores(
            model,
            delta,
            study,
            n=options.pictures,
            steps=options.sampling_steps,
            original=known,
            guidance_scale=study.config.evaluate.guidance_scale,
        )
        row = {
            "seconds": round(seconds, 1),
            "concept_rate": found["concept_rate"],
            **{name: rates["after"] for name, rates in found["by_set"].items()},
            "retention": found["retention"],
            "retention_styles": found["retention_styles"],
            "neither": found["neither"],
            "drift_unconditional": round(log[-1]["drift_unconditional"], 4),
            "drift_benign": round(log[-1]["drift_benign"], 4),
        }
        if not results:
            console.print("before:", {name: rates["before"] for name, rates in found["by_set"].items()}, found["neither_before"])
        console.print(f"[bold]{variant or 'own'}[/]", row)
        results[variant or "own"] = row
        write_tensors(study.path("settings", f"{len(results)}.safetensors"), dict(delta.weights))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
