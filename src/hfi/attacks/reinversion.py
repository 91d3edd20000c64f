"""Re-inversion: learn fresh tokens against the erased model (Pham et al. 2023, arXiv 2308.01508, attack ESD so)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.attacks.found import Found, Run, Target
from hfi.config import Invert
from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts
from hfi.inversion.learn import TEMPLATES, Lesson, fresh_state, initial_rows, learn_with_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hfi.config import ReinversionAttack
    from hfi.workspace import StageRun

TOKEN = "<again>"


def attack(model: Model, target: Target, config: ReinversionAttack, seed: int, run: Run, vectors: int = 1) -> Found:
    """One token of `vectors` rows learned from all targets together; found are the token alone and in the templates it learned in."""
    invert = Invert(vectors=vectors, **config.model_dump(exclude={"vectors"}), checkpoint_seconds=max(run.every, 1e-9))
    with tempfile.TemporaryDirectory() as scratch:
        rows = reinvert(
            model,
            target.latents,
            range(1),
            run,
            run.file or Path(scratch, "checkpoint.safetensors"),
            invert,
            config.steps,
            seed,
            target.kind,
            lambda done, loss: run.on_progress(done, config.steps, f"loss {loss:.4f}" if loss == loss else ""),
        )
    texts = tuple(dict.fromkeys(template.format(TOKEN) for template in TEMPLATES[target.kind]))
    c = encode_prompts(model, texts, {TOKEN: rows[0]})
    places = tuple(range(len(texts)))
    return Found(c, ("",) * len(texts), places, (True,) * len(texts), {"unet": config.steps * config.batch_size}, run.seconds)


def reinvert(
    model: Model,
    latents: Tensor | Sequence[Tensor],
    indices: range,
    run: StageRun | Run,
    checkpoint: Path,
    config: Invert,
    steps: int,
    seed: int,
    kind: str,
    on_progress: Callable[[int, float], None],
) -> list[Tensor]:
    """Tokens (n, D) that make the model, with the weights it has now, draw the given pictures.

    Args:
        latents: z_0 of the original model's concept pictures (N, C, h, w), or of each attack's own; in a score they must not be those
            that were inverted before.
        indices: which attacks of several; each starts from rows of its own.
        checkpoint: where an interrupted attack goes on from.
        config: settings of the inversion; `steps` in place of its own.
    """
    pictures = [latents] * len(indices) if isinstance(latents, Tensor) else latents
    starts = (fresh_state(initial_rows(model, config.vectors, config.initial_word, seed, "re-inversion", index)) for index in indices)
    lessons = [Lesson(index, start, own, torch.ones(len(own))) for index, start, own in zip(indices, starts, pictures, strict=True)]
    return learn_with_checkpoints(model, lessons, run, checkpoint, config, steps, seed, "re-inversion", kind, on_progress)[0]
