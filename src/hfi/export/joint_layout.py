"""Stable Diffusion 3 and FLUX in one file, in the layout of their original releases that ComfyUI and Forge load.

    model.diffusion_model.*                             the transformer, queries, keys and values of a stream in one matrix
    first_stage_model.* (SD 3), vae.* (FLUX)            the autoencoder
    text_encoders.{clip_l,clip_g,t5xxl}.transformer.*   the text encoders in transformers' names

Written from the layout itself; diffusers' `from_single_file` (SD 3) and its converter at FLUX's own width are the oracles of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfi.errors import HFIError

NETWORK, TEXT = "model.diffusion_model.", "text_encoders."
TWO = {"linear_1": "0", "linear_2": "2"}  # an embedder's two layers
SD3_OUTER = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    **{f"time_text_embed.timestep_embedder.{ours}": f"t_embedder.mlp.{theirs}" for ours, theirs in TWO.items()},
    **{f"time_text_embed.text_embedder.{ours}": f"y_embedder.mlp.{theirs}" for ours, theirs in TWO.items()},
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
SD3_JOINED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}
LAYERS = {"linear_1": "in_layer", "linear_2": "out_layer"}
FLUX_OUTER = {
    **{f"time_text_embed.timestep_embedder.{ours}": f"time_in.{theirs}" for ours, theirs in LAYERS.items()},
    **{f"time_text_embed.text_embedder.{ours}": f"vector_in.{theirs}" for ours, theirs in LAYERS.items()},
    **{f"time_text_embed.guidance_embedder.{ours}": f"guidance_in.{theirs}" for ours, theirs in LAYERS.items()},
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
FLUX_BLOCK = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
FLUX_JOINED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
FLUX_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "proj_out": "linear2",
}
FLUX_SINGLE_JOINED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


def sd3_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An SD3Transformer2DModel's weights under their original names."""
    last = max(int(found[1]) for name in weights if (found := re.match(r"transformer_blocks\.(\d+)\.", name)))
    swapped = ("norm_out.linear.", f"transformer_blocks.{last}.norm1_context.linear.")  # the last block's text stream ends there
    return _renamed(weights, SD3_OUTER, {"transformer_blocks": ("joint_blocks", SD3_BLOCK, SD3_JOINED)}, swapped)


def flux_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A FluxTransformer2DModel's weights under their original names."""
    blocks = {
        "transformer_blocks": ("double_blocks", FLUX_BLOCK, FLUX_JOINED),
        "single_transformer_blocks": ("single_blocks", FLUX_SINGLE, FLUX_SINGLE_JOINED),
    }
    return _renamed(weights, FLUX_OUTER, blocks, ("norm_out.linear.",))


def text_names(pipeline: Any) -> dict[str, Tensor]:
    """The text encoders of an SD 3 or FLUX pipeline; one that it was loaded without is left out."""
    found = {}
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        encoder = getattr(pipeline, part, None)
        if encoder is None:
            continue
        if encoder.config.model_type.startswith("t5"):
            # T5's two names of one table are two tensors in a file
            found |= {f"{TEXT}t5xxl.transformer.{name}": value.clone() for name, value in encoder.state_dict().items()}
            continue
        name = "clip_l" if part == "text_encoder" else "clip_g"
        for key, value in encoder.state_dict().items():
            inner = key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"
            found[f"{TEXT}{name}.transformer.{inner}"] = value
    return found


def _renamed(weights: Mapping[str, Tensor], outer: Mapping[str, str], blocks: Mapping[str, tuple], swapped: tuple[str, ...]) -> dict:
    """Original name -> value. `swapped`: beginnings of modulations whose halves, scale and shift, stand the other way round there."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}  # of what is one matrix there
    for name, value in weights.items():
        value = torch.cat(value.chunk(2)[::-1]) if name.startswith(swapped) else value
        place = re.match(r"^(\w+)\.(\d+)\.(.+)$", name)
        if place is None or place[1] not in blocks:
            found[_look_up(outer, name, name)] = value
            continue
        (theirs, names, joined), inner = blocks[place[1]], place[3]
        module, _, leaf = inner.rpartition(".")
        whole = next((whole for whole, modules in joined.items() if module in modules), None)
        if whole is None:
            found[f"{theirs}.{place[2]}.{_look_up(names, inner, name)}"] = value
        else:
            parts.setdefault(f"{theirs}.{place[2]}.{whole}.{leaf}", {})[joined[whole].index(module)] = value
    return found | {name: torch.cat([pieces[i] for i in sorted(pieces)]) for name, pieces in parts.items()}


def _look_up(names: Mapping[str, str], name: str, full: str) -> str:
    if name in names:
        return names[name]
    module, _, leaf = name.rpartition(".")
    if module not in names:
        raise HFIError("the single-file layout has no name for this weight", field=full, remedy="use '--to diffusers'")
    return f"{names[module]}.{leaf}"
