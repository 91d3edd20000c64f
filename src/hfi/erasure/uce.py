"""Unified Concept Editing (UCE, Gandikota et al. 2024, arXiv 2308.14761): keys and values of cross-attention in closed form (equation 7).

    min over W of  sum_s a ||W c_s - W_original c_target||^2 + sum_k b ||W c_k - W_original c_k||^2 + lambda ||W - W_original||^2

c is the text state of a prompt's last word, as in the authors' present script, whose defaults (a = b = 1, lambda = 0.5) these are; their
earlier one also edits every state after it and weighs what is preserved b = 0.1.

What differs: the preserved concepts are the study's benign prompts, not a list that somebody thought of; the target is what is left of
a prompt without the concept, the empty prompt for a word or token alone; every template counts as a prompt, and of several concepts each
counts as much as any other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.families import require
from hfi.diffusion.model import Model
from hfi.diffusion.networks import token_rows
from hfi.erasure.closed_form import closed_form
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta
from hfi.erasure.loop import Benign
from hfi.erasure.trainable import keys_and_values


@torch.no_grad()
def edit_uce(
    model: Model,
    conditions: Conditions,
    c_0: Tensor,
    stored: Tensor,
    benign: Benign,
    config: Erase,
    seed: int,
    resume: dict[str, Tensor] | None = None,
    **hooks: Callable,
) -> Delta:
    """The edit in a second, without steps: only `conditions` and `benign` are looked at."""
    require(model.family, "closed_form", "erase.method")
    settings, trained = config.uce, keys_and_values(model.network)
    last = settings.states == "last"
    # keys and values never read the pooled state that SDXL's conditions end with
    rows = lambda c: token_rows(model, c) if len(c) else c  # noqa: E731
    forgotten, read = (conditions.end, conditions.reading_end) if last else (rows(conditions.c), rows(conditions.reading))
    kept = benign.end if last and benign.end is not None else rows(benign.c)
    count, held = (forgotten.numel() // forgotten.shape[-1], kept.numel() // forgotten.shape[-1])
    weight = settings.erase_scale * count  # closed_form takes means, the paper sums
    strengths = settings.preserve_scale * held / weight, settings.ridge / weight
    fresh = closed_form(trained, forgotten, read, kept, *strengths, importance=conditions.weights())
    return Delta({name: (value - trained[name]).float().cpu() for name, value in fresh.items()})
