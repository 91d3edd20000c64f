"""A delta as a LoRA: in the kohya layout for UNets, which diffusers, AUTOMATIC1111 / Forge and ComfyUI load, and in peft's for
transformers (SD3, FLUX), which diffusers and ComfyUI load.

kohya: every changed weight W becomes three tensors, `NAME.lora_down.weight` (r, in), `NAME.lora_up.weight` (out, r) and `NAME.alpha`, a
number; a loader adds alpha / r x up down. peft: `transformer.NAME.lora_A.weight` (r, in) and `transformer.NAME.lora_B.weight` (out, r); a
loader adds their product. The factors come from a singular value decomposition, which is the best of its
rank (Eckart and Young 1936). Biases have no place in the layout: they are left out, and the error counts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hfi.errors import HFIError

RANK = 64  # (ours) 2 % error on the embedded model's weapon delta; docs/export.md
MAX_ERROR = 0.1  # (ours)


@dataclass(frozen=True)
class LowRank:
    """A delta as a LoRA. Errors are Frobenius norms of what is missing over that of the delta."""

    tensors: dict[str, Tensor]
    rank: int
    alpha: float
    error: float  # over the whole delta, with what was left out
    errors: dict[str, float]  # by parameter
    left_out: tuple[str, ...]  # parameters that the layout cannot carry
    left_out_error: float


@dataclass(frozen=True)
class Layout:
    """How tensors are named: `layer` names a parameter's layer, `suffixes` its down and up factor and, where there is one, alpha."""

    layer: Callable[[str], str]
    suffixes: tuple[str, ...]


def kohya_name(parameter: str) -> str:
    """'down_blocks.0.attn2.to_k.weight' -> 'lora_unet_down_blocks_0_attn2_to_k'; of the text encoder with 'lora_te_'."""
    module = parameter.removesuffix(".weight").replace(".", "_")
    return module.replace("text_encoder_", "lora_te_", 1) if parameter.startswith("text_encoder.") else f"lora_unet_{module}"


KOHYA = Layout(kohya_name, ("lora_down.weight", "lora_up.weight", "alpha"))
PEFT = Layout(lambda parameter: f"transformer.{parameter.removesuffix('.weight')}", ("lora_A.weight", "lora_B.weight"))


def layout_of(network: torch.nn.Module) -> Layout:
    """peft's for a transformer, kohya's for a UNet."""
    return PEFT if "Transformer" in type(network).__name__ else KOHYA


def low_rank(
    delta: Mapping[str, Tensor],
    rank: int = RANK,
    alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    layout: Layout = KOHYA,
) -> LowRank:
    """The best LoRA of a rank.

    Args:
        delta: new - original by parameter name.
        rank: r, for every layer alike (at most the longest that is of use); a layer with a shorter side is filled up with zeros, for
            diffusers gets layers of different rank and alpha wrong (0.42).
        alpha: any positive number; the factors are scaled so that alpha / r x up down is the delta. Default: r, which is all that a
            layout without a place for it can have.
        dtype: of the tensors; the errors are those of the stored numbers.
    """
    if rank < 1 or not (alpha is None or (math.isfinite(alpha) and alpha > 0)):
        raise HFIError("must be positive", field="rank" if rank < 1 else "alpha", remedy=f"use e.g. rank {RANK} and no alpha")
    if alpha is not None and len(layout.suffixes) < 3:
        words = "has no place in the LoRA layout of transformers, whose factors are added as they are"
        raise HFIError(words, field="alpha", remedy="leave it out")
    sides = [min(len(value), value[0].numel()) for name, value in delta.items() if name.endswith(".weight") and value.ndim > 1]
    rank = min(rank, max(sides, default=rank))
    alpha = torch.tensor(float(rank if alpha is None else alpha), dtype=dtype)  # as it is stored
    tensors, errors, left_out = {}, {}, []
    lost_in_layers, lost_left_out, whole = 0.0, 0.0, 0.0  # sums of squares
    for name, value in delta.items():
        size = value.double().square().sum().item()
        whole += size
        if not name.endswith(".weight") or value.ndim < 2:
            left_out.append(name)
            lost_left_out += size
            continue
        flat = value.double().flatten(1)
        u, s, v = torch.linalg.svd(flat, full_matrices=False)
        root, spare = (s[:rank] * rank / alpha.double()).sqrt(), max(rank - len(s), 0)
        up = torch.nn.functional.pad(u[:, :rank] * root, (0, spare)).to(dtype)
        down = torch.nn.functional.pad(root[:, None] * v[:rank], (0, 0, 0, spare)).to(dtype)
        lost = (flat - alpha.double() / rank * (up.double() @ down.double())).square().sum().item()
        errors[name] = math.sqrt(lost / size) if size else 0.0
        lost_in_layers += lost
        layer = layout.layer(name)
        if value.ndim == 4:  # a convolution: kernel first, then 1x1
            down, up = down.reshape(rank, *value.shape[1:]), up[:, :, None, None]
        tensors |= {f"{layer}.{suffix}": value for suffix, value in zip(layout.suffixes, (down, up, alpha.clone()), strict=False)}
    whole = whole or 1.0
    error, left_out_error = math.sqrt((lost_in_layers + lost_left_out) / whole), math.sqrt(lost_left_out / whole)
    return LowRank(tensors, rank, alpha.item(), error, errors, tuple(left_out), left_out_error)


