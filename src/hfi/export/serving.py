"""A plain diffusers pipeline with the concepts off: `hfi.load(model, deltas=[...])`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hfi.diffusion.families import require
from hfi.diffusion.model import Model, load_model
from hfi.diffusion.text import split_rows
from hfi.erasure.strength import check_strength
from hfi.errors import HFIError
from hfi.export.deltas import Part, check_fit, combined, read_parts, strengthened
from hfi.export.embedding import read_embedding
from hfi.export.files import DTYPES


def load(
    model: str,
    deltas: Sequence[str | Path] = (),
    strengths: Sequence[float] | Mapping[str, float] | None = None,
    negative: Sequence[str | Path] = (),
    device: str = "auto",
    dtype: str = "float32",
    configs: str | Path = "",
) -> Any:
    """A diffusers pipeline that draws without the concepts.

    Args:
        model: 'emoji', a diffusers folder, a hub id or a single .safetensors file.
        deltas: files of `hfi export --to delta` or `--to lora`, a study's erase/delta.safetensors, or a study's folder.
        strengths: one number for each file, or {concept: number}; 0 is off, 1 as measured, at most 2. Default: 1.
        negative: embeddings to load beside them; their words then go into `negative_prompt=`.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: float32, float16 or bfloat16, of the weights; deltas are added in float32 first.
        configs: for a single file: a diffusers folder of the same family (its weights are not read).

    Raises HFIError for a negative strength, and for files that are damaged, pickled or made for another model.
    """
    if dtype not in DTYPES:
        raise HFIError(f"is {dtype!r}", field="dtype", remedy=f"use one of {', '.join(DTYPES)}")
    opened = load_model(model, device, "float32", configs)
    put_on(opened, parts_of(opened, deltas, strengths))
    words = [read_embedding(path, opened) for path in negative]
    cast(opened.pipeline, DTYPES[dtype])
    for word, rows in words:
        teach(opened, word, rows.to(opened.device, DTYPES[dtype]))
    return opened.pipeline


def teach(model: Model, word: str, rows: torch.Tensor) -> None:
    """Make a word known to every text encoder of the model's pipeline: rows (n, D), D their widths side by side.

    A CLIP whose config has the end of text as 2, as SD XL's has, takes the highest id for it, and added words have higher ones: its pooled
    vector would be read at the word. Such a config is put right here, where the end of text has been the highest so far.
    """
    require(model.family, "embedding", "negative", model.name, "give no negative embeddings for this family")
    for encoder, part in zip(model.encoders, split_rows(model, rows).values(), strict=True):
        last = encoder.tokenizer.eos_token_id
        if last == len(encoder.tokenizer) - 1:
            for module in encoder.network.modules():
                if getattr(module, "eos_token_id", None) == 2:
                    module.eos_token_id = module.config.eos_token_id = last
        model.pipeline.load_textual_inversion(part, token=word, tokenizer=encoder.tokenizer, text_encoder=encoder.network)


def parts_of(model: Model, deltas: Sequence[str | Path], strengths: Sequence[float] | Mapping[str, float] | None = None) -> list[Part]:
    """The deltas of some files or study folders, each with its strength."""
    files = [Path(path) / "erase" / "delta.safetensors" if Path(path).is_dir() else Path(path) for path in deltas]
    if isinstance(strengths, Mapping):
        return strengthened([part for file in files for part in read_parts(file, model)], strengths)
    numbers = [1.0] * len(files) if strengths is None else [check_strength(value) for value in strengths]
    if len(numbers) != len(files):
        raise HFIError(f"{len(numbers)} strengths for {len(files)} deltas", field="strengths", remedy="give one for each file")
    found = []
    for file, number in zip(files, numbers, strict=True):
        parts = read_parts(file, model)
        found += strengthened(parts, {part.concept: number for part in parts})
    return found


def cast(pipeline: Any, dtype: torch.dtype) -> None:
    """Give every network of a pipeline one dtype, and the memory layout and gradient flags that from_pretrained leaves.

    The flags count: torch folds the product with a weight that wants no gradient otherwise, and pictures differ in the last bits.
    """
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype=dtype, memory_format=torch.contiguous_format).requires_grad_(True)


@torch.no_grad()
def put_on(model: Model, parts: Sequence[Part]) -> None:
    """Add deltas to the model's weights for good, in float32."""
    delta = combined(parts)
    check_fit(delta, model, "deltas")
    parameters = dict(model.network.named_parameters())
    for name, value in delta.items():
        parameters[name].add_(value.to(parameters[name].device, parameters[name].dtype))
