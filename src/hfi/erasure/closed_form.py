"""A closed-form edit of cross-attention: the concept's words are read as their targets, benign words as ever.

Unified Concept Editing (UCE, Gandikota et al. 2024, arXiv 2308.14761, equation 7): the eraser of `erasure/uce.py`, and where SDD
may start (ours: `erase.start`): gradient steps then mend what one linear map cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RIDGE = 1e-3  # of the mean square of the states; keeps the matrix invertible where no text points


def closed_form(
    weights: Mapping[str, Tensor],
    c_s: Tensor,
    target: Tensor,
    kept: Tensor,
    preservation: float = 1.0,
    ridge: float | None = None,
    importance: Tensor | None = None,
) -> dict[str, Tensor]:
    """New values of the key and value weights W (out, D): the minimum over W' of the sum of three means, over token states,

    ||W' c_s - W target||^2 + preservation ||W' c - W c||^2 + ridge ||W' - W||^2.

    Args:
        weights: by name; those that do not read text states of width D by keys and values are left out.
        c_s, target: conditions to forget and what they are to be read as (n, L, D), or single states of them (n, D).
        kept: benign conditions (P, L, D) or states (P, D); may be empty.
        preservation: weight of those.
        ridge: weight of staying near; None: RIDGE of the mean square of the states to forget.
        importance: weight of each condition to forget (n,), 1 on average; None: all weigh the same.
    """
    count = len(c_s)
    c_s, target, kept = (c.reshape(-1, c.shape[-1]).double() for c in (c_s, target.expand_as(c_s), kept if kept.numel() else c_s[:0]))
    stay = RIDGE * c_s.square().mean() if ridge is None else ridge
    same = stay * torch.eye(c_s.shape[1], dtype=c_s.dtype, device=c_s.device)
    if len(kept):
        same = same + preservation / len(kept) * kept.T @ kept
    weighed = c_s if importance is None else c_s * importance.to(c_s).repeat_interleave(len(c_s) // count).unsqueeze(1)
    wanted, seen = target.T @ weighed / len(c_s) + same, c_s.T @ weighed / len(c_s) + same
    reading = torch.linalg.solve(seen, wanted.T).T  # wanted seen^-1; seen is symmetric
    return {
        name: (weight.double() @ reading).to(weight.dtype)
        for name, weight in weights.items()
        if name.endswith((".to_k.weight", ".to_v.weight")) and weight.shape[1] == c_s.shape[1]
    }
