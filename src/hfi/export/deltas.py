"""Deltas as files that can be given away: one concept or many with a weight for each, a LoRA read back, all checked against the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.erasure.delta import Delta, load_delta
from hfi.erasure.strength import check_strength
from hfi.errors import HFIError
from hfi.export.files import check_finite, fingerprint, read_file, write_file
from hfi.export.lora import is_lora, weights_of_lora
from hfi.workspace import Workspace

USE_ITS_MODEL = "use it with the model it was made for"


@dataclass(frozen=True)
class Part:
    """One concept's delta: new - original by parameter name, and the strength it is put on with."""

    concept: str
    weights: dict[str, Tensor]
    strength: float = 1.0


def of_study(study: Workspace, strength: float = 1.0) -> Part:
    """The delta of a finished study; raises HFIError where erasing is not done."""
    file = study.path("erase", "delta.safetensors")
    if not study.is_done("erase"):
        raise HFIError("has not been erased under its present settings", file=study.root, remedy=f"run 'hfi run {study.root}' first")
    return Part(study.config.concept.name, plain_weights(load_delta(file), file), check_strength(strength, study.root))


def plain_weights(delta: Delta, file: Path) -> dict[str, Tensor]:
    """The weights of a delta; raises HFIError for one that works by guidance at inference time, which weights cannot carry."""
    if delta.guidance:
        raise _guided(file)
    return dict(delta.weights)


def _guided(file: Path) -> HFIError:
    return HFIError(
        "works by guidance while drawing, and weights cannot carry that",
        file=file,
        remedy="use 'hfi export --to negative_embedding', or erase with a method that changes weights",
    )


def write_parts(path: Path, parts: Sequence[Part], model: Model, header: Mapping[str, str], dtype: torch.dtype) -> None:
    """Write a delta file: parameter names as they are for one concept, `0/parameter`, `1/parameter` ... for several."""
    names = [part.concept for part in parts]
    if len(set(names)) < len(names):
        raise HFIError("two deltas of one concept", file=path, field=", ".join(names), remedy="give each concept once")
    for part in parts:
        check_fit(part.weights, model, path)
    tensors = {
        name if len(parts) == 1 else f"{place}/{name}": value.to(dtype)
        for place, part in enumerate(parts)
        for name, value in part.weights.items()
    }
    check_finite(tensors, path)
    about = [{"concept": part.concept, "strength": part.strength} for part in parts]
    original = {"original_fp16_sha256": original_of(model, parts)}
    write_file(path, tensors, {**header, **original, "concepts": json.dumps(about)})


def original_of(model: Model, parts: Sequence[Part]) -> str:
    """The fingerprint of the original weights that these deltas are put on."""
    parameters = dict(model.network.named_parameters())
    return fingerprint((name, parameters[name]) for name in sorted({name for part in parts for name in part.weights}))


def read_parts(path: str | Path, model: Model) -> list[Part]:
    """The deltas of a file (ours, or a LoRA), float32, checked against the model's original weights.

    Raises HFIError for what `read_file` refuses, and for tensors that the model has not, or has in another shape.
    """
    path = Path(path)
    tensors, header = read_file(path)
    if header.get("kind", "").startswith("hfi-") and header["kind"] not in {"hfi-delta", "hfi-lora"}:
        raise HFIError(f"is no delta but {header['kind']!r}", file=path, remedy="give a file of 'hfi export --to delta' or '--to lora'")
    if any(name.startswith("guidance/") for name in tensors):
        raise _guided(path)
    if is_lora(tensors):
        parts = [Part(header.get("concept", path.stem), weights_of_lora(tensors, model.network, path))]
    else:
        parts = _split(tensors, header, path)
    parts = [replace(part, weights={name: value.float() for name, value in part.weights.items()}) for part in parts]
    for part in parts:
        check_strength(part.strength, path, part.concept)
        check_fit(part.weights, model, path)
    if "original_fp16_sha256" in header:
        same = header["original_fp16_sha256"] == original_of(model, parts)
    else:
        same = header.get("model_hash", model.hash) == model.hash
    if not same:
        raise HFIError(f"was made for another model ({header.get('model', 'unknown')})", file=path, remedy=USE_ITS_MODEL)
    return parts


def _split(tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> list[Part]:
    """The parts of a delta file by its header; every tensor must belong to one."""
    try:
        about = json.loads(header.get("concepts") or json.dumps([{"concept": header.get("concept", path.stem)}]))
        named = [(str(one["concept"]), float(one.get("strength", 1.0))) for one in about]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise HFIError("is not readable", file=path, field="concepts", remedy="export it again from its study") from None
    if len(named) == 1:
        return [Part(named[0][0], tensors, named[0][1])]
    parts = []
    for place, (concept, strength) in enumerate(named):
        own = {name.partition("/")[2]: value for name, value in tensors.items() if name.partition("/")[0] == str(place)}
        parts.append(Part(concept, own, strength))
    spare = set(tensors) - {f"{place}/{name}" for place, part in enumerate(parts) for name in part.weights}
    if spare or any(not part.weights for part in parts):
        field = min(spare) if spare else next(part.concept for part in parts if not part.weights)
        raise HFIError("its header and its tensors do not name the same concepts", file=path, field=field, remedy="export it again")
    return parts


def check_fit(weights: Mapping[str, Tensor], model: Model, path: str | Path) -> None:
    """Raise HFIError naming the first tensor that the model's UNet has not, or has in another shape."""
    parameters = dict(model.network.named_parameters())
    for name, value in weights.items():
        if name not in parameters:
            raise HFIError("the model has no such weight", file=path, field=name, remedy=USE_ITS_MODEL)
        if parameters[name].shape != value.shape:
            shapes = f"has shape {tuple(value.shape)}, the model's has {tuple(parameters[name].shape)}"
            raise HFIError(shapes, file=path, field=name, remedy=USE_ITS_MODEL)


def combined(parts: Sequence[Part]) -> dict[str, Tensor]:
    """One delta: the sum of strength x weights. What several deltas do together is a sum in the weights only (ours): measure it."""
    total: dict[str, Tensor] = {}
    for part in parts:
        check_strength(part.strength, field=part.concept)
        for name, value in part.weights.items():
            total[name] = total[name] + part.strength * value if name in total else part.strength * value
    return total


def strengthened(parts: Sequence[Part], strengths: Mapping[str, float]) -> list[Part]:
    """The parts with their own strengths times those given by concept; raises HFIError for a concept that is not among them."""
    known = [part.concept for part in parts]
    for concept in strengths:
        if concept not in known:
            raise HFIError(f"no delta is of this concept (there are: {', '.join(known) or 'none'})", field=f"strengths[{concept!r}]")
    return [
        replace(part, strength=check_strength(part.strength * check_strength(strengths.get(part.concept, 1.0), field=part.concept)))
        for part in parts
    ]
