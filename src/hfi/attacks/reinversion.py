"""Re-inversion: learn a fresh token against the erased model (Pham et al. 2023, arXiv 2308.01508, attack ESD so)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.inversion.learn import fresh_state, initial_rows, learn_token


def reinvert(
    model: Model,
    latents: Tensor,
    vectors: int,
    steps: int,
    seed: int,
    index: int,
    learning_rate: float,
    batch_size: int,
    initial_word: str = "",
    kind: str = "harm",
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """A token (n, D) that makes the model, with the weights it has now, draw the given pictures.

    Args:
        latents: z_0 of the original model's concept pictures (N, C, h, w); they must not be those that were inverted before.
        index: which attack of several; each starts from rows of its own.
    """
    rows = initial_rows(model, vectors, initial_word, seed, "re-inversion", index)
    return learn_token(
        model,
        latents,
        torch.ones(len(latents)),
        fresh_state(rows),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.0,
        seed=seed,
        stage="re-inversion",
        index=index,
        kind=kind,
        on_step=(lambda *_: on_step()) if on_step else None,
    )
