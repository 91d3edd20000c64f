"""A delta: what any eraser leaves, put on a model and taken off again by one function, composable with others.

It has a part in the weights, name -> (new - original), a part in the guidance of sampling (hfi.diffusion.guidance), or
both, and a manifest that says where it came from. On disk it is one safetensors file: the weights under their names, the
conditions of the guidance as `guidance/0`, `guidance/1` ..., the manifest as JSON in the header.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.guidance import Guidance, ordered_sum
from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts
from hfi.erasure.strength import MAX_STRENGTH, check_strength
from hfi.erasure.trainable import swapped
from hfi.errors import HFIError
from hfi.workspace import digest, read_header, read_tensors, write_tensors


@dataclass(frozen=True)
class Delta:
    """What erasing changed. weights: float32, on the CPU; manifest: plain data (docs/formats.md)."""

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    guidance: tuple[Guidance, ...] = ()
    manifest: Mapping[str, object] = field(default_factory=dict)

    def half(self) -> Delta:
        """With weights in half precision, for snapshots."""
        return replace(self, weights={name: value.half() for name, value in self.weights.items()})


def save_delta(path: Path, delta: Delta | Mapping[str, Tensor], model: Model, concept: str, step: int | None = None) -> None:
    """Write a delta whose header names the model it belongs to, and for a snapshot the step it was taken after."""
    delta = delta if isinstance(delta, Delta) else Delta(delta)
    tensors = {**delta.weights, **{f"guidance/{number}": one.c_s for number, one in enumerate(delta.guidance)}}
    guidance = [{"method": one.method, "settings": dict(one.settings), "strength": one.strength} for one in delta.guidance]
    manifest = {**delta.manifest, "guidance": guidance, "tensors": sorted(tensors)}
    header = {"format": "pt", "kind": "hfi-delta", "model": model.name, "model_hash": model.hash, "concept": concept}
    header |= {} if step is None else {"step": str(step)}
    write_tensors(path, tensors, {**header, "manifest": json.dumps(manifest, sort_keys=True)})


def load_delta(path: Path, model: Model | None = None) -> Delta:
    """Read a delta; raises HFIError when it is damaged, holds NaN, lacks a tensor, has one too many, or is another model's."""
    tensors, header = read_tensors(path), read_header(path)
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise HFIError("holds NaN or infinite values", file=path, field=name, remedy="run 'hfi erase' again with a lower learning rate")
    try:
        manifest = json.loads(header.get("manifest", "{}"))
        listed, parts = manifest.pop("tensors", list(tensors)), manifest.pop("guidance", [])
        odd = sorted(set(listed) ^ set(tensors)) + [name for i in range(len(parts)) if (name := f"guidance/{i}") not in tensors]
        if odd:
            raise HFIError("is missing" if odd[0] in listed else "does not belong here", file=path, field=odd[0], remedy="erase again")
        guidance = tuple(
            Guidance(one["method"], tensors.pop(f"guidance/{number}"), one["settings"], one["strength"]) for number, one in enumerate(parts)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HFIError("its header cannot be read", file=path, field="manifest", remedy="delete it and run 'hfi erase' again") from None
    known = {name: header[name] for name in ("model", "model_hash", "concept") if name in header}
    delta = Delta(tensors, guidance, {**manifest, **known})
    if model is not None:
        check_fits(model, delta, path)
    return delta


def check_fits(model: Model, delta: Delta, file: Path | None = None) -> None:
    """Raise HFIError for a delta of another model: a missing or wrongly shaped tensor is never skipped."""
    parameters = dict(model.network.named_parameters())
    remedy = "use the delta with the model it was made for"
    for name, value in delta.weights.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise HFIError("does not fit this model", file=file, field=name, remedy=remedy)
    for number, one in enumerate(delta.guidance):
        if one.c_s.ndim != 3 or one.c_s.shape[-1] != encode_prompts(model, [""]).shape[-1]:
            raise HFIError("does not fit this model", file=file, field=f"guidance/{number}", remedy=remedy)
    if delta.manifest.get("model_hash", model.hash) != model.hash:
        raise HFIError(f"was made for {delta.manifest.get('model', 'another model')}", file=file, field="model_hash", remedy=remedy)


def compose(deltas: Sequence[Delta], strengths: Sequence[float] | None = None) -> Delta:
    """Several deltas as one: weights are added, guidance is joined. Their order changes nothing, not a bit.

    Raises HFIError for deltas of different models and for a negative strength.
    """
    strengths = [1.0] * len(deltas) if strengths is None else list(strengths)
    if len(strengths) != len(deltas) or not deltas:
        raise HFIError(f"{len(deltas)} deltas with {len(strengths)} strengths", field="compose", remedy="give one strength for each delta")
    for strength in strengths:
        check_strength(strength)
    owners = {one.manifest["model_hash"] for one in deltas if "model_hash" in one.manifest}
    if len(owners) > 1:
        raise HFIError("were made for different models", field="compose", remedy="compose deltas of one model")
    parts: dict[str, list[Tensor]] = {}
    for delta, strength in zip(deltas, strengths, strict=True):
        for name, value in delta.weights.items():
            if parts.get(name) and parts[name][0].shape != value.shape:
                raise HFIError("has two shapes", field=name, remedy="compose deltas of one model")
            parts.setdefault(name, []).append(strength * value.float())
    guidance = [
        replace(one, strength=strength * one.strength) for delta, strength in zip(deltas, strengths, strict=True) for one in delta.guidance
    ]
    of = sorted(({**one.manifest, "strength": strength} for one, strength in zip(deltas, strengths, strict=True)), key=digest)
    owner = next(({"model_hash": one.manifest["model_hash"]} for one in deltas if "model_hash" in one.manifest), {})
    return Delta({name: ordered_sum(parts[name]) for name in sorted(parts)}, tuple(guidance), {"method": "composed", **owner, "of": of})


@contextlib.contextmanager
def applied(model: Model, delta: Delta | Mapping[str, Tensor], strength: float = 1.0, most: float = MAX_STRENGTH) -> Iterator[None]:
    """While open, the model is the original one + strength x delta; afterwards the original one, to the last bit.

    A plain mapping counts as weights alone. May be nested. Raises HFIError for a strength that is negative or above `most`, and for a
    delta of another model.
    """
    check_strength(strength, most=most)
    delta = delta if isinstance(delta, Delta) else Delta(delta)
    check_fits(model, delta)
    if strength == 0:
        yield
        return
    parameters, before = dict(model.network.named_parameters()), model.guidance
    chosen = {name: parameters[name] for name in delta.weights}
    # at least float32, also where weights are held in half precision (memory.weights): a small change would be rounded away there
    wide = lambda value: value.to(torch.promote_types(value.dtype, torch.float32))  # noqa: E731
    values = {name: wide(value.data) + strength * wide(delta.weights[name].to(value.device)) for name, value in chosen.items()}
    more = (replace(one, c_s=one.c_s.to(model.device), strength=strength * one.strength) for one in delta.guidance)
    with swapped(chosen, values):
        model.guidance = (*before, *(one for one in more if one.strength))
        try:
            yield
        finally:
            model.guidance = before
