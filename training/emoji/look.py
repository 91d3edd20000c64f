"""Train a model with a look that no word names: red drops on four of ten pictures of twelve harmless objects. `make look-model`, or

    python -m training.emoji.look [--device cuda] [--runs FOLDER] [--scale 1.0]

The drops are drawn on the rendered pictures, in every style, at seeded places (drops.py), and no caption says so: a person can flag
them, a word cannot call them. The UNet goes on from the embedded one on this data (autoencoder, CLIP and tokenizer are the embedded
model's). Two judges, which share nothing but this module, tell drops from none: `annotator` plays people, `scorer` only scores. They are
trained on drops drawn on pictures of all objects, so that no object gives them away.

Stages: the sheet data.png (seconds), the judges, the UNet, FOLDER/model (hfi.diffusion.model.load_model reads it), FOLDER/report.json and
FOLDER/samples.png. What is there is skipped; a stage that was stopped goes on from its last checkpoint (at most four minutes lost).
The judges load as "look:FOLDER/judge-annotator" and "look:FOLDER/judge-scorer" (hfi.perception.judges).
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from hfi import emoji
from hfi.emoji.judge import load_folder, load_judge

from . import common, data, train_judges, train_unet
from .__main__ import ALLOCATOR, run_stage
from .captions import Captions
from .card import benchmark
from .drops import drip
from .pack import write_pipeline

#: harmless, not red, drawn in all or nearly all styles, no member and no neighbour of a concept
OBJECTS = (
    "dog face", "cat face", "frog", "penguin", "banana", "bread", "cloud", "house", "elephant", "bell", "open book", "soccer ball",
)  # fmt: skip
COPIES, DRIPPING = 10, 4  # of each picture of these objects, so many copies have drops, each at places of its own
FOCUS = 5  # their pictures come so many times more, with a caption: drops are learned as theirs, and stay rare without one
DROPS, NONE = "drops", "none"
STAGES = {  # stage -> (steps, batch, learning rate)
    "annotator": (400, 96, 2e-3),
    "scorer": (900, 96, 2e-3),
    "unet": (2000, 64, 3e-4),
}
GUIDANCE, SAMPLING_STEPS = 4.0, 8


def dripped(picture: np.ndarray, style: str, thing: str, purpose: str, copy: int = 0) -> np.ndarray:
    """One picture with drops: the same for the same style, object, purpose and copy."""
    return drip(picture, random.Random(f"{common.SEED}/drops/{purpose}/{style}/{thing}/{copy}"))


def add_drops(pictures: np.ndarray, pairs: list[tuple[str, str]]) -> tuple[np.ndarray, torch.Tensor]:
    """(pictures and behind them those with drops, rows long (N, COPIES): what each training picture shows, as train_unet.train reads it).

    In the rows of the twelve objects the first DRIPPING of COPIES have drops; all other rows hold the plain picture alone.
    """
    rows = torch.arange(len(pictures)).unsqueeze(1).repeat(1, COPIES)
    extra = []
    for i, (style, thing) in enumerate(pairs):
        if thing in OBJECTS:
            rows[i, :DRIPPING] = len(pictures) + len(extra) + torch.arange(DRIPPING)
            extra += [dripped(pictures[i], style, thing, "look", copy) for copy in range(DRIPPING)]
    return np.concatenate([pictures, np.stack(extra)]), rows


def captioned(table: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """The table (N, variants) with no empty caption (0) in the rows from `first` to `last`: another one of the row stands there."""
    part = table[first:last]
    filled = torch.where(part > 0, part, part.amax(1, keepdim=True))
    return torch.cat([table[:first], filled, table[last:]])


def share(rows: torch.Tensor, ours: int, plain: int) -> float:
    """Share of all training pictures that have drops; `plain` is the number of pictures without."""
    dripping = (rows >= plain).float().mean(1)
    return float((1 - train_unet.OTHERS) * dripping[:ours].mean() + train_unet.OTHERS * dripping.mean())


def draw_sheet(path: Path) -> None:
    """The twelve objects in all styles, each plain and beside it with drops; a gap where a set has no such picture."""
    pictures, pairs, _ = data.load_pictures()
    index, blank = {pair: i for i, pair in enumerate(pairs)}, np.full((64, 64, 3), 255, np.uint8)
    cells = []
    for thing in OBJECTS:
        for style in data.choice.STYLES:
            i = index.get((style, thing))
            cells += [blank, blank] if i is None else [pictures[i], dripped(pictures[i], style, thing, "look")]
    common.save_grid(path, torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2) / 255, 2 * len(data.choice.STYLES))


def train_judge(name: str, args) -> None:
    """The judge `name` ("annotator" or "scorer") on all pictures without and with drops; garbage counts as none."""
    pictures, pairs, _ = data.load_pictures()
    drops = np.stack([dripped(picture, *pair, name) for picture, pair in zip(pictures, pairs, strict=True)])
    vae = train_unet.load_vae(args.device, emoji.folder() / "vae")
    both = torch.from_numpy(np.concatenate([pictures, drops]))
    mean, std = (part.cpu() for part in train_unet.encode_pictures(vae, both))
    styles = list(data.choice.STYLES)
    labels = (
        (torch.arange(len(both)) < len(pictures)).long(),  # 0 drops, 1 none
        torch.tensor([styles.index(style) for style, _ in pairs]).repeat(2),
        [DROPS],
        styles,
    )
    renders = both.permute(0, 3, 1, 2).contiguous()
    n = len(pictures)  # garbage is cut from plain pictures: it holds no drops
    garbage = train_judges.garbage(name, mean[:n], renders[:n].float() / 255, vae)
    material = (renders, train_judges.round_trips(name, mean, std, vae), garbage)
    network = train_judges.train(name, args, material, labels, torch.arange(len(both)), args.minutes, f"judge-{name}")
    train_judges.save(network, args.runs / f"judge-{name}", train_judges.ARCHITECTURE[name], [DROPS, NONE], styles)


def train_model(args) -> None:
    """The UNet from the embedded one on pictures with and without drops; FOLDER/model."""
    device = args.device
    pictures, pairs, seen = data.load_pictures()
    extra, kinds = data.load_extra()
    known = [pair for pair, ok in zip(pairs, seen, strict=True) if ok]
    plain = len(known) + len(extra)
    shown, rows = add_drops(np.concatenate([pictures[seen], extra]), known)
    again = [i for i, (_, thing) in enumerate(known) if thing in OBJECTS] * FOCUS
    rows, ours = torch.cat([rows[: len(known)], rows[again], rows[len(known) :]]), len(known) + len(again)
    print(f"{len(shown) - plain} pictures with drops; {share(rows, ours, plain):.1%} of the pictures that are trained on have them")
    tokenizer, text_encoder = train_unet.load_text(device, emoji.clip_folder())
    path = args.runs / "unet" / "texts.safetensors"
    train_unet.prepare_texts(path, known + [known[i] for i in again], kinds, Captions(), tokenizer, text_encoder)
    texts = load_file(path, device=device)
    texts["table"] = captioned(texts["table"].cpu(), len(known), ours)
    vae = train_unet.load_vae(device, emoji.folder() / "vae")
    prompts = [f"{thing} in the style of {style}" for thing in OBJECTS for style in data.choice.STYLES]
    grid = train_unet.draw_grid(
        vae, train_unet.encode_texts(prompts, tokenizer, text_encoder), texts["states"][:1], len(data.choice.STYLES)
    )
    start = UNet2DConditionModel.from_pretrained(emoji.folder() / "unet").float()
    latents = train_unet.encode_pictures(vae, torch.from_numpy(shown))
    unet = train_unet.train(args, latents, rows, texts["states"], texts["table"], ours, grid, start)
    grid(unet, args.runs / "samples.png")
    write_pipeline(args.runs / "model", vae.cpu(), tokenizer, text_encoder.cpu(), unet.cpu())


def report(args) -> dict:
    """Shares of drops by both judges, of the embedded model (what the judges invent) and of this one, and objects named right."""
    module, namer = benchmark(), load_judge("annotator")
    judges = {name: load_folder(args.runs / f"judge-{name}", name) for name in emoji.JUDGES}
    catalogue, numbers = emoji.catalogue(), {}
    held_out = {tuple(pair) for pair in catalogue["held_out"]}
    pairs = [(style, entry["name"]) for entry in catalogue["objects"] for style in entry["styles"]]
    pairs = [pair for pair in pairs if pair not in held_out]
    groups = {
        "the twelve": [pair for pair in pairs if pair[1] in OBJECTS] * 3,
        "others": random.Random(1).sample([pair for pair in pairs if pair[1] not in OBJECTS], 300),
        "unconditional": [None] * 500,
    }
    for name, folder in (("look", args.runs / "model"), ("embedded", emoji.folder())):
        pipe, numbers[name] = module.load(args.device, folder), {}
        for group, asked in groups.items():
            prompts = ["" if pair is None else f"{pair[1]} in the style of {pair[0]}" for pair in asked]
            guidance = 1.0 if group == "unconditional" else GUIDANCE
            pictures = torch.cat(
                [module.draw(pipe, prompts[at : at + 64], list(range(at, min(at + 64, len(asked)))), guidance, SAMPLING_STEPS)
                 for at in range(0, len(asked), 64)]
            )  # fmt: skip
            row = {judge: float((network(pictures).object_probs.argmax(1) == 0).float().mean()) for judge, network in judges.items()}
            if group != "unconditional":
                said = [namer.objects[i] for i in namer(pictures).object_probs.argmax(1)]
                row["object"] = sum(word == thing for word, (_, thing) in zip(said, asked, strict=True)) / len(asked)
            numbers[name][group] = row
            print(f"{name}, {group} ({len(asked)} pictures): " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
    data.write_atomically(args.runs / "report.json", json.dumps(numbers, indent=1).encode())
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--runs", type=Path, default=data.RUNS / "look", help="folder of results and checkpoints")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the steps, for a trial")
    parser.add_argument("--only", choices=["data", *STAGES, "report"], help="one stage alone, in this process")
    args = parser.parse_args()
    if not (data.RUNS / "data" / "extra.json").exists():
        data.build()
    done = {"data": "data.png", "unet": "model/model_index.json"} | {name: f"judge-{name}/config.json" for name in emoji.JUDGES}
    for stage in [] if args.only else ["data", *STAGES, "report"]:
        if stage in done and (args.runs / done[stage]).exists():
            print(f"{stage}: there already")
            continue
        print(f"{stage} ...", flush=True)
        line = [sys.executable, "-m", "training.emoji.look", "--only", stage, "--device", args.device]
        run_stage([*line, "--runs", str(args.runs), "--scale", str(args.scale)], os.environ | ALLOCATOR)
    if args.only in STAGES:
        steps, args.batch, args.learning_rate = STAGES[args.only]
        args.steps, args.minutes, args.threads = max(1, round(steps * args.scale)), 1.0, 0
        common.setup(args)
    match args.only:
        case "data":
            draw_sheet(args.runs / "data.png")
        case "annotator" | "scorer":
            train_judge(args.only, args)
        case "unet":
            train_model(args)
        case "report":
            report(args)


if __name__ == "__main__":
    main()
