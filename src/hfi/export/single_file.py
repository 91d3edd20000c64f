"""One pipeline in one file, in the layout of the original Stable Diffusion releases that WebUIs load.

    model.diffusion_model.*                    the UNet
    first_stage_model.*                        the autoencoder
    cond_stage_model.transformer.text_model.*  the text encoder (SD 1)
    cond_stage_model.model.*                   the text encoder in OpenCLIP's names (SD 2)
    conditioner.embedders.0.transformer.text_model.*, conditioner.embedders.1.model.*   both text encoders (SD XL)

The names follow from the networks' structure, so they hold for any number of blocks. Written from the layout itself; diffusers'
`from_single_file` is the oracle of the tests. Stable Diffusion 3 and FLUX: joint_layout.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfi.errors import HFIError
from hfi.export.joint_layout import NETWORK, flux_names, sd3_names, text_names

UNET, VAE = "model.diffusion_model.", "first_stage_model."
JOINT = {"SD3Transformer2DModel": (sd3_names, VAE), "FluxTransformer2DModel": (flux_names, "vae.")}
OUTER = {  # UNet: before and after the blocks
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PLACE = re.compile(r"^(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$")


def original_layout(pipeline: Any) -> dict[str, Tensor]:
    """Every weight of a pipeline of a known family under its original name; values are not changed, some stand joined or turned.

    Raises HFIError for another family, and for a weight that the layout has no name for: none is left behind.
    """
    transformer = getattr(pipeline, "transformer", None)
    if type(transformer).__name__ in JOINT:
        names, vae_prefix = JOINT[type(transformer).__name__]
        found = {NETWORK + name: value for name, value in names(transformer.state_dict()).items()}
        return found | vae_names(pipeline.vae, vae_prefix) | text_names(pipeline)
    unet, vae, text = (getattr(pipeline, part, None) for part in ("unet", "vae", "text_encoder"))
    if unet is None or vae is None or text is None:
        raise HFIError("is of no family with a single-file layout", field="model", remedy="use '--to diffusers'")
    found = {UNET + unet_name(name, unet.config): value for name, value in unet.state_dict().items()}
    found |= vae_names(vae, VAE)
    second = getattr(pipeline, "text_encoder_2", None)
    if second is not None:
        found |= clip_names(text.state_dict(), "conditioner.embedders.0.transformer.text_model.")
        found |= open_clip_names(second.state_dict(), "conditioner.embedders.1.model.")
    elif unet.config.cross_attention_dim == 1024:
        found |= open_clip_names(text.state_dict(), "cond_stage_model.model.")
    else:
        found |= clip_names(text.state_dict(), "cond_stage_model.transformer.text_model.")
    return found


def unet_name(name: str, config: Any) -> str:
    """A UNet's parameter in the original layout.

    There every resnet with its attention is one block, as is every down-sampling; an up-sampling goes with the resnet before it.
    """
    module, _, leaf = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{leaf}"
    layers, found = config.layers_per_block, PLACE.match(name)
    if not isinstance(layers, int) or found is None:
        raise _no_name(name)
    side, level, kind, place, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if kind == "resnets":
        part, _, leaf = rest.rpartition(".")
        if part not in RESNET:
            raise _no_name(name)
        rest = f"{RESNET[part]}.{leaf}"
    if side == "mid_block":
        return f"middle_block.{2 * place if kind == 'resnets' else 1 + 2 * place}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        with_attention = "Attn" in config.up_block_types[level]
        return f"output_blocks.{level * (layers + 1) + layers}.{1 + with_attention}.{rest}"
    first = 1 + level * (layers + 1) if side == "down_blocks" else level * (layers + 1)
    return f"{'input' if side == 'down_blocks' else 'output'}_blocks.{first + place}.{int(kind == 'attentions')}.{rest}"


def vae_names(vae: Any, prefix: str) -> dict[str, Tensor]:
    """An autoencoder's weights in the original layout."""
    levels, found = len(vae.config.block_out_channels), {}
    for name, value in vae.state_dict().items():
        original = vae_name(name, levels)
        convolution = ".attn_1." in original and value.ndim == 2  # linear in diffusers, a 1x1 convolution in the original
        found[prefix + original] = value[:, :, None, None] if convolution else value
    return found


def vae_name(name: str, levels: int) -> str:
    """An autoencoder's parameter in the original layout, where the decoder's levels are numbered from the picture's end."""
    half, _, inner = name.partition(".")
    if half in {"quant_conv", "post_quant_conv"}:
        return name
    found = PLACE.match(inner)
    if found is None:
        return f"{half}.{inner.replace('conv_norm_out', 'norm_out')}"
    side, level, kind, place, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if kind == "attentions":
        part, _, leaf = rest.rpartition(".")
        if side != "mid_block" or place or part not in VAE_ATTENTION:
            raise _no_name(name)
        return f"{half}.mid.attn_1.{VAE_ATTENTION[part]}.{leaf}"
    rest = rest.replace("conv_shortcut", "nin_shortcut")
    if side == "mid_block":
        return f"{half}.mid.block_{place + 1}.{rest}"
    where = f"{half}.down.{level}" if side == "down_blocks" else f"{half}.up.{levels - 1 - level}"
    return f"{where}.block.{place}.{rest}" if kind == "resnets" else f"{where}.{kind.removesuffix('rs')}.{rest}"


def clip_names(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A CLIP text encoder in transformers' names, which the original keeps."""
    return {prefix + name.removeprefix("text_model."): value for name, value in weights.items()}


def open_clip_names(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A text encoder in OpenCLIP's names: queries, keys and values in one matrix, the projection transposed."""
    found, joined = {}, {}
    for full, value in weights.items():
        name = full.removeprefix("text_model.")
        layer = re.match(r"^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name)
        if name in OPEN_CLIP:
            found[prefix + OPEN_CLIP[name]] = value
        elif name == "text_projection.weight":
            found[prefix + "text_projection"] = value.T
        elif layer and layer[2] in OPEN_CLIP_LAYER:
            found[f"{prefix}transformer.resblocks.{layer[1]}.{OPEN_CLIP_LAYER[layer[2]]}.{layer[3]}"] = value
        elif layer and (part := re.match(r"^self_attn\.([qkv])_proj$", layer[2])):
            joined.setdefault(f"{prefix}transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}", {})[part[1]] = value
        else:
            raise _no_name(full)
    return found | {name: torch.cat([parts[one] for one in "qkv"]) for name, parts in joined.items()}


def _no_name(name: str) -> HFIError:
    return HFIError("the single-file layout has no name for this weight", field=name, remedy="use '--to diffusers'")
