"""Write the model card: pictures and numbers, made by the packed model itself.

    python -m training.emoji.card              # runs benchmarks/emoji.py first (some minutes)
    python -m training.emoji.card --no-measure # with the numbers of the last measurement

Writes MODEL_CARD.md, samples.png (styles side by side), contact.png (100 pictures under the
scoring judge's verdicts) and roundtrip.png (renders, and below each its autoencoder round trip).
"""

import argparse
import importlib.util
import io
import json
import random
import subprocess
import sys

import torch
from PIL import Image, ImageDraw

from hfi import emoji
from hfi.emoji.judge import load_judge

from . import common, data
from .train_judges import prepare, verdicts
from .train_unet import decode

SAMPLES = (
    "rocket",
    "frog",
    "guitar",
    "hamburger",
    "house",
    "kitchen knife",
    "pistol",
    "beer mug",
    "wine glass",
    "fire",
    "fireworks",
    "santa claus",
)
ROOT = data.HERE.parents[1]


def benchmark():
    """benchmarks/emoji.py as a module: it draws and measures for the card too."""
    spec = importlib.util.spec_from_file_location("benchmark_emoji", ROOT / "benchmarks" / "emoji.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contact_sheet(pictures: torch.Tensor, titles: list[tuple[str, str]], columns: int = 10) -> Image.Image:
    """Pictures with the prompt (black) and the verdict (green if it agrees, else red) below each."""
    width, height = 118, 92
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, (asked, said)) in enumerate(zip(pictures, titles, strict=True)):
        x, y = i % columns * width, i // columns * height
        sheet.paste(Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy()), (x + (width - 64) // 2, y))
        for row, (text, colour) in enumerate(((asked, "black"), (said, "darkgreen" if said == asked else "firebrick"))):
            pen.text((x + width / 2, y + 66 + row * 12), text[:21], fill=colour, anchor="ma", font_size=10)
    return sheet


def save_image(image: Image.Image, name: str) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data.write_atomically(data.SHIPPED / name, buffer.getvalue())


def draw_all(module, pipe, prompts, seeds, guidance, steps) -> torch.Tensor:
    parts = [module.draw(pipe, prompts[at : at + 64], seeds[at : at + 64], guidance, steps) for at in range(0, len(prompts), 64)]
    return torch.cat(parts)


def ceiling() -> dict:
    """Both judges, as shipped, on noiseless round trips of all pairs; draws roundtrip.png on the way."""
    renders, mean, _, labels, vae = prepare("cpu")
    trips = (decode(vae, mean) * 255).round().byte()
    rows = [torch.cat([source[at : at + 160 : 10] for source in (renders, trips)]) for at in (0, 420, 900)]
    common.save_grid(data.SHIPPED / "roundtrip.png", torch.cat(rows).float() / 255, columns=16)
    result = {}
    for name in emoji.JUDGES:
        things, styles = verdicts(load_judge(name).network, trips)
        right = {"object": things == labels[0], "style": styles == labels[1], "neither": things == len(labels[2])}
        result[name] = {key: float(value.float().mean()) for key, value in right.items()}
    return result


def measure(guidance: float, steps: int) -> dict:
    """Numbers for the card, kept in runs/numbers.json."""
    module = benchmark()
    catalogue = emoji.catalogue()
    line = [sys.executable, str(ROOT / "benchmarks" / "emoji.py"), "--guidance", str(guidance), "--steps", str(steps)]
    output = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
    numbers = {"benchmark": json.loads(output.strip().splitlines()[-1]), "guidance": guidance, "steps": steps, "ceiling": ceiling()}
    pipe = module.load("cpu")
    scorer, annotator = load_judge("scorer"), load_judge("annotator")
    things = [entry["name"] for entry in catalogue["objects"]]
    rng = random.Random(5)

    plain = draw_all(module, pipe, [f"a picture of {thing}" for thing in things] * 2, list(range(2 * len(things))), guidance, steps)
    styles = scorer(plain).style_probs.argmax(1)
    numbers["style_prior"] = {style: round(float((styles == i).float().mean()), 3) for i, style in enumerate(scorer.styles)}
    numbers["plain_object"] = float((scorer(plain).object_probs.argmax(1) == torch.arange(len(things)).repeat(2)).float().mean())

    asked = [(rng.choice(scorer.styles), thing) for thing in rng.sample(things, 100)]
    pictures = draw_all(module, pipe, [f"{thing} in the style of {style}" for style, thing in asked], list(range(100)), guidance, steps)
    said = [scorer.objects[i] for i in scorer(pictures).object_probs.argmax(1)]
    numbers["contact"] = {
        "right": sum(thing == verdict for (_, thing), verdict in zip(asked, said, strict=True)),
        "neither": said.count("neither"),
    }
    save_image(contact_sheet(pictures, [(thing, verdict) for (_, thing), verdict in zip(asked, said, strict=True)]), "contact.png")
    # how far the judges err together, on these and the plain pictures
    truth = torch.tensor([things.index(thing) for _, thing in asked] + list(range(len(things))) * 2)
    both = torch.cat([pictures, plain])
    errors = torch.stack([(judge(both).object_probs.argmax(1) != truth).float() for judge in (annotator, scorer)])
    numbers["error_correlation_generated"] = round(float(torch.corrcoef(errors)[0, 1]), 3)

    grid = draw_all(
        module,
        pipe,
        [f"{thing} in the style of {style}" for thing in SAMPLES for style in catalogue["styles"]],
        list(range(len(SAMPLES) * 9)),
        guidance,
        steps,
    )
    common.save_grid(data.SHIPPED / "samples.png", grid, columns=9)
    for name in ("vae", "clip", "unet"):
        log = data.RUNS / name / "log.jsonl"
        numbers[name] = json.loads(log.read_text().strip().splitlines()[-1])
    folds = data.RUNS / "judges-folds.json"
    numbers["folds"] = json.loads(folds.read_text()) if folds.exists() else None
    data.write_atomically(data.RUNS / "numbers.json", json.dumps(numbers, indent=1).encode())
    return numbers


def write_card(numbers: dict) -> None:
    """MODEL_CARD.md from the numbers, around the text in card.md."""
    catalogue = emoji.catalogue()
    row, folds = numbers["benchmark"], numbers["folds"]
    groups = {}
    for entry in catalogue["objects"]:
        groups.setdefault(entry["group"], []).append(entry["name"])
    values = {
        **{key: f"{value:.1%}" if value <= 1 else f"{value}" for key, value in row.items() if key != "pictures_per_second"},
        "speed": row["pictures_per_second"],
        "guidance": numbers["guidance"],
        "steps": numbers["steps"],
        "objects": len(catalogue["objects"]),
        "pictures": sum(len(e["styles"]) for e in catalogue["objects"]),
        "held": len(catalogue["held_out"]),
        "extra": len(data.load_extra()[1]),
        "object_list": "\n".join(f"- **{group}** ({len(names)}): {', '.join(names)}" for group, names in groups.items()),
        "style_list": "\n".join(
            f"| {style} | {entry['artist']} | {entry['licence']} | {entry['look']} | {numbers['style_prior'][style]:.1%} |"
            for style, entry in catalogue["styles"].items()
        ),
        "plain_object": f"{numbers['plain_object']:.1%}",
        "contact_right": numbers["contact"]["right"],
        "contact_neither": numbers["contact"]["neither"],
        "correlation": numbers["error_correlation_generated"],
        "vae": json.dumps({k: round(v, 2) for k, v in numbers["vae"].items()}),
        "clip": json.dumps({k: round(v, 2) for k, v in numbers["clip"].items()}),
        "unet": json.dumps({k: round(v, 4) for k, v in numbers["unet"].items()}),
        "ceilings": "\n".join(
            f"| {name} | {v['object']:.1%} | {v['style']:.1%} | {v['neither']:.1%} |" for name, v in numbers["ceiling"].items()
        ),
        "folds": "not measured for these weights"
        if not folds
        else "; ".join(
            f"{name}: object {folds[name]['object']:.1%}, style {folds[name]['style']:.1%}, neither {folds[name]['neither']:.1%} "
            f"({folds['folds']} folds of {folds[name]['minutes']:g} minutes)"
            for name in emoji.JUDGES
        )
        + f"; correlation of their errors {folds['error_correlation']:.2f}",
    }
    text = (data.HERE / "card.md").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    data.write_atomically(data.SHIPPED / "MODEL_CARD.md", text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guidance", type=float, default=4.0, help="chosen with the annotator judge")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--no-measure", action="store_true")
    args = parser.parse_args()
    stored = data.RUNS / "numbers.json"
    write_card(json.loads(stored.read_text()) if args.no_measure else measure(args.guidance, args.steps))


if __name__ == "__main__":
    main()
