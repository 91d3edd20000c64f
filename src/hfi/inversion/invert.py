"""Stage 5: top-K pictures -> soft tokens v*, as safetensors that diffusers, A1111 and ComfyUI load."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.sampling import decode, sample_latents, to_pil
from hfi.diffusion.text import encode_prompts, split_rows, token_width
from hfi.errors import HFIError
from hfi.generation.generate import Generated, save_picture
from hfi.inversion.learn import Lesson, fresh_state, initial_rows, learn_with_checkpoints
from hfi.progress import bar
from hfi.seeds import derive
from hfi.workspace import StageRun, Workspace, read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from hfi.reward.reward import RewardResult

PREVIEWS = 6


@dataclass(frozen=True)
class Inverted:
    """What stage 5 leaves: soft tokens by name, each (n, D)."""

    folder: Path
    tokens: dict[str, Tensor]

    @classmethod
    def load(cls, study: Workspace) -> Inverted:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("invert")
        width = (study.manifest("invert") or {}).get("facts", {}).get("width")
        rows = {}
        for item in read_json(folder / "tokens.json"):
            tensors = read_tensors(folder / item["file"])
            if item["token"] not in tensors:
                raise HFIError(f"does not hold {item['token']}", file=folder / item["file"], remedy="run 'hfi invert' again")
            rows[item["token"]] = tensors[item["token"]]
            if width is not None and rows[item["token"]].shape[-1] != width:
                raise HFIError(
                    f"has width {rows[item['token']].shape[-1]}, the model's text encoder has {width}",
                    file=folder / item["file"],
                    field=item["token"],
                    remedy="run 'hfi invert' again, or put back the file that was inverted on this model",
                )
        return cls(folder, rows)


def token_name(concept: str, cluster: int | None) -> str:
    """`<weapon>` or, one per cluster, `<weapon-1>`."""
    word = re.sub(r"[^a-z0-9]+", "-", concept.lower()).strip("-") or "concept"
    return f"<{word}>" if cluster is None else f"<{word}-{cluster + 1}>"


def invert(model: Model, images: Generated, reward: RewardResult, study: Workspace) -> Inverted:
    """Learn the study's soft tokens from its top-K pictures; continues from its own checkpoints.

    Args:
        model: the original model, frozen.
        images: pictures with their latents.
        reward: which of them are the top-K, their weights and clusters.
    """
    if study.is_done("invert"):
        return Inverted.load(study)
    config, latents = study.config.invert, images.latents()
    place = {image.id: image.index for image in images.images}
    clusters: dict[int | None, list] = {}
    for picture in reward.selected:
        clusters.setdefault(picture.cluster if config.tokens == "per_cluster" else None, []).append(picture)
    with study.stage("invert") as run, bar() as progress:
        records, lessons = [], []
        for number, (cluster, pictures) in enumerate(sorted(clusters.items(), key=lambda item: item[0] or 0)):
            name = token_name(study.config.concept.name, cluster)
            weights = torch.tensor([picture.weight for picture in pictures])
            chosen = latents[[place[picture.image_id] for picture in pictures]]
            start = fresh_state(initial_rows(model, config.vectors, config.initial_word, study.config.seed, number))
            lessons.append(Lesson(number, start, chosen, weights / weights.mean()))
            records.append(
                {
                    "token": name,
                    "file": f"{name.strip('<>')}.safetensors",
                    "cluster": cluster,
                    "vectors": config.vectors,
                    "pictures": len(pictures),
                    "initial_word": config.initial_word,
                    "initialised": "from the word" if config.initial_word else "at random",
                }
            )
        curves = {}
        for first in range(0, len(lessons), config.together):
            here = slice(first, first + config.together)
            curves |= _learn(model, lessons[here], records[here], study, run, progress)
        write_json(run.path("tokens.json"), records)
        write_json(run.path("losses.json"), curves)
        tokens = Inverted.load(study).tokens
        _preview(model, tokens, study, run)
        for leftover in run.folder.glob("*.checkpoint.*"):
            leftover.unlink()
        run.facts.update(tokens=list(tokens), vectors=config.vectors, width=token_width(model))
    return Inverted.load(study)


def _learn(
    model: Model, lessons: list[Lesson], records: list[dict], study: Workspace, run: StageRun, progress
) -> dict[str, list[list[float]]]:
    """Learn some tokens side by side, or go on with them, and write their files; returns their curves by name."""
    config = study.config.invert
    names = [record["token"] for record in records]
    words = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    task = progress.add_task(f"Inverting into {words}", total=config.steps, note="")
    rows, curves = learn_with_checkpoints(
        model,
        lessons,
        run,
        run.path(f"{names[0].strip('<>')}.checkpoint.safetensors"),
        config,
        config.steps,
        study.config.seed,
        "invert",
        study.config.concept.kind,
        lambda done, loss: progress.update(task, completed=done, note=f"loss {loss:.4f}" if loss == loss else ""),
    )
    for record, value in zip(records, rows, strict=True):
        columns = " ".join(f"{encoder}:{part.shape[1]}" for encoder, part in split_rows(model, value).items())
        about = {"format": "pt", "concept": study.config.concept.name, "model_hash": model.hash, "columns": columns}
        write_tensors(run.path(record["file"]), {record["token"]: value}, about)
    return dict(zip(names, curves, strict=True))


def _preview(model: Model, tokens: dict[str, Tensor], study: Workspace, run: StageRun) -> None:
    """preview.png: one row of pictures per token, drawn by the original model."""
    from PIL import Image

    config = study.config.generate
    rows, c_0 = [], encode_prompts(model, [""])
    for number, name in enumerate(tokens):
        c = encode_prompts(model, [name] * PREVIEWS, tokens)
        seeds = [derive(study.config.seed, "token preview", number, i) for i in range(PREVIEWS)]
        rows.append(to_pil(decode(model, sample_latents(model, c, c_0, seeds, **config.sampling))))
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * PREVIEWS, height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * width, y * height))
    save_picture(sheet, run.path("preview.png"))
