"""Re-inversion: learn fresh tokens against the erased model (Pham et al. 2023, arXiv 2308.01508, attack ESD so)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.inversion.learn import Lesson, fresh_state, initial_rows, learn_with_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from hfi.config import Invert
    from hfi.workspace import StageRun


def reinvert(
    model: Model,
    latents: Tensor,
    indices: range,
    run: StageRun,
    checkpoint: Path,
    config: Invert,
    steps: int,
    seed: int,
    kind: str,
    on_progress: Callable[[int, float], None],
) -> list[Tensor]:
    """Tokens (n, D) that make the model, with the weights it has now, draw the given pictures.

    Args:
        latents: z_0 of the original model's concept pictures (N, C, h, w); they must not be those that were inverted before.
        indices: which attacks of several; each starts from rows of its own.
        checkpoint: where an interrupted attack goes on from.
        config: settings of the inversion; `steps` in place of its own.
    """
    weights = torch.ones(len(latents))
    starts = (fresh_state(initial_rows(model, config.vectors, config.initial_word, seed, "re-inversion", index)) for index in indices)
    lessons = [Lesson(index, start, latents, weights) for index, start in zip(indices, starts, strict=True)]
    return learn_with_checkpoints(model, lessons, run, checkpoint, config, steps, seed, "re-inversion", kind, on_progress)[0]
