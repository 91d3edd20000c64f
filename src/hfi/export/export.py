"""`hfi export`: a study's result as files that load where people work.

    hfi-CONCEPT-delta.safetensors       new - original, one concept or many with a strength for each; for hfi.load
    hfi-CONCEPT-lora.safetensors        a LoRA; diffusers, ComfyUI and, of UNets, AUTOMATIC1111 / Forge
    diffusers/                          the whole erased pipeline as a folder
    hfi-CONCEPT-checkpoint.safetensors  the whole erased pipeline in one file, in the original layout
    hfi-TOKEN-token.safetensors         a soft token as an embedding: draws the concept
    hfi-TOKEN-negative.safetensors      the same for the negative prompt
    README.md                           the model card
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hfi.diffusion.families import FAMILIES, require
from hfi.diffusion.model import Model, load_model, quiet_loading, save_pipeline
from hfi.errors import HFIError
from hfi.export import embedding as embeddings
from hfi.export.card import model_card
from hfi.export.deltas import Part, combined, of_study, original_of, write_parts
from hfi.export.files import DTYPES, add_header, header_of, write_file
from hfi.export.lora import KOHYA, MAX_ERROR, RANK, LowRank, check_error, kohya_header, layout_of, low_rank
from hfi.export.serving import cast, put_on
from hfi.export.single_file import original_layout
from hfi.export.targets import SAFE, TARGETS
from hfi.inversion.invert import Inverted
from hfi.workspace import Workspace, write_bytes

WHAT = {
    "delta": "what erasing changed, for `hfi.load` (new - original)",
    "lora": "the same as a LoRA, for diffusers, ComfyUI and (Stable Diffusion 1, 2, XL) AUTOMATIC1111 / Forge",
    "diffusers": "the whole erased pipeline as a diffusers folder",
    "checkpoint": "the whole erased pipeline in one file, in the original layout",
    "embedding": "a raw soft token: draws the concept",
    "negative_embedding": "a soft token for the negative prompt",
}

WHAT_WORKS = "use '--to delta' or '--to diffusers', which every family has"


@dataclass(frozen=True)
class Exported:
    """What was written: {path: what it is}, and what was left out with the reason."""

    folder: Path
    files: dict[Path, str]
    left_out: dict[str, str]
    lora: LowRank | None = None


def export(
    study: Workspace,
    to: str,
    folder: Path,
    also: Sequence[tuple[Workspace, float]] = (),
    strength: float = 1.0,
    rank: int = RANK,
    alpha: float | None = None,
    max_error: float = MAX_ERROR,
    dtype: str = "float32",
    understood: bool = False,
) -> Exported:
    """Write a study's result under `folder`; each file whole or not at all.

    Args:
        to: one of TARGETS, or 'all' for every one of them; embeddings only where `understood`.
        also: other studies on the same model with a strength each, whose deltas go into the same files.
        strength: of the study's own delta.
        rank, alpha, max_error: of the LoRA (hfi.export.lora).
        dtype: float32, float16 or bfloat16, of the weights in the files; embeddings stay float32.
        understood: raw tokens and negative embeddings may leave the study.

    Raises HFIError for a study that is not erased, a negative strength, studies on different models, a LoRA that misses too
    much, and embeddings without `understood`.
    """
    if to != "all" and to not in TARGETS:
        raise HFIError(f"is {to!r}", field="--to", remedy=f"use one of {', '.join(TARGETS)}, all")
    if dtype not in DTYPES:
        raise HFIError(f"is {dtype!r}", field="--weights", remedy=f"use one of {', '.join(DTYPES)}")
    wanted, left_out = (TARGETS if to == "all" else (to,)), {}
    for name in [name for name in wanted if name not in SAFE and not understood]:
        if to != "all":
            raise HFIError(embeddings.WHY[name], field=f"--to {name}", remedy="if you understand that, add --i-understand")
        left_out[name] = f"{embeddings.WHY[name]}; --i-understand writes it"
    wanted = [name for name in wanted if name not in left_out]
    needs_delta = set(wanted) - {"embedding", "negative_embedding"}
    parts = [of_study(study, strength), *(of_study(other, number) for other, number in also)] if needs_delta else []
    model = load_model(study.config.model, study.config.device, "float32", study.config.configs)
    for name in wanted:
        what = name.removeprefix("negative_")
        if to != "all":
            require(model.family, what, f"--to {to}", study.root, WHAT_WORKS)
        elif reason := FAMILIES[model.family].cannot.get(what):
            left_out[name] = f"{FAMILIES[model.family].title} cannot: {reason}"
    wanted = [name for name in wanted if name not in left_out]
    for other, _ in also:
        if load_hash(other) != model.hash:
            raise HFIError("is a study on another model", file=other.root, field="--also", remedy="give studies on one model")
    work = Work(study, model, folder, parts, DTYPES[dtype])
    lora = None
    for name in [name for name in ("delta", "lora", "embedding", "negative_embedding") if name in wanted]:
        lora = getattr(work, name)(**({"rank": rank, "alpha": alpha, "max_error": max_error} if name == "lora" else {})) or lora
    if {"diffusers", "checkpoint"} & set(wanted):
        put_on(model, parts)  # from here on the weights are the erased model's
        cast(model.pipeline, DTYPES[dtype])
    for name in [name for name in ("diffusers", "checkpoint") if name in wanted]:
        getattr(work, name)()
    if "card" in wanted:
        work.card()
    return Exported(folder, work.files, left_out, lora)


def load_hash(study: Workspace) -> str:
    """The hash of a study's model."""
    from hfi.diffusion.identity import model_hash

    return model_hash(study.config.model)


