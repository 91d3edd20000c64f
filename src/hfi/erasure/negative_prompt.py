"""A negative prompt: the concept stands where the empty prompt stood in classifier-free guidance.

    eps(c_s) + s_g (eps(c) - eps(c_s))

No paper introduced it; it is what users of image generators do (Liu et al. 2022, arXiv 2206.01714, compose predictions so). Where the
concept does not fit into one prompt the predictions of several are averaged (ours). Without guidance (s_g = 1) it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.guidance import Guidance
from hfi.diffusion.model import Model
from hfi.diffusion.sampling import check_guidable
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta
from hfi.erasure.loop import Benign


def guide_negative(
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
    """No weight changes: only the names of what is not wanted are looked at."""
    check_guidable(model)
    return Delta(guidance=(Guidance("negative_prompt", conditions.together.cpu()),))
