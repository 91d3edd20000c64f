"""Stage 5: top-K pictures -> soft tokens v*, as safetensors that diffusers, A1111 and ComfyUI load."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.sampling import decode, sample_latents, to_pil
from hfi.diffusion.text import embedding_table, encode_prompts
from hfi.errors import HFIError
from hfi.generation.generate import Generated, save_picture
from hfi.inversion.learn import State, fresh_state, initial_rows, learn_token
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
        records, curves = [], {}
        for number, (cluster, pictures) in enumerate(sorted(clusters.items(), key=lambda item: item[0] or 0)):
            name = token_name(study.config.concept.name, cluster)
            weights = torch.tensor([picture.weight for picture in pictures])
            chosen = latents[[place[picture.image_id] for picture in pictures]]
            file = f"{name.strip('<>')}.safetensors"
            curves[name] = _learn_with_checkpoints(model, chosen, weights / weights.mean(), study, run, name, number, progress, file)
            records.append(
                {
                    "token": name,
                    "file": file,
                    "cluster": cluster,
                    "vectors": config.vectors,
                    "pictures": len(pictures),
                    "initial_word": config.initial_word,
                    "initialised": "from the word" if config.initial_word else "at random",
                }
            )
        write_json(run.path("tokens.json"), records)
        write_json(run.path("losses.json"), curves)
        tokens = Inverted.load(study).tokens
        _preview(model, tokens, study, run)
        for leftover in run.folder.glob("*.checkpoint.*"):
            leftover.unlink()
        run.facts.update(tokens=list(tokens), vectors=config.vectors, width=embedding_table(model).shape[1])
    return Inverted.load(study)


def _learn_with_checkpoints(
    model: Model, latents: Tensor, weights: Tensor, study: Workspace, run: StageRun, name: str, number: int, progress, file: str
) -> list[list[float]]:
    """Learn one token or continue it, and write its file; returns [[step, mean loss], ...]."""
    config = study.config.invert
    checkpoint = run.path(file.replace(".safetensors", ".checkpoint.safetensors"))
    curve: list[list[float]] = []
    if checkpoint.exists():
        saved = read_tensors(checkpoint)
        state, window = State.from_tensors(saved), saved["window"].tolist()
        curve = json.loads(bytes(saved["curve"].tolist()).decode())
    else:
        state, window = fresh_state(initial_rows(model, config.vectors, config.initial_word, study.config.seed, number)), []
    task = progress.add_task(f"Inverting into {name}", total=config.steps, completed=state.step, note="")
    last = time.monotonic()

    def save(now: State) -> None:
        text = torch.tensor(list(json.dumps(curve).encode()), dtype=torch.uint8)
        write_tensors(checkpoint, {**now.tensors(), "window": torch.tensor(window, dtype=torch.float64), "curve": text})
        run.checkpoint()

    def on_step(now: State, loss: float) -> None:
        nonlocal last
        window.append(loss)
        if now.step % 25 == 0 or now.step == config.steps:
            curve.append([now.step, sum(window) / len(window)])
            window.clear()
            progress.update(task, note=f"loss {curve[-1][1]:.4f}")
        progress.update(task, completed=now.step)
        if time.monotonic() - last > config.checkpoint_seconds or now.step == config.steps:
            save(now)
            last = time.monotonic()

    rows = learn_token(
        model,
        latents,
        weights,
        state,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=study.config.seed,
        stage="invert",
        index=number,
        kind=study.config.concept.kind,
        on_step=on_step,
    )
    write_tensors(run.path(file), {name: rows}, {"format": "pt", "concept": study.config.concept.name, "model_hash": model.hash})
    return curve


def _preview(model: Model, tokens: dict[str, Tensor], study: Workspace, run: StageRun) -> None:
    """preview.png: one row of pictures per token, drawn by the original model."""
    from PIL import Image

    config = study.config.generate
    rows, c_0 = [], encode_prompts(model, [""])
    for number, name in enumerate(tokens):
        c = encode_prompts(model, [name] * PREVIEWS, tokens)
        seeds = [derive(study.config.seed, "token preview", number, i) for i in range(PREVIEWS)]
        rows.append(to_pil(decode(model, sample_latents(model, c, c_0, seeds, config.steps, config.guidance_scale))))
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * PREVIEWS, height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * width, y * height))
    save_picture(sheet, run.path("preview.png"))
