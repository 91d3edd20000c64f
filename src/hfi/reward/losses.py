"""The reward model's losses (METHOD section 3; HFI, arXiv 2407.21032). Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def mse(r: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_MSE(psi) = E (r_psi(x) - y)^2 over binary judgements.

    Args:
        r: rewards (N,).
        y: soft label of each picture (N,), in [0, 1]: the share of "present" among its judgements, or the chance that the concept is there.
        weight: what each picture counts (N,), from 0 up. With the number of judgements and shares of them, the value is the mean
            over judgements, up to a constant that does not depend on r (the variance of the answers on one picture).
    """
    error = (r - y).square()
    return error.mean() if weight is None else (weight * error).sum() / weight.sum()


def bradley_terry(r_plus: Tensor, r_minus: Tensor, ranking_size: int, weight: Tensor | None = None) -> Tensor:
    """L_NLL(psi) = -(1/M^2) E log sigmoid(r_psi(x+) - r_psi(x-)) over ordered pairs.

    Args:
        r_plus: rewards (P,) of the picture that was put first; r_minus: (P,) of the other.
        ranking_size: M, pictures per ranking.
        weight: what each pair counts (P,), from 0 up.
    """
    likelihood = torch.nn.functional.logsigmoid(r_plus - r_minus)
    mean = likelihood.mean() if weight is None else (weight * likelihood).sum() / weight.sum()
    return -mean / ranking_size**2
