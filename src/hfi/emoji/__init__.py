"""The embedded text-to-image model "emoji": where its files lie and what it knows.

- `folder()`       a diffusers folder: StableDiffusionPipeline.from_pretrained(folder()) draws
- `clip_folder()`  the CLIPModel whose text half conditions the model; its image half serves the reward model
- `catalogue()`    styles, objects (with tags and groups), held-out pairs, concepts
- `translations()` the objects' names in other languages
- `judge_path(n)`  config and weights of the judge "annotator" or "scorer" (see judge.py)

Nothing here imports torch. The weights come from training/emoji; MODEL_CARD.md has their numbers,
ATTRIBUTION.md the pictures they were trained on.
"""

import functools
import json
from pathlib import Path

HERE = Path(__file__).parent
JUDGES = ("annotator", "scorer")


def folder() -> Path:
    """The diffusers folder (model_index.json, unet, vae, text_encoder, tokenizer, scheduler)."""
    return HERE / "model"


def clip_folder() -> Path:
    """The whole CLIP pair with tokenizer and image processor."""
    return HERE / "clip"


def judge_path(name: str) -> Path:
    """The folder of one judge's config.json and model.safetensors."""
    if name not in JUDGES:
        raise ValueError(f"unknown judge {name!r}: choose one of {', '.join(JUDGES)}")
    return HERE / "judges" / name


@functools.cache
def _catalogue_text() -> str:
    return (HERE / "catalogue.json").read_text(encoding="utf-8")


def catalogue() -> dict:
    """{"styles": {style: {package, version, artist, licence, look}},
    "objects": [{name, group, subgroup, tags, hints, styles}], "held_out": [[style, object]],
    "concepts": {concept: {kind, words, members, neighbours}}}; a fresh copy at each call.
    `hints` are the tags that do not give the name away (for implicit prompts)."""
    return json.loads(_catalogue_text())


def translations() -> dict[str, dict[str, str]]:
    """{language: {object: its name there}} for de, es, fr, it and pt, from emojibase (MIT); "pistol" has none."""
    return json.loads((HERE / "words.json").read_text(encoding="utf-8"))["words"]
