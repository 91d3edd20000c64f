"""The teacher theta_bar: an exponential moving average with a constant decay, over the trained tensors only.

diffusers' EMAModel warms its decay up (0 at the first update), which is another teacher than SDD's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class ConstantEMA:
    """theta_bar <- m theta_bar + (1 - m) theta."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """One update; at m = 1 the values stay as they are to the last bit."""
        torch._foreach_lerp_(list(self.values.values()), [parameters[name].detach() for name in self.values], 1.0 - self.decay)
