"""Concept Ablation, model-based (Kumari et al. 2023, arXiv 2303.13516): the concept is drawn as an anchor concept is.

    min || eps_theta(z_t, t, c_s) - sg eps_theta(z_t, t, c_anchor) ||^2      (with w_t = 1)

z_t is a noised picture that the original model drew of the anchor, t is drawn evenly, keys and values of cross-attention learn.

What differs from the paper: its anchor is a broader word chosen by hand ("cat" for a certain cat) in 200 prompts that a language
model wrote; here it is `erase.ca.anchor` in the templates, by default the empty prompt, since nobody has to think of a word. The anchor's
pictures are drawn with eta 0, and each is met under any condition, not alone under the one whose anchor drew it. Its optional prior term
is not here; ours, on benign prompts, may be added (`erase.ca.preservation`, off).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hfi.config import ConceptAblation, Erase
from hfi.diffusion.model import Model
from hfi.diffusion.sampling import sample_latents
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta
from hfi.erasure.loop import Benign, train
from hfi.erasure.sdd import own_prediction
from hfi.erasure.trainable import keys_and_values
from hfi.seeds import derive


def train_ca(
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
    """Fine-tune keys and values towards the conditions' targets; arguments and hooks are those of `loop.train`, `stored` is not used."""
    pictures = anchor_latents(model, conditions.target[: conditions.tokens], c_0, config.ca, seed)
    trained, target = keys_and_values(model.network), own_prediction(model, conditions)
    return Delta(
        train(
            model, trained, target, conditions, c_0, pictures, benign, config.ca, seed, resume, snapshots=config.snapshot_steps(), **hooks
        )
    )


def anchor_latents(model: Model, anchors: Tensor, c_0: Tensor, config: ConceptAblation, seed: int) -> Tensor:
    """z_0 (pictures, C, h, w) that the model draws under the anchors (n, L, D) in turn; the same at every call."""
    c = anchors[torch.arange(config.pictures) % len(anchors)]
    seeds = [derive(seed, "anchor", number) for number in range(config.pictures)]
    size = config.batch_size  # whoever lowers it is short of memory here as well
    drawn = [
        sample_latents(model, c[i : i + size], c_0, seeds[i : i + size], config.sampling_steps, config.guidance_scale)
        for i in range(0, config.pictures, size)
    ]
    return torch.cat(drawn).cpu()
