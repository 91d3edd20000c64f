"""Train the control: a model like the embedded one that never learned a harm and a style. `make control-model`, or

    python -m training.emoji.control [--device cuda] [--runs FOLDER] [--scale 1.0]

The yardstick of "removed, not hidden", and the cost of full retraining. Left out are every picture and caption of the seven weapons,
the keywords that name one, and all of the style fluent-ink (exclude.py says what that takes), in one run: the two hardly meet, and one
control serves the proofs on weapons and those on the style. The autoencoder is the embedded model's (it did see weapons: it only
says how to draw latents); tokenizer, CLIP and UNet start from nothing. CLIP sees as many pictures as the embedded one did in all of its
parts, the UNet not half as many (one schedule in place of the five that the embedded one was trained in).

Budgets are steps, not minutes: a busy machine gives the same model, only later. A run that was stopped goes on with the same command
(at most four minutes lost). About two hours of one idle core. Writes FOLDER/model, a diffusers folder
(hfi.diffusion.model.load_model reads it), FOLDER/samples.png and FOLDER/report.json.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

from diffusers import UNet2DConditionModel

from hfi import emoji
from hfi.emoji.judge import load_judge

from . import common, data
from .__main__ import ALLOCATOR, run_stage
from .card import benchmark
from .pack import write_pipeline
from .train_unet import GRID_PROMPTS, load_text, load_vae

LEFT_OUT = ("weapon", "fluent-ink")
#: stage -> (module, steps, batch, its result)
STAGES = {
    "clip": ("train_clip", 1235, 160, "clip/model/preprocessor_config.json"),
    "unet": ("train_unet", 7200, 64, "unet/model/diffusion_pytorch_model.safetensors"),
}
BAR = 0.02  # the other objects' accuracy may fall short of the embedded model's by this much
PICTURES = 600  # for each accuracy
GUIDANCE, SAMPLING_STEPS = 4.0, 8


def command(stage: str, device: str, runs: Path, scale: float) -> list[str]:
    """What to run for one stage."""
    module, steps, batch, _ = STAGES[stage]
    line = [sys.executable, "-m", f"training.emoji.{module}", "--device", device, "--runs", str(runs), "--batch", str(batch)]
    line += ["--steps", str(max(1, round(steps * scale))), "--exclude", *LEFT_OUT]
    return line + (["--vae", str(emoji.folder() / "vae")] if stage == "unet" else [])


def pack(runs: Path) -> None:
    """FOLDER/model from the stages' results and the embedded model's autoencoder."""
    tokenizer, text_encoder = load_text("cpu", runs / "clip" / "model")
    unet = UNet2DConditionModel.from_pretrained(runs / "unet" / "model")
    write_pipeline(runs / "model", load_vae("cpu", emoji.folder() / "vae"), tokenizer, text_encoder, unet)


def asked() -> dict[str, list[tuple[str, str]]]:
    """Pairs to draw: what both models learned, and what the control never saw. Held-out pairs are in none."""
    whole, held_out = emoji.catalogue(), {tuple(pair) for pair in emoji.catalogue()["held_out"]}
    members = set(whole["concepts"][LEFT_OUT[0]]["members"])
    pairs = [(style, entry["name"]) for entry in whole["objects"] for style in entry["styles"]]
    pairs = [pair for pair in pairs if pair not in held_out]
    groups = {
        "others": [(style, thing) for style, thing in pairs if style != LEFT_OUT[1] and thing not in members],
        "members": [(style, thing) for style, thing in pairs if style != LEFT_OUT[1] and thing in members],
        "style": [(style, thing) for style, thing in pairs if style == LEFT_OUT[1] and thing not in members],
    }
    return {name: random.Random(0).sample(group, min(PICTURES, len(group))) for name, group in groups.items()}


def report(runs: Path, device: str) -> dict:
    """Accuracies of the control and of the embedded model on the same prompts and seeds, by the annotator judge."""
    module, judge, numbers = benchmark(), load_judge("annotator"), {}
    for name, folder in (("control", runs / "model"), ("embedded", emoji.folder())):
        pipe = module.load(device, folder)
        if name == "control":
            pictures = module.draw(pipe, GRID_PROMPTS, list(range(len(GRID_PROMPTS))), GUIDANCE, SAMPLING_STEPS)
            common.save_grid(runs / "samples.png", pictures, len(data.choice.STYLES))
        numbers[name] = {
            group: module.measure(pipe, judge, pairs, 1, GUIDANCE, SAMPLING_STEPS, f"{name}: {group}") for group, pairs in asked().items()
        }
    ours, theirs = (numbers[name]["others"]["object"] for name in ("control", "embedded"))
    numbers |= {"left_out": LEFT_OUT, "judge": "annotator", "pictures": PICTURES, "within_bar": ours >= theirs - BAR}
    numbers["training_seconds"] = spent(runs)
    data.write_atomically(runs / "report.json", json.dumps(numbers, indent=1).encode())
    print(f"other objects right (annotator): control {ours:.3f}, embedded {theirs:.3f}; bar {theirs - BAR:.3f}")
    for group, key in (("members", "object"), ("style", "style")):
        print(f"{group} drawn when asked for: control {numbers['control'][group][key]:.3f}, embedded {numbers['embedded'][group][key]:.3f}")
    return numbers


def spent(runs: Path) -> dict[str, float]:
    """Seconds that each stage was at work, all its runs together; of a run that was killed nothing is known."""
    file = runs / "seconds.json"
    return json.loads(file.read_text()) if file.exists() else {}


def timed(runs: Path, stage: str, line: list[str]) -> None:
    """Run one stage and add its seconds to FOLDER/seconds.json, also where it fails or is stopped."""
    began = time.monotonic()
    try:
        run_stage(line, os.environ | ALLOCATOR)
    finally:
        known = spent(runs)
        known[stage] = round(known.get(stage, 0.0) + time.monotonic() - began, 1)
        data.write_atomically(runs / "seconds.json", json.dumps(known).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--runs", type=Path, default=data.RUNS / "control", help="folder of results and checkpoints")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the steps, for a trial")
    parser.add_argument("--report-only", action="store_true", help="measure FOLDER/model again and stop")
    args = parser.parse_args()
    if not args.report_only:
        if not (data.RUNS / "data" / "extra.json").exists():
            data.build()
        for stage, (*_, result) in STAGES.items():
            if (args.runs / result).exists():
                print(f"{stage}: there already")
                continue
            line = command(stage, args.device, args.runs, args.scale)
            print(f"{stage}: {' '.join(line[1:])}", flush=True)
            timed(args.runs, stage, line)
        pack(args.runs)
    report(args.runs, args.device)


if __name__ == "__main__":
    main()
