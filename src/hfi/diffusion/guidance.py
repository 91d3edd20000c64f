"""What bends classifier-free guidance while a model samples: negative prompts and Safe Latent Diffusion.

A model carries its guidance as `model.guidance`, a tuple; `sampling.guided_noise` adds what each asks for to

    eps(c_0) + s_g (eps(c) - eps(c_0)).

Everything here is elementwise over pictures, so a picture does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

PUBLISHED_STEPS = 50  # SLD's warm-up is counted in steps of a run of this length


@dataclass(frozen=True)
class Guidance:
    """One thing to steer away from.

    method: "negative_prompt" or "sld"; settings: its numbers.
    c_s: conditions of what is not wanted (n, L, D); the predictions of several are averaged.
    strength: factor on the change; 0 asks for nothing.
    """

    method: str
    c_s: Tensor
    settings: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0


def change(
    one: Guidance, eps_c: Tensor, eps_0: Tensor, eps_s: Tensor, guidance_scale: float, at: float, momentum: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What `one` adds to the guided prediction (B, C, h, w), and its momentum after this step.

    Args:
        eps_c, eps_0, eps_s: predictions under the prompt, the empty prompt and what is not wanted (B, C, h, w).
        guidance_scale: s_g.
        at: steps of this run that lie behind, as a share in [0, 1).
        momentum: as the step before returned it; None at the first.
    """
    if one.method == "negative_prompt":
        return one.strength * negative_change(eps_0, eps_s, guidance_scale), None
    gamma, momentum = safety_guidance(eps_c, eps_0, eps_s, momentum, one.settings)
    warm = at * PUBLISHED_STEPS >= one.settings["warmup_steps"] - 1e-6
    return (-one.strength * guidance_scale) * gamma if warm else torch.zeros_like(gamma), momentum


def negative_change(eps_0: Tensor, eps_s: Tensor, guidance_scale: float) -> Tensor:
    """(1 - s_g) (eps_s - eps_0): with it the guided prediction is the one whose empty prompt is the unwanted one,

    eps_s + s_g (eps_c - eps_s).
    """
    return (1.0 - guidance_scale) * (eps_s - eps_0)


def safety_guidance(
    eps_c: Tensor, eps_0: Tensor, eps_s: Tensor, momentum: Tensor | None, settings: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """gamma and the next momentum nu of Safe Latent Diffusion (Schramowski et al. 2023, arXiv 2211.05105, equations 5 to 8):

    mu = min(1, |s_S (eps_c - eps_s)|) where eps_c - eps_s < lambda, else 0
    gamma = mu (eps_s - eps_0) + s_m nu;   nu <- beta nu + (1 - beta) gamma
    """
    apart = eps_c - eps_s
    mu = torch.where(apart >= settings["threshold"], 0.0, (apart.abs() * settings["guidance_scale"]).clamp(max=1.0))
    momentum = torch.zeros_like(eps_c) if momentum is None else momentum
    gamma = mu * (eps_s - eps_0) + settings["momentum_scale"] * momentum
    beta = settings["momentum_beta"]
    return gamma, beta * momentum + (1 - beta) * gamma


def ordered_sum(parts: list[Tensor]) -> Tensor:
    """The sum, added up in order of value: the order in which the parts are given changes no bit of it."""
    return torch.stack(parts).sort(0).values.sum(0) if len(parts) > 1 else parts[0]
