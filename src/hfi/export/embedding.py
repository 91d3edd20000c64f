"""Soft tokens as textual-inversion embeddings for diffusers, AUTOMATIC1111 / Forge and ComfyUI.

SD 1 and 2: one tensor (n, D) under the word that diffusers takes for it. SD XL: `clip_l` (n, 768) and `clip_g` (n, 1280). FLUX: `clip_l`
and `t5`, the names that diffusers' own training script gives them; of the three tools diffusers alone is known to load it. SD 3: refused.
A WebUI takes the file's name for the word, so the name is never a plain word: a file 'weapon.safetensors' would turn
every "weapon" that anyone types into the concept.

A negative embedding holds the same numbers as the raw token. Only the name and the header differ: nothing in the file can
stop anyone from typing it into the positive prompt. Both need `--i-understand`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import split_rows
from hfi.errors import HFIError
from hfi.export.files import check_finite, fingerprint, read_file, write_file

KINDS = {"embedding": "hfi-token", "negative_embedding": "hfi-negative-embedding"}
COLUMNS = {"Stable Diffusion XL": {"clip_l", "clip_g"}, "FLUX.1": {"clip_l", "t5"}}  # of files for several text encoders
WHY = {
    "embedding": "a raw token draws what people flagged when it is typed into a prompt",
    "negative_embedding": "a negative embedding holds the same numbers as the raw token, which draws what people flagged when it is "
    "typed into the positive prompt",
}


def file_word(token: str, to: str) -> str:
    """'<weapon-1>' -> 'hfi-weapon-1-token' or 'hfi-weapon-1-negative': the file's stem, and what is typed in a WebUI."""
    word = re.sub(r"[^a-z0-9-]+", "-", token.lower()).strip("-")
    return f"hfi-{word}-{'token' if to == 'embedding' else 'negative'}"


def embedding_tensors(name: str, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an embedding file.

    Args:
        name: what diffusers takes for the word; files for several text encoders have no place for it.
        rows: {text encoder: (n, D_i)} with equal n.
    """
    if len({len(value) for value in rows.values()}) > 1:
        raise HFIError(f"needs as many rows for each of {', '.join(rows)}", field=f"soft token {name}", remedy="invert it again")
    return dict(rows) if len(rows) > 1 else {name: next(iter(rows.values()))}


def write_embedding(path: Path, name: str, rows: Tensor, model: Model, header: Mapping[str, str]) -> None:
    """Write a soft token (n, D) as an embedding; its header says which text encoders it is for, its word, and how it is used."""
    tensors = embedding_tensors(name, {encoder: part.contiguous() for encoder, part in split_rows(model, rows).items()})
    check_finite(tensors, path)
    write_file(path, tensors, {**header, "word": name, "original_fp16_sha256": original_of(model)})


def original_of(model: Model) -> str:
    """The fingerprint of the embedding tables that a soft token stands beside."""
    if len(model.encoders) == 1:
        return fingerprint([("table", model.encoders[0].table)])
    return fingerprint((encoder.name, encoder.table) for encoder in model.encoders)


def read_embedding(path: str | Path, model: Model) -> tuple[str, Tensor]:
    """(word, rows (n, D)) of an embedding for a model, D the widths of all its text encoders side by side.

    A file for several text encoders names no word; without our header it is the file's name.

    Raises HFIError for what `read_file` refuses, tensors too many or too few, another width, and another model by the header.
    """
    path = Path(path)
    tensors, header = read_file(path)
    names, remedy = [encoder.name for encoder in model.encoders], "use an embedding made for this model"
    if len(names) == 1:
        for title, columns in COLUMNS.items():
            if set(tensors) == columns:
                raise HFIError(f"is for {title} ({' and '.join(sorted(columns))})", file=path, remedy=remedy)
        if len(tensors) != 1:
            raise HFIError(f"holds {len(tensors)} tensors; an embedding holds one", file=path, remedy="give a textual-inversion embedding")
        ((word, value),) = tensors.items()
        parts = {word: value}
    else:
        if set(tensors) != set(names):
            found = ", ".join(sorted(tensors)[:4])
            raise HFIError(f"holds {found}; this model's text encoders are {' and '.join(names)}", file=path, remedy=remedy)
        word, parts = header.get("word", f"<{path.stem}>"), {name: tensors[name] for name in names}
    parts = {name: value[None] if value.ndim == 1 else value for name, value in parts.items()}
    for encoder, (name, value) in zip(model.encoders, parts.items(), strict=True):
        width = encoder.table.shape[1]
        if value.ndim != 2 or value.shape[1] != width:
            shapes = f"has shape {tuple(value.shape)}, the model's text encoder has width {width}"
            raise HFIError(shapes, file=path, field=name, remedy=remedy)
    if len({len(value) for value in parts.values()}) > 1:
        raise HFIError(f"has not as many rows for each of {', '.join(names)}", file=path, remedy="get or export it again")
    if header.get("original_fp16_sha256") not in {None, original_of(model)}:
        raise HFIError(f"was made for another model ({header.get('model', 'unknown')})", file=path, remedy="use it with that model")
    return word, torch.cat([value.float() for value in parts.values()], 1)


def usage(word: str, token: str, to: str, family: str = "sd") -> str:
    """How the file is used, for its header."""
    prompt = "negative prompt" if to == "negative_embedding" else "prompt"
    found = {"diffusers": f"{token} in the {prompt}"}
    if family != "flux":
        found |= {"AUTOMATIC1111": f"{word} in the {prompt}", "ComfyUI": f"embedding:{word}"}
    return json.dumps(found)
