"""The losses, targets and timestep law of the erasers: pure functions of tensors."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor


def sdd_loss(eps_s: Tensor, eps_0: Tensor) -> Tensor:
    """||eps_theta(z_t, t, c_s) - sg(eps_theta(z_t, t, c_0))||^2, mean over everything (SDD equation 6, arXiv 2307.05977).

    Args:
        eps_s: prediction under the concept (B, C, h, w), with gradient.
        eps_0: prediction under the empty prompt, same shape; the gradient is stopped here.
    """
    return (eps_s - eps_0.detach()).square().mean()


def esd_target(eps_0: Tensor, eps_s: Tensor, eta: float) -> Tensor:
    """eps(c_0) - eta (eps(c_s) - eps(c_0)), both by the original model (ESD, arXiv 2303.07345)."""
    return eps_0 - eta * (eps_s - eps_0)


def steered_target(own: Tensor, eps_0: Tensor, eps_s: Tensor, eta: float) -> Tensor:
    """eps_theta(c_0) - eta (eps(c_s) - eps(rest)): its own prediction, moved off the concept as the original has it (ours).

    SDD's target draws the concept as often as pictures of no prompt show it; eta > 0 goes below that. eta = 0 is SDD.

    Args:
        own: the student's prediction under the target condition (B, C, h, w).
        eps_0, eps_s: the original model's under what is left of the prompt without the concept, and under the concept, same shape.
    """
    return own - eta * (eps_s - eps_0)


def sharpened(eps: Tensor, perturbed: Tensor, scale: float) -> Tensor:
    """eps + s (eps - eps^): away from what the network predicts where its self-attention sees each place alone.

    The rule is that of perturbed-attention guidance (PAG, arXiv 2403.17377, a sampler); that it bends what an erased prompt learns is ours.

    Args:
        eps, perturbed: predictions at the same states under the same conditions (B, C, h, w).
    """
    return eps + scale * (eps - perturbed)


def preservation_loss(eps: Tensor, eps_original: Tensor) -> Tensor:
    """||eps_theta(z_t, t, c) - eps_original(z_t, t, c)||^2 on benign prompts (ours, not the paper's)."""
    return (eps - eps_original.detach()).square().mean()


def beta_fractions(count: int, beta: tuple[float, float], rng: numpy.random.Generator) -> Tensor:
    """`count` draws of Beta(a, b) in [0, 1): where on the schedule a z_t lies, 0 being the clean end."""
    return torch.from_numpy(rng.beta(*beta, size=count)).clamp(max=1 - 1e-9)


def drift(now: Tensor, original: Tensor) -> float:
    """||now - original||^2 / ||original||^2: how far predictions have moved, 0 for not at all."""
    return float((now - original).square().sum() / original.square().sum())
