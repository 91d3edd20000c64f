"""A delta: what erasing changed, as name -> (new - original), put on and taken off a model by one function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.erasure.trainable import swapped
from hfi.errors import HFIError
from hfi.workspace import read_tensors, write_tensors


def save_delta(path: Path, delta: Mapping[str, Tensor], model: Model, concept: str, step: int | None = None) -> None:
    """Write a delta as safetensors whose header names the model it belongs to, and for a snapshot the step it was taken after."""
    header = {"format": "pt", "kind": "hfi-delta", "model": model.name, "model_hash": model.hash, "concept": concept}
    write_tensors(path, dict(delta), header if step is None else {**header, "step": str(step)})


def load_delta(path: Path) -> dict[str, Tensor]:
    """Read a delta; raises HFIError when it is damaged or holds NaN."""
    delta = read_tensors(path)
    for name, value in delta.items():
        if not torch.isfinite(value).all():
            raise HFIError("holds NaN or infinite values", file=path, field=name, remedy="run 'hfi erase' again with a lower learning rate")
    return delta


@contextlib.contextmanager
def applied(model: Model, delta: Mapping[str, Tensor], strength: float = 1.0) -> Iterator[None]:
    """While open, the model's weights are original + strength x delta; afterwards the original ones, to the last bit.

    Raises HFIError for a delta of another model: a missing or wrongly shaped tensor is never skipped.
    """
    parameters = dict(model.network.named_parameters())
    for name, value in delta.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise HFIError("does not fit this model", field=name, remedy="use the delta with the model it was made for")
    chosen = {name: parameters[name] for name in delta}
    values = {name: parameter.data + strength * delta[name].to(parameter.device, parameter.dtype) for name, parameter in chosen.items()}
    with swapped(chosen, values):
        yield
