"""A free prompt embedding: the whole condition c (L, D) of each picture learns by the denoising loss. Ours.

No token and no text encoder bounds it, so it is the strongest attack through the text's door: what it cannot draw, no prompt can.
It may also teach a model what it never knew; a control model tells how much of its success is that.
"""

from __future__ import annotations

import torch

from hfi.attacks.found import LOOKS, Found, Learner, Look, Run, Target, noised, squared_error
from hfi.config import EmbeddingAttack
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.text import encode_prompts


def attack(model: Model, target: Target, config: EmbeddingAttack, seed: int, run: Run) -> Found:
    """A condition for each target; they learn side by side."""
    size = len(target)
    start = encode_prompts(model, target.prompts if config.start == "prompt" else [""] * size)
    look, saved = Look(model, target, seed), run.saved()
    learner = Learner({"c": start.clone().requires_grad_(True)}, torch.optim.Adam, config.learning_rate, 0.0, saved)
    c, first = learner.values["c"], look(start)
    for step in range(learner.done, config.steps):
        z_t, eps, t = noised(model, target, seed, "embedding", step, each=config.batch_size)
        loss = squared_error(predict_noise(model, z_t, t, c.repeat_interleave(config.batch_size, 0)), eps, size)
        loss.sum().backward()
        learner.step()
        run.step(step + 1, config.steps, f"loss {loss.mean():.4f}", learner.tensors)
    found = c.detach()
    return Found(
        c=found,
        texts=("",) * size,
        owners=target.numbers,
        final=(True,) * size,
        queries={"unet": size * (config.steps * config.batch_size + 2 * LOOKS)},
        seconds=run.seconds,
        losses=tuple(zip(first.tolist(), look(found).tolist(), strict=True)),
    )
