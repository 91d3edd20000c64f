"""Pack what was trained into src/hfi/emoji: half precision, safetensors, one diffusers folder.

    python -m training.emoji.pack               # the finished UNet
    python -m training.emoji.pack --interim     # the average kept in the UNet's last checkpoint

Everything is written beside its place and then moved into it, so that a reader never meets half a model.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel

from . import data
from .train_clip import image_processor
from .train_judges import ARCHITECTURE
from .train_unet import build, load_parts, scheduler

LIMIT_MIB = 48


def say_float32(config_path: Path) -> None:
    """Stored in half, meant to run in float32: transformers 5 would otherwise load what is stored."""
    config = json.loads(config_path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    for part in ("text_config", "vision_config"):
        if part in config:
            config[part]["dtype"] = "float32"
    for key in ("_name_or_path",):
        config.pop(key, None)
    config_path.write_text(json.dumps(config, indent=2) + "\n")


def swap(fresh: Path, place: Path) -> None:
    """Put the folder `fresh` where `place` is."""
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def load_unet(interim: bool) -> UNet2DConditionModel:
    """The averaged UNet: finished, or from the last checkpoint."""
    if not interim:
        return UNet2DConditionModel.from_pretrained(data.RUNS / "unet" / "model")
    unet = build()
    unet.load_state_dict(torch.load(data.RUNS / "unet" / "checkpoint.pt", map_location="cpu", weights_only=True)["ema"])
    return unet


def clean(folder: Path) -> None:
    """No path of the machine that trained it, in any of the JSON files."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


def write_pipeline(place: Path, vae, tokenizer, text_encoder, unet) -> None:
    """Put a diffusers folder in half precision at `place`; the parts are turned to half precision too."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh = place.with_name(place.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    say_float32(fresh / "text_encoder" / "config.json")
    clean(fresh)
    swap(fresh, place)


def pack_model(interim: bool) -> None:
    vae, tokenizer, text_encoder = load_parts("cpu")
    write_pipeline(data.SHIPPED / "model", vae, tokenizer, text_encoder, load_unet(interim))
    clip = CLIPModel.from_pretrained(data.RUNS / "clip" / "model").half()
    fresh = data.SHIPPED / "clip.part"
    shutil.rmtree(fresh, ignore_errors=True)
    clip.save_pretrained(fresh)
    image_processor().save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    say_float32(fresh / "config.json")
    swap(fresh, data.SHIPPED / "clip")


def pack_judges() -> None:
    for name in ARCHITECTURE:
        source = data.RUNS / f"judge-{name}"
        if (source / "config.json").exists():
            for file in ("model.safetensors", "config.json"):
                data.write_atomically(data.SHIPPED / "judges" / name / file, (source / file).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interim", action="store_true")
    args = parser.parse_args()
    pack_model(args.interim)
    pack_judges()
    size = sum(path.stat().st_size for path in data.SHIPPED.rglob("*.safetensors")) / 2**20
    print(f"weights: {size:.1f} MiB of {LIMIT_MIB}")
    if size > LIMIT_MIB:
        raise SystemExit(f"the weights take {size:.1f} MiB, more than {LIMIT_MIB}")


if __name__ == "__main__":
    main()
