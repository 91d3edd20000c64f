"""The inversion loss: pure functions of tensors."""

from __future__ import annotations

from torch import Tensor


def weighted_denoising_loss(eps: Tensor, predicted: Tensor, weight: Tensor) -> Tensor:
    """mean_b r_b ||eps_b - eps_theta(z_t, t, c(v))_b||^2 (HFI's inversion objective as a denoising loss).

    With equal weights of mean 1 it is plain textual inversion (Gal et al. 2022, arXiv 2208.01618).

    Args:
        eps: noise that was added (B, C, h, w).
        predicted: the network's prediction, same shape.
        weight: reward weights (B,), >= 0 and of mean 1 over the top-K.
    """
    return (weight * (eps - predicted).square().flatten(1).mean(1)).mean()
