"""Prompting4Debugging (Chin et al. 2023, arXiv 2309.06135): a prompt under which the model predicts what the original does.

    min over the prompt p* of || eps_theta(z_t, t, c(p*)) - eps_original(z_t, t, c(prompt)) ||^2, z_t from a target picture

P4D-N: p* is 16 tokens of its own; P4D-K: a token before every 3 of the prompt's. The rows are continuous, a step takes the gradient
at their nearest tokens and applies it to the rows (PEZ, arXiv 2302.03668). The paper draws every 50 steps and keeps the prompt whose
picture is nearest to the target's by CLIP. Ours: every 50 steps the loss on fixed noise decides, and nothing is drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hfi.attacks.budget import looks_of
from hfi.attacks.found import LOOKS, Found, Learner, Look, Run, Target, noised, squared_error
from hfi.attacks.words import nearest, prompt_ids, reading, room, sequence, words
from hfi.config import P4DAttack
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.text import embedding_table, encode_ids
from hfi.seeds import generator


def attack(model: Model, target: Target, config: P4DAttack, seed: int, run: Run, variant: str = "n", start: list[list[int]] | None = None):
    """A prompt for each target; the targets learn side by side.

    Args:
        target: with `original`, which gives the original model's predictions.
        variant: "n" or "k".
        start: token ids of the learned part of each, instead of random ones.

    Returns Found.
    """
    size, choices = len(target), words(model).to(model.device)
    table = embedding_table(model).detach().to(model.device).float()  # the encoder may wait on the CPU
    frames = [frame(prompt_ids(model, prompt), config, variant, room(model)) for prompt in target.prompts]
    counts = [sum(place is None for place in one) for one in frames]
    if start is None:
        draws = [generator(seed, "p4d", variant, number) for number in target.numbers]
        start = [choices[torch.randint(len(choices), (n,), generator=draw)].tolist() for n, draw in zip(counts, draws, strict=True)]
    rows = {f"{i:04d}": table[torch.tensor(ids, dtype=torch.long)].clone() for i, ids in enumerate(start)}
    saved, look = run.saved(), Look(model, target, seed, "original")
    learner = Learner(rows, torch.optim.AdamW, config.learning_rate, config.weight_decay, saved)
    soft = _with_rows(model, frames, counts, table.shape[0])
    first = look(_encoded(model, frames, start))
    best = saved["best"] if saved else first.clone()
    kept = [saved[f"kept/{name}"].tolist() for name in rows] if saved else [list(ids) for ids in start]
    which = [place for place in range(size) for _ in range(config.batch_size)]
    for step in range(learner.done, config.steps):
        near = [choices[nearest(value, table[choices])] for value in learner.values.values()]
        leaves = table[torch.cat(near)].requires_grad_(True)
        z_t, _, t = noised(model, target, seed, "p4d", variant, step, each=config.batch_size)
        with torch.no_grad():
            wanted = target.original(z_t, t, which)
        c = encode_ids(model, soft, {"rows": leaves}).repeat_interleave(config.batch_size, 0)
        loss = squared_error(predict_noise(model, z_t, t, c), wanted, size)
        (gradient,) = torch.autograd.grad(loss.sum(), leaves)
        learner.step(list(gradient.split(counts)))
        if learner.done % config.look_every == 0 or learner.done == config.steps:
            ids = [choices[nearest(value, table[choices])].tolist() for value in learner.values.values()]
            now = look(_encoded(model, frames, ids))
            for i in range(size):
                if now[i] < best[i]:
                    best[i], kept[i] = now[i], ids[i]
        run.step(step + 1, config.steps, f"loss {loss.mean():.4f}", lambda: _state(learner, best, kept))
    full = [_filled(one, ids) for one, ids in zip(frames, kept, strict=True)]
    passes = size * config.steps * config.batch_size
    return Found(
        c=_encoded(model, frames, kept),
        texts=tuple(reading(model, ids) for ids in full),
        owners=target.numbers,
        final=(True,) * size,
        queries={"unet": passes + size * LOOKS * (1 + looks_of(config)), "original": passes + size * LOOKS},
        seconds=run.seconds,
        losses=tuple(zip(first.tolist(), best.tolist(), strict=True)),
    )


def frame(ids: list[int], config: P4DAttack, variant: str, room: int) -> list[int | None]:
    """The prompt as tokens that stay, and None where one is learned, at most `room` of them."""
    if variant == "n":
        return [None] * min(config.tokens, room)
    found: list[int | None] = []
    for k in range(0, len(ids), config.every):
        found += [None, *ids[k : k + config.every]]
    if len(ids) % config.every == 0:
        found.append(None)
    return found[:room]


def _filled(places: list[int | None], learned: list[int]) -> list[int]:
    turn = iter(learned)
    return [next(turn) if place is None else place for place in places]


def _with_rows(model: Model, frames: list, counts: list[int], vocabulary: int) -> Tensor:
    """Ids (N, L) in which the learned places look up rows that are laid over the table, numbered through all targets."""
    offsets = [vocabulary + sum(counts[:i]) for i in range(len(counts))]
    return torch.stack([sequence(model, _filled(one, list(range(o, o + n)))) for one, n, o in zip(frames, counts, offsets, strict=True)])


@torch.no_grad()
def _encoded(model: Model, frames: list, learned: list[list[int]]) -> Tensor:
    return encode_ids(model, torch.stack([sequence(model, _filled(one, ids)) for one, ids in zip(frames, learned, strict=True)]))


def _state(learner: Learner, best: Tensor, kept: list[list[int]]) -> dict[str, Tensor]:
    prompts = {f"kept/{name}": torch.tensor(ids) for name, ids in zip(learner.values, kept, strict=True)}
    return {**learner.tensors(), "best": best, **prompts}
