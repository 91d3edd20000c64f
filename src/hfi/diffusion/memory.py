"""What a small GPU can trade for memory: half-precision frozen matrices, recomputed activations, parts that wait on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from hfi.config import Memory
from hfi.diffusion.families import text_weights
from hfi.errors import HFIError

if TYPE_CHECKING:
    from hfi.diffusion.model import Model


def save_memory(model: Model, memory: Memory) -> None:
    """Apply the settings to a loaded model; raises HFIError where they cannot hold."""
    if memory.weights == "bfloat16":
        if model.dtype != torch.bfloat16:
            raise HFIError(
                "needs bfloat16 arithmetic, which this device does not compute fast",
                file="study.yaml",
                field="memory.weights",
                remedy="set dtype to bfloat16, or memory.weights to float32",
            )
        hold_halves(model)
    if memory.gradient_checkpointing:
        model.network.enable_gradient_checkpointing()
    model.offload = memory.offload and model.device.type != "cpu"
    if model.offload:
        for part in (model.vae, *(encoder.network for encoder in model.encoders)):
            part.to("cpu")


def hold_halves(model: Model) -> None:
    """Hold the matrices and convolutions of the denoising network that no eraser trains by default in bfloat16.

    Autocast rounds them to bfloat16 at each use, so the result is the same to the last bit. Norms, embeddings, the text encoders
    and the autoencoder stay in float32, and so do the weights through which text enters: what learns has float32 masters.
    """
    learns = set(text_weights(name for name, _ in model.network.named_parameters()))
    for name, module in model.network.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            for key, parameter in module.named_parameters(recurse=False):
                if f"{name}.{key}" not in learns:
                    parameter.data = parameter.data.to(torch.bfloat16)


@contextlib.contextmanager
def awake(model: Model, part: torch.nn.Module) -> Iterator[None]:
    """While open, a part that waits on the CPU is on the model's device; it stays there where gradients are still to flow through it."""
    if not model.offload:
        yield
        return
    part.to(model.device)
    try:
        yield
    finally:
        if not torch.is_grad_enabled():
            part.to("cpu")
