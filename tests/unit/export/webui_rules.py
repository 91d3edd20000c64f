"""What AUTOMATIC1111 / Forge and ComfyUI do with the names in a file, written down from their public loaders.

Embeddings:
- AUTOMATIC1111 (modules/textual_inversion/textual_inversion.py): the word is the file's name without its ending. `string_to_param` marks
  an old kind of file; with `clip_g` and `clip_l` it is for SD XL; else there must be one tensor, and its name does not matter.
- ComfyUI (comfy/sd1_clip.py, load_embed): the word is `embedding:` and the file's name. It takes the tensor `clip_l` (or `clip_g`) that its
  text encoder asks for, else the file's first tensor.

LoRAs:
- AUTOMATIC1111 (extensions-builtin/Lora/networks.py): a name up to its first dot is a layer, the rest is a part; diffusers' block names
  become the original's by fixed arithmetic (three places a level). A layer is adapted by alpha / rank x up down.
- ComfyUI (comfy/lora.py): `lora_unet_` and a diffusers name with underscores; `.lora_up.weight`, `.lora_down.weight`, `.alpha`. Other
  names are reported as not loaded.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

RESNET = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}


def a1111_embedding(path: Path, tensors: dict[str, Tensor]) -> tuple[str, object]:
    """(word, rows) as AUTOMATIC1111 takes them."""
    assert "string_to_param" not in tensors
    if {"clip_l", "clip_g"} <= tensors.keys():
        return path.stem, tensors
    assert len(tensors) == 1, "an embedding file with several terms is refused"
    return path.stem, next(iter(tensors.values()))


def comfy_embedding(path: Path, tensors: dict[str, Tensor], key: str = "clip_l") -> tuple[str, Tensor]:
    """(what is typed, rows) as ComfyUI takes them for the text encoder `key`."""
    assert "string_to_param" not in tensors
    return f"embedding:{path.stem}", tensors[key] if key in tensors else next(iter(tensors.values()))


def a1111_layer(name: str) -> str:
    """The original's module that AUTOMATIC1111 looks for, for the part of a LoRA's name before the first dot."""
    if found := re.match(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", name):
        side, level, kind, place, rest = found.groups()
        number = int(level) * 3 + int(place) + (side == "down")
        rest = RESNET.get(rest, rest) if kind == "resnets" else rest
        return f"diffusion_model_{'input' if side == 'down' else 'output'}_blocks_{number}_{int(kind == 'attentions')}_{rest}"
    if found := re.match(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", name):
        kind, place, rest = found.groups()
        rest = RESNET.get(rest, rest) if kind == "resnets" else rest
        return f"diffusion_model_middle_block_{1 if kind == 'attentions' else int(place) * 2}_{rest}"
    if found := re.match(r"lora_te_text_model_encoder_layers_(\d+)_(.+)", name):
        return f"transformer_text_model_encoder_layers_{found[1]}_{found[2]}"
    return name


def comfy_layers(unet_weights: list[str]) -> dict[str, str]:
    """ComfyUI's table for a UNet: LoRA name -> diffusers' weight."""
    return {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": name for name in unet_weights if name.endswith(".weight")}


def comfy_leftovers(names: set[str], layers: dict[str, str]) -> set[str]:
    """The names of a LoRA file that ComfyUI would report as not loaded."""
    taken = {f"{layer}.{part}" for layer in layers for part in ("lora_up.weight", "lora_down.weight", "alpha")}
    return names - taken
