"""Safe Latent Diffusion (SLD, Schramowski et al. 2023, arXiv 2211.05105): guidance away from a concept while sampling.

The equations are in hfi.diffusion.guidance; they are those of diffusers' StableDiffusionPipelineSafe, and a test holds the two together.
The four strengths are the published ones; of `weak` the guidance scale is the paper's and its model card's 200, where diffusers has 20.

What differs: the concept is the study's tokens or words, not the authors' list of harms; where it does not fit into one prompt the
predictions of several are averaged; the warm-up, published in steps of a 50-step run, is the same share of a run of another length.
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

STRENGTHS = {  # the paper's appendix, "hyper-parameters", and its model card
    "weak": {"guidance_scale": 200, "warmup_steps": 15, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
    "medium": {"guidance_scale": 1000, "warmup_steps": 10, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4},
    "strong": {"guidance_scale": 2000, "warmup_steps": 7, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
    "max": {"guidance_scale": 5000, "warmup_steps": 0, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7},
}


def guide_sld(
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
    return Delta(guidance=(Guidance("sld", conditions.together.cpu(), STRENGTHS[config.sld.strength]),))
