"""The embedded model against its bars: does it draw what it is asked for, and how fast?

    .venv/bin/python benchmarks/emoji.py [--guidance 4] [--steps 12] [--judge scorer]

9 styles x 60 objects that all sets have x 4 seeds, then every held-out pair x 4 seeds, drawn by
diffusers' own StableDiffusionPipeline with one generator per picture, and named by a judge.
Ends with one line of JSON. The guidance scale was chosen with `--judge annotator`.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hfi import emoji
from hfi.emoji.judge import load_judge

OBJECTS, SEEDS, BATCH = 60, 4, 64


def load(device: str, folder: Path | None = None) -> StableDiffusionPipeline:
    """The shipped folder or another, float32 weights, in the memory layout that this CPU likes."""
    pipe = StableDiffusionPipeline.from_pretrained(folder or emoji.folder(), safety_checker=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def draw(pipe, prompts: list[str], seeds: list[int], guidance: float, steps: int) -> torch.Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1]."""
    device = pipe.unet.device.type
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        return (
            pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="pt").images.float().cpu()
        )


def common_pairs(catalogue: dict) -> list[tuple[str, str]]:
    """All styles x 60 objects, the same ones each time, among those that every set has."""
    shared = [entry["name"] for entry in catalogue["objects"] if len(entry["styles"]) == len(catalogue["styles"])]
    chosen = sorted(random.Random(0).sample(sorted(shared), OBJECTS))
    return [(style, thing) for style in catalogue["styles"] for thing in chosen]


def measure(pipe, judge, pairs, seeds: int, guidance: float, steps: int, label: str) -> dict:
    """{"style", "object", "neither": share of pictures}, with a progress bar."""
    jobs = [(style, thing, seed) for style, thing in pairs for seed in range(seeds)]
    style_right = object_right = neither = 0
    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task(label, total=len(jobs))
        for at in range(0, len(jobs), BATCH):
            part = jobs[at : at + BATCH]
            prompts = [f"{thing} in the style of {style}" for style, thing, _ in part]
            seeded = [hash_seed(style, thing, seed) for style, thing, seed in part]
            verdict = judge(draw(pipe, prompts, seeded, guidance, steps))
            for (style, thing, _), o, s in zip(part, verdict.object_probs.argmax(1), verdict.style_probs.argmax(1), strict=True):
                object_right += judge.objects[o] == thing
                style_right += judge.styles[s] == style
                neither += judge.objects[o] == "neither"
            progress.advance(task, len(part))
    return {"style": style_right / len(jobs), "object": object_right / len(jobs), "neither": neither / len(jobs)}


def hash_seed(style: str, thing: str, seed: int) -> int:
    return random.Random(f"{style}/{thing}/{seed}").randrange(2**31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=8, help="for the accuracy; the speed is measured at 25")
    parser.add_argument("--judge", choices=emoji.JUDGES, default="scorer")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    catalogue = emoji.catalogue()
    pipe, judge = load(args.device), load_judge(args.judge)

    prompts, seeds = ["a rocket in the style of noto"] * BATCH, list(range(BATCH))
    draw(pipe, prompts[:8], seeds[:8], args.guidance, 2)  # warm up
    start = time.perf_counter()
    draw(pipe, prompts, seeds, args.guidance, 25)
    speed = BATCH / (time.perf_counter() - start)

    seen = measure(pipe, judge, common_pairs(catalogue), args.seeds, args.guidance, args.steps, "60 objects x 9 styles")
    held = measure(pipe, judge, [tuple(pair) for pair in catalogue["held_out"]], args.seeds, args.guidance, args.steps, "held-out pairs")
    for name, row in (("common", seen), ("held out", held)):
        print(f"{name:>9}: style {row['style']:.3f}, object {row['object']:.3f}, neither {row['neither']:.3f}")
    print(
        json.dumps(
            {
                "style": round(seen["style"], 4),
                "object": round(seen["object"], 4),
                "style_held_out": round(held["style"], 4),
                "object_held_out": round(held["object"], 4),
                "pictures_per_second": round(speed, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
