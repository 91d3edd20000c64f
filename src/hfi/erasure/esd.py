"""Erased Stable Diffusion (ESD, Gandikota et al. 2023, arXiv 2303.07345): away from the concept's prediction, past the empty prompt's.

    min || eps_theta(z_t, t, c_s) - (eps_original(c_0) - eta (eps_original(c_s) - eps_original(c_0))) ||^2

z_t is a state of the student's own guided run under c_s. esd-x trains cross-attention, esd-u the other linear and convolution layers.

What differs from the public code: t is the drawn state's own; c_s may be soft tokens, several concepts and templates; a term
that keeps benign prompts may be added (`erase.esd.preservation`, ours, off). That code's newer defaults (200 steps, learning rate 5e-5,
eta 2, states of the original model) are not the paper's and not these.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.model import Model
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta
from hfi.erasure.loop import Benign, Target, train
from hfi.erasure.objective import esd_target
from hfi.erasure.trainable import cross_attention, other_layers


def train_esd(
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
    """Fine-tune the layers that `erase.esd.layers` names; arguments and hooks are those of `loop.train`."""
    trained = (cross_attention if config.esd.layers == "esd-x" else other_layers)(model.network)

    target = Target(
        lambda batch, frozen: esd_target(*frozen.chunk(2), config.esd.negative_guidance),
        lambda batch: torch.cat([c_0.expand_as(c_s := conditions.c[batch.condition]), c_s]),
    )
    return Delta(
        train(
            model, trained, target, conditions, c_0, stored, benign, config.esd, seed, resume, snapshots=config.snapshot_steps(), **hooks
        )
    )
