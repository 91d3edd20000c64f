"""A closed-form edit of cross-attention: the concept's words are read as their targets, benign words as ever.

Unified Concept Editing (UCE, Gandikota et al. 2024, arXiv 2308.14761, equation 7): the eraser of `erasure/uce.py`, and where SDD
may start (ours: `erase.start`): gradient steps then mend what one linear map cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PART = 2**26  # numbers at a time in float64 (512 MiB): where states are wide and many, all at once are gigabytes
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
    place = torch.device("cpu") if c_s.device.type == "mps" else c_s.device  # mps has no float64
    width, states, held = c_s.shape[-1], c_s.numel() // c_s.shape[-1], kept.numel() // c_s.shape[-1]
    importance = torch.ones(len(c_s)) if importance is None else importance
    wanted, seen, square = (torch.zeros(size, dtype=torch.float64, device=place) for size in ((width, width), (width, width), ()))
    many = max(1, PART * len(c_s) // c_s.numel())
    for part, read, weigh in zip(c_s.split(many), target.expand_as(c_s).split(many), importance.split(many), strict=True):
        part, read, weigh = (x.to(place, torch.float64) for x in (part, read, weigh))
        weighed = (part * weigh.reshape(-1, *[1] * (part.ndim - 1))).reshape(-1, width)
        wanted += read.reshape(-1, width).T @ weighed / states
        seen += part.reshape(-1, width).T @ weighed / states
        square += part.square().sum() / (states * width)
    same = (RIDGE * square if ridge is None else ridge) * torch.eye(width, dtype=torch.float64, device=place)
    for part in kept.split(max(1, PART * len(kept) // kept.numel())) if held else ():
        part = part.to(place, torch.float64).reshape(-1, width)
        same += preservation / held * part.T @ part
    reading = torch.linalg.solve(seen + same, (wanted + same).T).T  # wanted seen^-1; seen is symmetric
    return {
        name: (weight.to(place, torch.float64) @ reading).to(weight)
        for name, weight in weights.items()
        if name.endswith((".to_k.weight", ".to_v.weight")) and weight.shape[1] == width
    }
