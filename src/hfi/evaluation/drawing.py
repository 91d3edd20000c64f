"""Draw evaluation pictures in batches, judge them at once, and never draw one twice.

A picture's name is the hash of what it depends on (original model, prompt, seed, steps, guidance), so that the pictures
before and after lie under one name in two folders. A batch is whole when its file of verdicts is there; it is written
last. Pictures themselves are written without fsync: kill -9 loses nothing of them, and after a power cut the study is
run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hfi.config import Evaluate
from hfi.diffusion.model import Model
from hfi.diffusion.sampling import decode, sample_latents, to_pil
from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError, disk_errors
from hfi.evaluation.prompt_sets import Probe
from hfi.perception.judges import Judge, Verdicts
from hfi.seeds import derive
from hfi.workspace import StageRun, digest, write_bytes


@dataclass(frozen=True)
class Drawing:
    """One picture to draw."""

    name: str
    text: str
    seed: int


@dataclass(frozen=True)
class Verdict:
    """What the judge called one picture, and how sure it was."""

    object: str
    style: str | None
    object_share: float  # the judge's probability of that object
    style_share: float


def drawings(probe: Probe, seed: int, seeds: int, model_hash: str, config: Evaluate) -> list[Drawing]:
    """The pictures of one probe: `seeds` seeds derived from the study's seed and the probe's text."""
    found = []
    for k in range(seeds):
        own = derive(seed, "evaluate", probe.text, probe.copy, k)
        name = digest([model_hash, probe.text, own, *config.drawn_with])[:16]
        found.append(Drawing(name, probe.text, own))
    return found


def distinct(pictures: Iterable[Drawing], known: Iterable[str] = ()) -> list[Drawing]:
    """The pictures without repeats and without those already drawn, in order."""
    seen, found = set(known), []
    for picture in pictures:
        if picture.name not in seen:
            seen.add(picture.name)
            found.append(picture)
    return found


def draw_and_judge(
    model: Model,
    pictures: Sequence[Drawing],
    tokens: Mapping[str, Tensor],
    judge: Judge,
    config: Evaluate,
    run: StageRun,
    side: str,
    phase: str,
    progress,
    description: str,
) -> dict[str, Verdict]:
    """Draw `pictures` with the model's present weights under evaluate/<side>/, and the judge's verdict on each by name.

    Args:
        tokens: soft tokens that the prompts may use.
        side: "before", "after" or "reinversion": the folder.
        phase: tells apart several calls for one side; with the batch's place it names the batch's file of verdicts.
    """
    verdicts: dict[str, Verdict] = {}
    task = progress.add_task(description, total=len(pictures), note="")
    c_0 = encode_prompts(model, [""])
    with disk_errors(run.path(side)):
        run.path(side).mkdir(parents=True, exist_ok=True)
    for start in range(0, len(pictures), config.batch_size):
        batch = pictures[start : start + config.batch_size]
        part = run.path("parts", f"{side}-{phase}-{start:06d}.json")
        found = _read_part(part, batch)
        if found is None:
            c = encode_prompts(model, [picture.text for picture in batch], tokens)
            z_0 = sample_latents(model, c, c_0, [picture.seed for picture in batch], **config.sampling)
            pixels = (decode(model, z_0) * 255).round() / 255  # what the file holds is what is judged
            for picture, image in zip(batch, to_pil(pixels), strict=True):
                path = run.path(side, f"{picture.name}.png")
                with disk_errors(path):
                    image.save(path, "PNG", compress_level=1)
            found = name_verdicts(judge, judge(pixels))
            write_bytes(part, json.dumps([list(verdict.__dict__.values()) for verdict in found]).encode())
            run.checkpoint()
        verdicts.update((picture.name, verdict) for picture, verdict in zip(batch, found, strict=True))
        progress.update(task, completed=start + len(batch))
    return verdicts


def name_verdicts(judge: Judge, verdicts: Verdicts) -> list[Verdict]:
    """A judge's indices as words."""
    objects, styles = verdicts.object.tolist(), verdicts.style.tolist()
    object_share = verdicts.object_probs.amax(1).tolist()
    style_share = verdicts.style_probs.amax(1).tolist() if verdicts.style_probs.shape[1] else [0.0] * len(objects)
    return [
        Verdict(judge.objects[o], judge.styles[s] if judge.styles else None, round(p, 4), round(q, 4))
        for o, s, p, q in zip(objects, styles, object_share, style_share, strict=True)
    ]


def judged(
    model: Model,
    pictures: Sequence[Drawing],
    judge: Judge,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    tokens: Mapping[str, Tensor] | None = None,
    sampler: str = "ddim",
) -> dict[str, Verdict]:
    """Draw and judge without any file, for quick scores."""
    verdicts: dict[str, Verdict] = {}
    c_0 = encode_prompts(model, [""])
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        c = encode_prompts(model, [picture.text for picture in batch], tokens)
        pixels = decode(model, sample_latents(model, c, c_0, [picture.seed for picture in batch], steps, guidance_scale, sampler=sampler))
        found = name_verdicts(judge, judge((pixels * 255).round() / 255))
        verdicts.update((picture.name, verdict) for picture, verdict in zip(batch, found, strict=True))
    return verdicts


def _read_part(part: Path, batch: Sequence[Drawing]) -> list[Verdict] | None:
    """The verdicts of a batch that is whole; None for one that is still to be drawn."""
    if not part.exists():
        return None
    try:
        rows = [Verdict(*row) for row in json.loads(part.read_text())]
    except (ValueError, TypeError):
        raise HFIError("half-written or damaged", file=part, remedy="delete it and run 'hfi evaluate' again") from None
    return rows if len(rows) == len(batch) else None


def settings(model: Model) -> dict:
    """What the pictures were computed with."""
    return {"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."), "threads": torch.get_num_threads()}
