"""Hardened SDD (ours, after STEREO, arXiv 2408.16807, and R.A.C.E., arXiv 2405.16341): what attacks bring back is trained away, in rounds.

The first round is SDD (sdd.py). Each further round attacks the model as it is, adds what the attacks found to the conditions
c_s, a share of which they all make up, and goes on training with a term that keeps the original predictions on benign prompts.

It attacks by re-inversion, with seeds, a number of vectors and pictures of its own (of the top-K, which scoring does not attack from), and
by a free prompt embedding. Each attack brings pictures of one cluster of the top-K, all clusters in turn: a token of things that differ is
vague, draws little and teaches little, one of things alike is sharp (docs/log.md). Held out from it, so that scores mean something: every
other kind of attack, among them the search for prompt tokens and the noise start, every seed that scores, and every number of vectors but
`erase.hardened.vectors`.

It stops by itself. After each round the annotators' judge, never the scorer, says how much of the concept is drawn (under prompts or
under what the attacks of that round found, whichever is more) and how much else is lost. Rounds that no other round beats in both are the
front; `erase.hardened.patience` rounds in a row off the front end the run, as does the cap on rounds. What is kept is the round of the
front with the least sum of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.diffusion.text import encode_prompts
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta, applied
from hfi.erasure.loop import Benign
from hfi.erasure.sdd import train_sdd
from hfi.erasure.trainable import cross_attention
from hfi.seeds import derive, generator

BATCH = 4  # states per step of a prompt embedding


@dataclass
class Rounds:
    """What is known between rounds; goes into checkpoints.

    points: (erasure, damage) of each finished round, both better when lower; deltas: theirs, of the best so far and the last alone;
    found: conditions of all attacks (m, L, D).
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    deltas: list[dict[str, Tensor]] = field(default_factory=list)
    found: Tensor | None = None
    steps: int = 0  # of all finished rounds

    def tensors(self) -> dict[str, Tensor]:
        saved = {f"rounds/{i}/{name}": value for i, delta in enumerate(self.deltas) for name, value in delta.items()}
        saved |= {"points": torch.tensor(self.points, dtype=torch.float64).reshape(-1, 2), "steps": torch.tensor(self.steps)}
        return saved if self.found is None else saved | {"found": self.found}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor]) -> Rounds:
        points = [tuple(point) for point in saved["points"].tolist()]
        parts = [f"rounds/{i}/" for i in range(len(points))]
        deltas = [{name.removeprefix(part): value for name, value in saved.items() if name.startswith(part)} for part in parts]
        return cls(points, deltas, saved.get("found"), int(saved["steps"]))


