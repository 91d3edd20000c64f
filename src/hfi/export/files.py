"""Safetensors that leave a study or come into a model: what their header says, and what is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import hfi
from hfi.errors import HFIError
from hfi.workspace import Workspace, file_hash, write_tensors

MAX_HEADER = 100_000_000  # bytes, by the format
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save's zip; pickle protocols 2 to 5
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def read_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the text header of a safetensors file.

    Raises HFIError for a missing, pickled, truncated or empty file, for tensors of several dtypes, for NaN, and where a hash
    in the header says that the weights are no longer those that were written.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError:
        raise HFIError("no such file", file=path, remedy="check the path") from None
    # the length of a header, which safetensors begin with, may look like a pickle's first bytes; a pickle's look like a far longer one
    if start.startswith(PICKLES) and int.from_bytes(start, "little") > MAX_HEADER:
        raise HFIError("is a pickle, which can run code when it is opened", file=path, remedy="get it as .safetensors")
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            header = opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise HFIError(f"not a whole safetensors file ({str(error)[:80]})", file=path, remedy="get or export it again") from None
    if not tensors:
        raise HFIError("holds no tensors", file=path, remedy="get or export it again")
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    if len(dtypes) > 1:
        raise HFIError(f"mixes dtypes ({', '.join(dtypes)})", file=path, remedy="export it again; all its tensors should have one")
    check_finite(tensors, path)
    if header.get("tensors_sha256", written := tensors_hash(tensors)) != written:
        raise HFIError("its weights were changed after it was written", file=path, remedy="export it again from its study")
    return tensors, header


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise HFIError naming the first tensor with NaN or infinite values, or with values that are not floating-point."""
    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise HFIError("holds NaN, infinite or integer values", file=path, field=name, remedy="get or export an undamaged copy")


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return total.hexdigest()


def fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """What tells the weights of one original from another's, however it was loaded: a hash of them in half precision.

    The same for a hub id, a folder and a single file, and for the float32 and float16 variants of a model (ours).
    """
    return tensors_hash({name: value.detach().half() for name, value in weights})


def header_of(study: Workspace, kind: str, **more: object) -> dict[str, str]:
    """What every exported file says of itself: kind, model, concept, settings, hashes. `more` is added; plain data becomes JSON."""
    from hfi.diffusion.identity import model_hash

    config = study.config
    manifests = {stage: study.manifest(stage) or {} for stage in ("generate", "label", "reward", "invert", "erase")}
    found = {
        "format": "pt",
        "kind": kind,
        "hfi_version": hfi.__version__,
        "model": public_name(config.model),
        "model_hash": model_hash(config.model),
        "concept": config.concept.name,
        "concept_kind": config.concept.kind,
        "simulated_annotators": bool(manifests["label"].get("facts", {}).get("simulated", False)),
        "settings": {stage: without_paths(getattr(config, stage).decisive()) for stage in ("invert", "erase")},
        "hashes": {stage: manifest.get("digest") for stage, manifest in manifests.items() if manifest},
        **more,
    }
    return {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in found.items()}


def public_name(model: str) -> str:
    """A model's name without the folders of this machine: a hub id as it is, a path's last part."""
    path = Path(model)
    return path.name if path.is_absolute() or model.startswith((".", "~")) or path.exists() else model


def without_paths(settings: dict) -> dict:
    """Settings without the folders of this machine: other studies by their names."""
    return {**settings, "also": [Path(path).name for path in settings["also"]]} if "also" in settings else settings


def write_file(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write safetensors whole or not at all, its header in order and with the hash of the tensors."""
    write_tensors(path, tensors, {**header, "tensors_sha256": tensors_hash(tensors)})


def add_header(path: Path, header: Mapping[str, str]) -> None:
    """Give a safetensors file that a library wrote our header as well."""
    from safetensors.torch import load_file

    write_file(path, load_file(path), header)


def hash_of(path: Path) -> str:
    """SHA-256 (hex) of a file, for the record."""
    return file_hash(path)
