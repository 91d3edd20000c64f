"""Which weights learn, and how to put other values in their place for a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hfi.errors import HFIError


def cross_attention(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters of every cross-attention layer by name (SDD: only these learn; 80 tensors in SD 1.x)."""
    found = {name: parameter for name, parameter in unet.named_parameters() if ".attn2." in name}
    if not found:
        raise HFIError("has no cross-attention layers to train", field="model", remedy="use a UNet with text conditioning")
    return found


def keys_and_values(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The cross-attention parameters that read the text."""
    return {name: parameter for name, parameter in cross_attention(unet).items() if ".to_k." in name or ".to_v." in name}


def other_layers(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters of every linear and convolution layer outside cross-attention (ESD-u)."""
    layers = {f"{name}." for name, layer in unet.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)}
    return {
        name: parameter
        for name, parameter in unet.named_parameters()
        if ".attn2." not in name and name[: name.rindex(".") + 1] in layers
    }


@contextlib.contextmanager
def swapped(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the parameters hold `values`; only pointers move, so it costs nothing."""
    kept = {name: parameter.data for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        parameter.data = values[name]
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]