def harden(
    model: Model,
    conditions: Conditions,
    c_0: Tensor,
    stored: Tensor,
    benign: Benign,
    config: Erase,
    seed: int,
    resume: dict[str, Tensor] | None = None,
    *,
    score: Callable[[Delta, Tensor], tuple[float, float]],
    reinvert: Callable[[int], Sequence[Tensor]],
    clusters: Sequence[Hashable],
    on_log: Callable[[dict], None] | None = None,
    on_step: Callable[[int, Callable[[], dict[str, Tensor]]], None] | None = None,
    on_snapshot: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Delta:
    """Rounds of training and attack; the other arguments and the hooks are those of `loop.train`.

    Args:
        score: (delta, conditions (n, L, D) that attacks found against it) -> (erasure, damage) in [0, 1], both better when lower.
        reinvert: round -> fresh tokens (n, D), learned against the weights that the model has when it is called.
        clusters: of each of the stored pictures the cluster that it belongs to, see `brought`.
    """
    hard = config.hardened
    kept = max(config.preservation, hard.preservation)
    original = {name: parameter.data for name, parameter in cross_attention(model.network).items()}
    state = Rounds.from_tensors(resume) if resume else Rounds()
    inner = {name.removeprefix("inner/"): value for name, value in resume.items() if name.startswith("inner/")} if resume else None
    while not finished(state.points, hard.patience, hard.rounds):
        number = len(state.points)
        settings = config.model_copy(
            update={"method": "sdd", "preservation": kept, "snapshots": 0} | ({"steps": hard.steps} if number else {})
        )
        begin = {name: original[name] + value.to(original[name]) for name, value in state.deltas[-1].items()} if number else None
        delta = train_sdd(
            model,
            conditions if state.found is None else conditions.joined_by(state.found, hard.found_share),
            c_0,
            stored,
            benign,
            settings,
            derive(seed, "round", number) if number else seed,
            inner,
            begin=begin,
            on_log=on_log and (lambda row, number=number: on_log({**row, "round": number, "step": state.steps + row["step"]})),
            on_step=on_step and (lambda done, inner: on_step(state.steps + done, lambda: _checkpoint(state, done, inner()))),
        )
        inner = None
        with applied(model, delta):
            found = attack(model, stored, clusters, c_0, reinvert, config, seed, number)
        state.points.append(score(delta, found))
        state.deltas.append(dict(delta.weights))
        for old in set(range(number)) - {chosen(state.points)}:  # once beaten in the sum a round stays beaten
            state.deltas[old] = {}
        state.found = found if state.found is None else torch.cat([state.found, found])
        state.steps += settings.steps
    best = chosen(state.points)
    rounds = [{"erasure": erasure, "damage": damage} for erasure, damage in state.points]
    return Delta(state.deltas[best], manifest={"rounds": rounds, "kept_round": best})


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """The numbers of the points that no other one beats: as good in both and better in one, or equal and earlier."""

    def beaten(i: int) -> bool:
        return any(
            all(a <= b for a, b in zip(points[j], points[i], strict=True)) and (points[j] != points[i] or j < i)
            for j in range(len(points))
            if j != i
        )

    return {i for i in range(len(points)) if not beaten(i)}


def finished(points: Sequence[tuple[float, float]], patience: int, rounds: int) -> bool:
    """Whether the last `patience` rounds brought nothing to the front, or `rounds` after the first are done."""
    if len(points) > rounds:
        return True
    fresh = [i in front(points[: i + 1]) for i in range(len(points))]
    return len(points) > patience and not any(fresh[-patience:])


def chosen(points: Sequence[tuple[float, float]]) -> int:
    """The round of the front with the least sum of erasure and damage; of equal ones the first."""
    return min(front(points), key=lambda i: (sum(points[i]), i))


def attack(
    model: Model,
    latents: Tensor,
    clusters: Sequence[Hashable],
    c_0: Tensor,
    reinvert: Callable[[int], Sequence[Tensor]],
    config: Erase,
    seed: int,
    number: int,
) -> Tensor:
    """What both attacks of a round find against the weights the model has now, as conditions (n, L, D) on the CPU."""
    hard, rows = config.hardened, reinvert(number)
    tokens = {f"<found-{i}>": row for i, row in enumerate(rows)}
    parts = [encode_prompts(model, list(tokens), tokens)] if tokens else []
    for i in range(hard.embeddings):
        own = brought(latents, clusters, number * hard.embeddings + i, hard.attack_pictures, seed, "prompt embedding")
        parts.append(embedding_attack(model, own, c_0, hard.attack_steps, hard.embedding_learning_rate, seed, number, i))
    return torch.cat([part.cpu() for part in parts])


def brought(latents: Tensor, clusters: Sequence[Hashable], turn: int, count: int, seed: int, kind: str) -> Tensor:
    """The pictures (n, C, h, w) that one attack of a kind brings: those of one cluster, all clusters in turn.

    Args:
        latents: the pictures (K, C, h, w); clusters: of each the cluster that it belongs to.
        turn: which attack of its kind this is, over all rounds.
        count: of a larger cluster so many are drawn, no picture twice.
    """
    names = list(dict.fromkeys(clusters))
    rows = torch.tensor([row for row, name in enumerate(clusters) if name == names[turn % len(names)]])
    return latents[rows[torch.randperm(len(rows), generator=generator(seed, "brought", kind, turn))[:count]]]


def embedding_attack(model: Model, latents: Tensor, c_0: Tensor, steps: int, learning_rate: float, seed: int, *index: int) -> Tensor:
    """A condition c (1, L, D), free of any text, under which the model denoises the given pictures (K, C, h, w): Adam from c_0 on

    ||eps - eps_theta(z_t, t, c)||^2.
    """
    c = torch.nn.Parameter(c_0.detach().clone())
    optimiser = torch.optim.Adam([c], lr=learning_rate)
    for step in range(steps):
        draw = generator(seed, "prompt embedding", *index, step)
        z_0 = latents[torch.randint(len(latents), (BATCH,), generator=draw)].to(model.device)
        eps = torch.randn(z_0.shape, generator=draw).to(model.device)
        t = torch.randint(model.timesteps, (BATCH,), generator=draw)
        loss = (eps - predict_noise(model, add_noise(model, z_0, eps, t), t, c.expand(BATCH, -1, -1))).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return c.detach()


def _checkpoint(state: Rounds, done: int, inner: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return state.tensors() | {f"inner/{name}": value for name, value in inner.items()} | {"done": torch.tensor(state.steps + done)}
