"""Safe self-distillation (SDD, Kim et al., arXiv 2307.05977) driven by soft tokens (HFI, arXiv 2407.21032).

Only cross-attention learns; under c_s the student is taught what it predicts itself under the empty prompt, on states that its
moving average draws, and that average is what is kept.

What differs from the public SDD code, on purpose: z_t is really the state at t (that code ran all steps and trained the
clean end), the average decays constantly and covers the trained tensors only, texts are encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.families import require
from hfi.diffusion.lora import low_rank, weight_delta
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.networks import token_rows
from hfi.diffusion.perturbed import predict_perturbed
from hfi.erasure.closed_form import closed_form
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta
from hfi.erasure.latents import Batch
from hfi.erasure.loop import Benign, Target, train
from hfi.erasure.objective import sharpened, steered_target
from hfi.erasure.trainable import cross_attention, further_layers
from hfi.errors import HFIError


def train_sdd(
    model: Model,
    conditions: Conditions,
    c_0: Tensor,
    stored: Tensor,
    benign: Benign,
    config: Erase,
    seed: int,
    resume: dict[str, Tensor] | None = None,
    *,
    begin: Mapping[str, Tensor] | None = None,
    layers: str = "cross_attention",
    **hooks: Callable,
) -> Delta:
    """Fine-tune cross-attention, and what `trainable.further_layers` names.

    `stored`: latents of flagged pictures; the other arguments and the hooks are those of `loop.train`.
    """
    for name in ("start", "finish"):
        if getattr(config, name) == "closed_form":
            require(model.family, "closed_form", f"erase.{name}")
            if config.trainable == "lora":
                raise HFIError("goes with erase.trainable=cross_attention", field=f"erase.{name}", remedy=f"leave out erase.{name}")
    if config.pag_scale:
        require(model.family, "perturbed_attention", "erase.pag_scale", remedy="set it to 0")
    trained = cross_attention(model.network)
    others = further_layers(model.network, layers)
    original = {name: parameter.data for name, parameter in trained.items()}
    parts = (conditions, c_0, stored, benign, config, seed, resume)
    if config.trainable == "lora":
        return Delta(_low_rank(model, trained, parts, config, seed, hooks))

    def edited(weights: Mapping[str, Tensor], preservation: float) -> dict[str, Tensor]:
        c_s, reading = (token_rows(model, c) for c in (conditions.c, conditions.reading))
        kept = token_rows(model, benign.c) if len(benign.c) else benign.c
        return closed_form(weights, c_s, reading, kept, preservation, importance=conditions.weights())

    if begin is None and config.start == "closed_form":
        begin = edited(original, config.start_preservation)
    target = own_prediction(model, conditions, config.negative_guidance, config.pag_scale)
    change = train(model, trained | others, target, *parts, snapshots=config.snapshot_steps(), begin=begin, **hooks)
    if config.finish == "closed_form":
        left = {name: weight + change[name].to(weight) for name, weight in original.items()}
        last = edited(left, config.finish_preservation)
        change |= {name: (weight - original[name]).float().cpu() for name, weight in last.items()}
    return Delta(change)


def _low_rank(model: Model, trained: Mapping, parts: tuple, config: Erase, seed: int, hooks: dict[str, Callable]) -> dict[str, Tensor]:
    """The change of the weights that low-rank adapters on `trained` learn; student and teacher are adapters."""
    with low_rank(model.network, trained, config.lora_rank, config.lora_alpha, seed) as adapters:
        start = {name: parameter.detach().float().cpu().clone() for name, parameter in adapters.items()}

        def as_weights(change: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return weight_delta({name: start[name] + change[name] for name in start}, config.lora_rank, config.lora_alpha)

        if on_snapshot := hooks.get("on_snapshot"):
            hooks = {**hooks, "on_snapshot": lambda done, change: on_snapshot(done, as_weights(change))}
        target = own_prediction(model, parts[0], config.negative_guidance, config.pag_scale)
        return as_weights(train(model, adapters, target, *parts, snapshots=config.snapshot_steps(), **hooks))


def own_prediction(model: Model, conditions: Conditions, eta: float = 0.0, pag_scale: float = 0.0) -> Target:
    """What the student itself predicts under each condition's target: the empty prompt, in the paper.

    Args:
        eta: steers it away from what the concept adds to the rest of its prompt: to "in the style of noto" where that is "a dagger in
            the style of noto", so that no style is steered away from.
        pag_scale: sharpens it, away from what the student predicts without self-attention.
    """

    def wanted(batch: Batch, frozen: Tensor) -> Tensor:
        at = batch.z_t, batch.t, conditions.target[batch.condition]
        own = sharpened(*predict_perturbed(model, *at), pag_scale) if pag_scale else predict_noise(model, *at)
        return steered_target(own, *frozen.chunk(2), eta) if eta else own

    def rest_and_concept(batch: Batch) -> Tensor:
        concept = batch.condition if batch.steered is None else batch.steered
        return torch.cat([conditions.reading[concept], conditions.c[concept]])

    return Target(wanted, rest_and_concept if eta else None)
