"""Which weights learn, and how to put other values in their place for a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hfi.diffusion.families import text_weights
from hfi.errors import HFIError


def cross_attention(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters of every cross-attention layer by name (SDD: only these learn; 80 tensors in SD 1.x).

    A joint-attention transformer (SD3, FLUX) has none; there the text stream's query, key and value projections learn (ours).
    """
    names = set(text_weights(name for name, _ in network.named_parameters()))
    found = {name: parameter for name, parameter in network.named_parameters() if name in names}
    if not found:
        raise HFIError("has no cross-attention layers to train", field="model", remedy="use a network with text conditioning")
    return found


def keys_and_values(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The cross-attention parameters that read the text."""
    reading = (".to_k.", ".to_v.", ".add_k_proj.", ".add_v_proj.")
    return {name: parameter for name, parameter in cross_attention(network).items() if any(part in name for part in reading)}


def other_layers(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters of every linear and convolution layer outside cross-attention (ESD-u)."""
    layers = {f"{name}." for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)}
    through_text = cross_attention(network)
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if name not in through_text and name[: name.rindex(".") + 1] in layers
    }


def further_layers(network: torch.nn.Module, layers: str) -> dict[str, torch.nn.Parameter]:
    """What learns beside cross-attention: nothing (`cross_attention`), the linear layers of attention blocks (`attention`), or `all`."""
    if layers == "cross_attention":
        return {}
    inside = (".attentions.", "transformer_blocks.")  # of UNets, of transformers
    return {
        name: parameter
        for name, parameter in other_layers(network).items()
        if layers == "all" or any(part in name for part in inside)
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
