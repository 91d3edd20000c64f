"""Stage 6: soft tokens -> a delta that makes the model forget them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.model import Model, save_pipeline
from hfi.diffusion.text import encode_prompts
from hfi.erasure.conditions import Flagged, build_conditions
from hfi.erasure.delta import applied, load_delta, save_delta
from hfi.erasure.sdd import Benign, train_sdd
from hfi.errors import HFIError
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace, read_tensors, write_bytes, write_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Erased:
    """What stage 6 leaves: the delta, by parameter name."""

    folder: Path
    delta: dict[str, Tensor]

    @classmethod
    def load(cls, study: Workspace) -> Erased:
        """Read a finished stage; raises HFIError when it is damaged."""
        return cls(study.path("erase"), load_delta(study.path("erase", "delta.safetensors")))


def erase(model: Model, images: Generated, reward: RewardResult, tokens: Inverted, study: Workspace) -> Erased:
    """Erase the study's concept, and those of `erase.also`, in one run; continues from its own checkpoint."""
    if study.is_done("erase"):
        return Erased.load(study)
    config = study.config.erase
    others = [_open_other(path) for path in config.also]
    benign = benign_material(model, images)
    if config.preservation and not len(benign.latents):
        raise HFIError(
            "preservation needs benign pictures, and the study has none",
            file=study.root,
            field="erase.preservation",
            remedy="set generate.benign_share above 0 and draw again, or set erase.preservation to 0",
        )
    with study.stage("erase") as run, bar() as progress:
        rows, prompts, stored = material([(images, reward, tokens), *others])
        conditions = build_conditions(model, rows, config.templates, prompts, config.flagged_prompts)
        c_0 = encode_prompts(model, [""])
        checkpoint = run.path("checkpoint.safetensors")
        saved = read_tensors(checkpoint) if checkpoint.exists() else None
        log = json.loads(bytes(saved.pop("log").tolist()).decode()) if saved else []
        task = progress.add_task("Erasing", total=config.steps, completed=int(saved["done"]) if saved else 0, note="")
        last = time.monotonic()

        def on_log(row: dict) -> None:
            log.append({**row, "seconds": round(run.seconds, 2)})
            progress.update(task, note=f"loss {row['loss']:.4f}")

        def on_step(done: int, state) -> None:
            nonlocal last
            progress.update(task, completed=done)
            if time.monotonic() - last > config.checkpoint_seconds:
                text = torch.tensor(list(json.dumps(log).encode()), dtype=torch.uint8)
                write_tensors(checkpoint, {**state(), "log": text})
                run.checkpoint()
                last = time.monotonic()

        delta = train_sdd(model, conditions, c_0, stored, benign, config, study.config.seed, saved, on_log, on_step)
        save_delta(run.path("delta.safetensors"), delta, model, study.config.concept.name)
        write_bytes(run.path("log.jsonl"), "".join(json.dumps(row) + "\n" for row in log).encode())
        if config.save_pipeline:
            with applied(model, delta):
                save_pipeline(model, run.path("pipeline"))
        checkpoint.unlink(missing_ok=True)
        run.facts.update(
            tokens=list(rows),
            conditions=len(conditions.texts),
            trained_tensors=len(delta),
            trained_parameters=sum(value.numel() for value in delta.values()),
            latents=config.latents,
        )
    return Erased.load(study)


def material(parts: Sequence[tuple[Generated, RewardResult, Inverted]]) -> tuple[dict[str, Tensor], list[Flagged], Tensor]:
    """Tokens, prompts of flagged pictures and latents of the top-K, over one study or several."""
    rows: dict[str, Tensor] = {}
    prompts, latents = [], []
    for number, (images, reward, tokens) in enumerate(parts):
        for name, value in tokens.tokens.items():
            rows[name if name not in rows else f"<{number}-{name[1:]}"] = value
        by_id = {image.id: image for image in images.images}
        chosen = [by_id[picture.image_id] for picture in reward.selected]
        prompts += [Flagged(image.prompt, image.without) for image in chosen if image.prompt]  # brought pictures may have none
        latents.append(images.latents()[[image.index for image in chosen]])
    return rows, prompts, torch.cat(latents)


def benign_material(model: Model, images: Generated) -> Benign:
    """Feedback pictures whose prompts do not ask for the concept, with those prompts encoded."""
    benign = [image for image in images.images if image.purpose == "benign"]
    latents = images.latents()[[image.index for image in benign]]
    return Benign(latents, encode_prompts(model, [image.prompt for image in benign]) if benign else torch.empty(0))


def _open_other(path: Path) -> tuple[Generated, RewardResult, Inverted]:
    other = Workspace.open(path)
    return Generated.load(other), RewardResult.load(other), Inverted.load(other)
