"""Flow matching in the noise convention of everything else: z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) eps.

Rectified flow (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206) has x_s = (1 - s) x_0 + s eps, and its
network predicts v = eps - x_0. Divided by n = sqrt((1 - s)^2 + s^2) that state has unit variance, so

    z_t = x_s / n,    sqrt(alpha_bar) = (1 - s) / n,    eps = x_s + (1 - s) v,

and a DDIM step of eta 0 is an Euler step of the flow's ODE (both follow a straight line between x_0 and eps; a law tests it). All
the rest of the code (noising, losses, SDD's states) sees eps alone. A loss on eps weighs v by (1 - s)^2; no paper says how a flow
model is to be erased, so that weight is ours.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

LEAST_SIGNAL = 2.0**-12  # sqrt(alpha_bar) at pure noise, as in diffusers' zero-SNR schedules: z_0 must stay in eps and z_t


def flow_sigmas(config, image_tokens: int) -> Tensor:
    """s of each timestep (T,), rising to 1: the scheduler's own grid with the model's shift, at its native resolution.

    Args:
        config: of a FlowMatchEulerDiscreteScheduler.
        image_tokens: patches of a picture, which FLUX's dynamic shift depends on.
    """
    steps = config.num_train_timesteps
    u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    if not config.get("use_dynamic_shifting", False):
        shift = config.get("shift", 1.0)
        return (shift * u / (1 + (shift - 1) * u)).float()
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (image_tokens - few) / (many - few)
    pull = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
    return (pull / (pull + (1 / u - 1))).float()


def signal(sigma: Tensor) -> Tensor:
    """1 - s, no smaller than LEAST_SIGNAL."""
    return (1 - sigma).clamp(min=LEAST_SIGNAL)


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """The cumulative signal level of each s."""
    kept = signal(sigma.double())
    return (kept**2 / (kept**2 + sigma.double() ** 2)).float()


def to_flow(z_t: Tensor, sigma: Tensor) -> Tensor:
    """x_s of z_t; sigma (B, 1, 1, 1)."""
    return z_t * (signal(sigma) ** 2 + sigma**2).sqrt()


def eps_of_flow(v: Tensor, x_s: Tensor, sigma: Tensor) -> Tensor:
    """eps from the network's v at x_s; sigma (B, 1, 1, 1)."""
    kept = signal(sigma)
    return (x_s + kept * v) / (kept + sigma)


class Trailing:
    """DDIM steps of eta 0 from pure noise to the clean end, for schedules that reach pure noise (Lin et al., arXiv 2305.08891).

    The timesteps are T - k T / steps, less one; each step goes to the next of them, the last to alpha_bar 1.
    """

    def __init__(self, alpha_bar: Tensor, steps: int):
        count = len(alpha_bar)
        self.timesteps = (count - torch.arange(steps) * count / steps).round().long() - 1
        self._level = {int(t): float(alpha_bar[t]) for t in self.timesteps}
        self._next = dict(zip(self._level, [*list(self._level.values())[1:], 1.0], strict=True))

    def step(self, eps: Tensor, t: int, z_t: Tensor, eta: float = 0.0) -> SimpleNamespace:
        """z at the next timestep, as `prev_sample`."""
        level, after = self._level[t], self._next[t]
        z_0 = (z_t - math.sqrt(1 - level) * eps) / math.sqrt(level)
        return SimpleNamespace(prev_sample=math.sqrt(after) * z_0 + math.sqrt(1 - after) * eps)