@dataclass
class Work:
    """One export at work: every method writes one kind of file and notes it."""

    study: Workspace
    model: Model
    folder: Path
    parts: list[Part]
    dtype: torch.dtype

    def __post_init__(self):
        self.files: dict[Path, str] = {}
        words = (re.sub(r"[^a-z0-9]+", "-", part.concept.lower()).strip("-") for part in self.parts)
        self.stem = "hfi-" + "-".join(words)
        self.concepts = json.dumps([{"concept": part.concept, "strength": part.strength} for part in self.parts])

    def header(self, kind: str, **more: object) -> dict[str, str]:
        return header_of(self.study, kind, concepts=self.concepts, **more)

    def note(self, name: str, to: str) -> Path:
        path = self.folder / name
        self.files[path] = WHAT[to]
        return path

    def delta(self) -> None:
        """The delta itself, strengths beside it."""
        write_parts(self.note(f"{self.stem}-delta.safetensors", "delta"), self.parts, self.model, self.header("hfi-delta"), self.dtype)

    def lora(self, rank: int, alpha: float | None, max_error: float) -> LowRank:
        """The sum of the deltas, strengths applied, as a LoRA."""
        delta = combined(self.parts)
        layout = layout_of(self.model.network)
        found = low_rank(delta, rank, alpha, self.dtype, layout)
        check_error(found, max_error)
        stem = f"{self.stem}-lora"
        carried = Part(stem, {name: value for name, value in delta.items() if name not in found.left_out})
        header = self.header(
            "hfi-lora",
            original_fp16_sha256=original_of(self.model, [carried]),
            relative_error=round(found.error, 6),
            relative_error_by_weight={name: round(error, 6) for name, error in found.errors.items()},
            left_out=found.left_out,
            **(kohya_header(found, stem, self.model.network.config.cross_attention_dim, self.model.family) if layout is KOHYA else {}),
        )
        path = self.note(f"{stem}.safetensors", "lora")
        write_file(path, found.tensors, header)
        self.files[path] += f"; rank {found.rank}, misses {found.error:.1%} of the delta"
        return found

    def embedding(self) -> None:
        """The soft tokens as they are."""
        self._tokens("embedding")

    def negative_embedding(self) -> None:
        """The soft tokens, named for the negative prompt."""
        self._tokens("negative_embedding")

    def _tokens(self, to: str) -> None:
        if not self.study.is_done("invert"):
            raise HFIError("has no soft tokens", file=self.study.root, remedy=f"run 'hfi run {self.study.root}' first")
        for token, rows in Inverted.load(self.study).tokens.items():
            word = embeddings.file_word(token, to)
            name = token if to == "embedding" else f"<{word}>"
            usage = embeddings.usage(word, name, to, self.model.family)
            header = header_of(self.study, embeddings.KINDS[to], usage=usage, warning=embeddings.WHY[to])
            embeddings.write_embedding(self.note(f"{word}.safetensors", to), name, rows, self.model, header)

    def diffusers(self) -> None:
        """The erased pipeline as a folder; the files of its denoising network get our header."""
        target = self.note("diffusers", "diffusers")
        partial = target.with_name(".diffusers.new")
        try:
            with quiet_loading():
                save_pipeline(self.model, partial)
            for file in sorted((partial / FAMILIES[self.model.family].network[0]).glob("*.safetensors")):
                add_header(file, self.header("hfi-pipeline"))
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def checkpoint(self) -> None:
        """The erased pipeline in one file."""
        target = self.note(f"{self.stem}-checkpoint.safetensors", "checkpoint")
        write_file(target, original_layout(self.model.pipeline), self.header("hfi-checkpoint"))

    def card(self) -> None:
        """The model card, with the files written so far."""
        names = {path.name: words for path, words in self.files.items()}
        path = self.folder / "README.md"
        strengths = {part.concept: part.strength for part in self.parts}
        write_bytes(path, model_card(self.study, names, strengths).encode())
        self.files[path] = "the model card"