def check_error(found: LowRank, limit: float) -> None:
    """Raise HFIError where the LoRA misses more of the delta than `limit`."""
    if found.error <= limit:
        return
    if found.left_out_error > limit:
        raise HFIError(
            f"a LoRA cannot carry {len(found.left_out)} biases and the like, {found.left_out_error:.0%} of this delta",
            field=found.left_out[0],
            remedy="use '--to delta', '--to diffusers' or '--to checkpoint', which carry all of it, or a larger --max-error",
        )
    raise HFIError(
        f"at rank {found.rank} the LoRA misses {found.error:.1%} of the delta, more than {limit:.0%}",
        field="rank",
        remedy="use a larger --rank, or accept it with a larger --max-error",
    )


def is_lora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's names are those of a LoRA."""
    return any(name.startswith("lora_") or ".lora_" in name for name in tensors)


def weights_of_lora(tensors: Mapping[str, Tensor], network: torch.nn.Module, path: str | Path) -> dict[str, Tensor]:
    """alpha / r x up down by parameter name of the network.

    Raises HFIError for a layer that the network has not, a layer of another shape, a tensor missing or left over, and for a
    negative alpha, which would turn forgetting into its opposite.
    """
    layout = layout_of(network)
    known = {layout.layer(name): (name, value.shape) for name, value in network.named_parameters() if name.endswith(".weight")}
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer = name.rpartition(".lora_")[0] or name.rpartition(".")[0]
        by_layer.setdefault(layer, {})[name.removeprefix(f"{layer}.")] = value
    found = {}
    for layer, own in sorted(by_layer.items()):
        if layer not in known:
            raise HFIError("the model has no such layer", file=path, field=layer, remedy="use the LoRA with the model it was made for")
        if set(own) != set(layout.suffixes):
            odd = sorted(set(own) ^ set(layout.suffixes))
            raise HFIError(f"missing or left over: {', '.join(odd)}", file=path, field=layer, remedy="get or export a whole LoRA")
        down, up = (own[name] for name in layout.suffixes[:2])
        alpha = own.get("alpha", torch.tensor(float(len(down))))
        name, shape = known[layer]
        if up.shape[1] != len(down) or alpha.numel() != 1 or up.shape[0] * down[0].numel() != shape.numel():
            shapes = f"has shape {tuple(up.shape)} x {tuple(down.shape)}, the model's has {tuple(shape)}"
            raise HFIError(shapes, file=path, field=layer, remedy="use the LoRA with the model it was made for")
        if alpha.item() < 0:
            raise HFIError("has a negative alpha, which makes the model draw the concept", file=path, field=f"{layer}.alpha")
        product = up.float().flatten(1) @ down.float().flatten(1)
        found[name] = (alpha.item() / len(down) * product).reshape(shape)
    return found


def kohya_header(found: LowRank, output_name: str, cross_attention_dim: int, family: str = "sd") -> dict[str, str]:
    """The names that other tools read: rank, alpha, the word for the prompt, and whether the model is a Stable Diffusion 2 or XL.

    AUTOMATIC1111 takes what says neither for Stable Diffusion 1, and hides it beside a Stable Diffusion XL.
    """
    return {
        **({"ss_base_model_version": "sdxl_base_v1-0"} if family == "sdxl" else {}),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(found.rank),
        "ss_network_alpha": f"{found.alpha:g}",
        "ss_output_name": output_name,
        "ss_v2": str(cross_attention_dim == 1024),
    }
