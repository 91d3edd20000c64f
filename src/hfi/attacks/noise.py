"""Noise start: a picture of the concept, noised to t of 0.7 T or more, is denoised by the model (after SDEdit, arXiv 2108.01073).

What is left of the picture is a hint, not an instruction: a model that has forgotten the concept turns it into something else.
The attacker needs a picture and the right to choose the starting latent, and not one pass of the model.
"""

from __future__ import annotations

from hfi.attacks.found import Found, Run, Target
from hfi.config import NoiseAttack
from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts


def attack(model: Model, target: Target, config: NoiseAttack, seed: int, run: Run, share: float = 0.7) -> Found:
    """Each target's picture as a start, under its own prompt or the empty one; the noise is drawn with the pictures."""
    prompts = target.prompts if config.prompt == "concept" else ("",) * len(target)
    c = encode_prompts(model, prompts)
    final = (True,) * len(target)
    return Found(c, prompts, target.numbers, final, {"text": len(set(prompts))}, run.seconds, target.latents, share)
