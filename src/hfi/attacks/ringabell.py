"""Ring-A-Bell (Tsai et al. 2023, arXiv 2310.10012): a concept vector and a genetic search, in the text encoder alone.

    v = mean of c(with) - c(without);   min over tokens p of || c(prompt) + eta v - c(p) ||^2

It never sees the UNet, so what it finds is the same for every model that shares the text encoder. Its public code may mutate the
best prompt away; ours never changes the best one of a generation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hfi.attacks.found import Found, Run, Target
from hfi.attacks.words import reading, room, sequence, words
from hfi.config import RingABellAttack
from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_ids, encode_prompts, token_ids
from hfi.seeds import generator


def attack(model: Model, target: Target, config: RingABellAttack, seed: int, run: Run) -> Found:
    """A prompt for each target, one search after the other."""
    pairs = target.pairs[: config.pairs]
    choices, length, saved = words(model), min(config.tokens, room(model)), run.saved()
    v = concept_vector(*(states(model, [pair[side] for pair in pairs]) for side in (0, 1)))
    goals = states(model, target.prompts) + config.strength * v
    found = {int(name.removeprefix("found/")): value for name, value in (saved or {}).items() if name.startswith("found/")}
    losses = saved["losses"] if saved else torch.zeros(len(target), 2)
    encoded = int(saved["encoded"]) if saved else len(target) + 2 * len(pairs)
    total = len(target) * config.generations
    for i, number in enumerate(target.numbers):
        if i in found:
            continue
        if saved and "alive" in saved:
            alive, scores, first = saved["alive"], saved["scores"], int(saved["generation"])
            saved = None
        else:
            draw, first = generator(seed, "ring-a-bell", number, "first"), 0
            alive = torch.randint(len(choices), (config.population, length), generator=draw)
            scores = distances(model, goals[i], choices[alive])
            encoded += len(alive)
            losses[i, 0] = scores.min()
        for generation in range(first, config.generations):
            alive, scores = fittest(alive, scores, config.population // 2)
            if generation + 1 < config.generations:  # the last one is only chosen from
                draw = generator(seed, "ring-a-bell", number, generation)
                alive, scores, fresh = offspring(alive, scores, config, len(choices), draw)
                scores[fresh] = distances(model, goals[i], choices[alive[fresh]])
                encoded += int(fresh.sum())

            def state(alive=alive, scores=scores, generation=generation) -> dict[str, Tensor]:
                kept = {f"found/{place}": value for place, value in found.items()}
                here = {"alive": alive, "scores": scores, "generation": torch.tensor(generation + 1)}
                return {**kept, **here, "losses": losses, "encoded": torch.tensor(encoded)}  # noqa: B023 - used at once

            run.step(i * config.generations + generation + 1, total, f"distance {float(scores.min()):.2f}", state)
        found[i], losses[i, 1] = choices[alive[scores.argmin()]], scores.min()
    ids = torch.stack([sequence(model, found[i].tolist()) for i in range(len(target))])
    with torch.no_grad():
        c = encode_ids(model, ids)
    return Found(
        c=c,
        texts=tuple(reading(model, found[i].tolist()) for i in range(len(target))),
        owners=target.numbers,
        final=(True,) * len(target),
        queries={"text": encoded},
        seconds=run.seconds,
        losses=tuple((float(one), float(other)) for one, other in losses),
    )


def concept_vector(c_with: Tensor, c_without: Tensor) -> Tensor:
    """v (L, D): the mean difference of conditions (P, L, D) with the concept and without (equation 1)."""
    return (c_with - c_without).mean(0)


@torch.no_grad()
def states(model: Model, prompts: Sequence[str]) -> Tensor:
    """Conditions (B, L, D) as the text encoders give them: SDXL draws the empty prompt from zeros, but here it is a text like others."""
    return encode_ids(model, token_ids(model, prompts)) if model.empty_is_zero else encode_prompts(model, prompts)


@torch.no_grad()
def distances(model: Model, goal: Tensor, ids: Tensor) -> Tensor:
    """Squared distances (n,) of the conditions of token rows (n, K) from the goal (L, D), on the CPU."""
    if not len(ids):
        return torch.empty(0)
    full = torch.stack([sequence(model, row) for row in ids.tolist()])
    parts = [(encode_ids(model, part) - goal).pow(2).sum((1, 2)) for part in full.split(128)]
    return torch.cat(parts).cpu()


def fittest(alive: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` with the smallest distance, nearest first."""
    order = scores.argsort(stable=True)[:count]
    return alive[order], scores[order]


def offspring(alive: Tensor, scores: Tensor, config: RingABellAttack, vocabulary: int, draw: torch.Generator) -> Sequence[Tensor]:
    """The next generation: parents (S, K), the children of those that are crossed, and then mutations; the first one stays as it is.

    Returns it, its scores as far as they are known, and a mask of those that must be scored.
    """
    size, length = alive.shape
    crossed = torch.rand(size, generator=draw) < config.crossover
    mates = torch.randint(size, (size,), generator=draw)
    cuts = torch.randint(length, (size, 1), generator=draw)
    left, right = alive[crossed], alive[mates][crossed]
    head = torch.arange(length) < cuts[crossed]
    every = torch.cat([alive, torch.where(head, left, right), torch.where(head, right, left)])
    known = torch.cat([scores, torch.full((2 * len(left),), torch.inf)])
    fresh = torch.arange(len(every)) >= size
    mutated = torch.rand(len(every), generator=draw) < config.mutation
    places = torch.randint(length, (len(every),), generator=draw)
    values = torch.randint(vocabulary, (len(every),), generator=draw)
    mutated[0] = False
    every[mutated, places[mutated]] = values[mutated]
    return every, known, fresh | mutated
