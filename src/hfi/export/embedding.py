"""Soft tokens as textual-inversion embeddings for diffusers, AUTOMATIC1111 / Forge and ComfyUI.

SD 1 and 2: one tensor (n, D) under the word that diffusers takes for it. SD XL: `clip_l` (n, 768) and `clip_g` (n, 1280).
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

from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import embedding_table
from hfi.errors import HFIError
from hfi.export.files import check_finite, fingerprint, read_file, write_file

KINDS = {"embedding": "hfi-token", "negative_embedding": "hfi-negative-embedding"}
ENCODERS = ("clip_l", "clip_g")
WHY = {
    "embedding": "a raw token draws what people flagged when it is typed into a prompt",
    "negative_embedding": "a negative embedding holds the same numbers as the raw token, which draws what people flagged when it is "
    "typed into the positive prompt",
}


def file_word(token: str, to: str) -> str:
    """'<weapon-1>' -> 'hfi-weapon-1-token' or 'hfi-weapon-1-negative': the file's stem, and what is typed in a WebUI."""
    word = re.sub(r"[^a-z0-9-]+", "-", token.lower()).strip("-")
    return f"hfi-{word}-{'token' if to == 'embedding' else 'negative'}"


def embedding_tensors(name: str, rows: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
    """The tensors of an embedding file.

    Args:
        name: what diffusers takes for the word; SD XL files have no place for it.
        rows: (n, D), or per text encoder {"clip_l": (n, D), "clip_g": (n, E)} with equal n.
    """
    if isinstance(rows, Tensor):
        return {name: rows}
    if set(rows) != set(ENCODERS) or len({len(value) for value in rows.values()}) > 1:
        raise HFIError("needs as many rows for clip_l as for clip_g", field=f"soft token {name}", remedy="invert it again")
    return {encoder: rows[encoder] for encoder in ENCODERS}


def write_embedding(path: Path, name: str, rows: Mapping[str, Tensor] | Tensor, model: Model, header: Mapping[str, str]) -> None:
    """Write an embedding; its header says which text encoder it is for, and how it is used."""
    tensors = embedding_tensors(name, rows)
    check_finite(tensors, path)
    write_file(path, tensors, {**header, "original_fp16_sha256": fingerprint([("table", embedding_table(model))])})


def read_embedding(path: str | Path, model: Model) -> tuple[str, Tensor]:
    """(word, rows (n, D)) of an embedding for a model with one text encoder.

    Raises HFIError for what `read_file` refuses, several tensors, another width, and another model by the header.
    """
    path = Path(path)
    tensors, header = read_file(path)
    if set(tensors) == set(ENCODERS):
        raise HFIError("is for Stable Diffusion XL (clip_l and clip_g)", file=path, remedy="use an embedding made for this model")
    if len(tensors) != 1:
        raise HFIError(f"holds {len(tensors)} tensors; an embedding holds one", file=path, remedy="give a textual-inversion embedding")
    ((name, rows),) = tensors.items()
    width = embedding_table(model).shape[1]
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != width:
        raise HFIError(
            f"has shape {tuple(rows.shape)}, the model's text encoder has width {width}",
            file=path,
            field=name,
            remedy="use an embedding made for this model",
        )
    made_for = header.get("original_fp16_sha256")
    if made_for not in {None, fingerprint([("table", embedding_table(model))])}:
        raise HFIError(f"was made for another model ({header.get('model', 'unknown')})", file=path, remedy="use it with that model")
    return name, rows.float()


def usage(word: str, token: str, to: str) -> str:
    """How the file is used, for its header."""
    prompt = "negative prompt" if to == "negative_embedding" else "prompt"
    return json.dumps({"diffusers": f"{token} in the {prompt}", "AUTOMATIC1111": f"{word} in the {prompt}", "ComfyUI": f"embedding:{word}"})
