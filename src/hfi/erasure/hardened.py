"""Hardened SDD (ours, after STEREO, arXiv 2408.16807, and R.A.C.E., arXiv 2405.16341): what attacks bring back is trained away, in rounds.

The first round is SDD (sdd.py). Then attackers (attackers.py) learn against the model as it is, and in each further round they go on
learning while the model trains, a step each. What they have found makes up a share of the conditions c_s; so does, in later rounds, what
those of earlier rounds ended with. From the second round on all layers learn (`erase.hardened.layers`): as long as cross-attention alone
learns, the network still knows the concept from the picture, and fresh tokens find their way to it (docs/decisions/0011). A term keeps the
original predictions on benign prompts.

Under what an attack found the original model may draw anything, so what is steered away from there is what a soft token adds; and a share
of those states are noised pictures, those that the attack brought, for there it learns.

It attacks by re-inversion, with seeds, numbers of vectors and pictures of its own (of the top-K, which scoring does not attack from), and
by a free prompt embedding. Each attacker brings pictures that are alike: a token of things that differ is vague, draws little and teaches
little; and the kinds of the top-K take turns, for one that is never met comes back. Held out from it, so that scores mean something:
every other kind of attack, among them the search for prompt tokens and the noise start, every seed that scores, and every number of
vectors but `erase.hardened.vectors`.

It stops by itself. After each round fresh attackers learn, and the annotators' judge, never the scorer, says how much of the concept is
drawn (under prompts or under what they found, whichever is more) and how much else is lost. Rounds that no other round beats in both are
the front, and what is kept is the one with the least sum of the two; `erase.hardened.patience` rounds in a row that bring no better one to
keep end the run, as does the cap on rounds. (That a round is on the front is not enough to go on for: a rate that falls by a hundredth
while damage doubles is, and rounds went on for it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.model import Model
from hfi.erasure.attackers import Attackers
from hfi.erasure.conditions import Conditions
from hfi.erasure.delta import Delta, applied
from hfi.erasure.loop import Benign
from hfi.erasure.sdd import train_sdd
from hfi.erasure.trainable import cross_attention, further_layers
from hfi.seeds import derive


@dataclass
class Rounds:
    """What is known between rounds; goes into checkpoints.

    points: (erasure, damage) of each judged round, both better when lower; worst: how often its strongest attack drew the concept;
    deltas: of each trained round, of the best so far and the last alone; found: conditions that the attackers of all trained rounds
    ended with (m, L, D); drawn: how often those of the last judged round draw the concept (n,), in [0, 1].
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    deltas: list[dict[str, Tensor]] = field(default_factory=list)
    found: Tensor | None = None
    drawn: Tensor | None = None
    steps: int = 0  # of all trained rounds

    def tensors(self) -> dict[str, Tensor]:
        saved = {f"rounds/{i}/{name}": value for i, delta in enumerate(self.deltas) for name, value in delta.items()}
        counts = {"steps": torch.tensor(self.steps), "trained": torch.tensor(len(self.deltas))}
        saved |= {"points": torch.tensor(self.points, dtype=torch.float64).reshape(-1, 2), **counts}
        saved["worst"] = torch.tensor(self.worst, dtype=torch.float64)
        return saved | {name: value for name in ("found", "drawn") if (value := getattr(self, name)) is not None}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor]) -> Rounds:
        points = [tuple(point) for point in saved["points"].tolist()]
        deltas = [_part(saved, f"rounds/{i}/") for i in range(int(saved["trained"]))]
        worst = saved["worst"].tolist() if "worst" in saved else [point[0] for point in points]  # of before 2026-11-30
        return cls(points, worst, deltas, saved.get("found"), saved.get("drawn"), int(saved["steps"]))

    def report(self) -> list[dict[str, float]]:
        """Each judged round in plain data."""
        return [
            {"erasure": erasure, "damage": damage, "worst": worst}
            for (erasure, damage), worst in zip(self.points, self.worst, strict=True)
        ]


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
    score: Callable[[Delta, Tensor], tuple[float, float, Sequence[float]]],
    attackers: Callable[[int, Mapping[str, Tensor] | None], Attackers],
    on_log: Callable[[dict], None] | None = None,
    on_step: Callable[[int, Callable[[], dict[str, Tensor]]], None] | None = None,
    on_snapshot: Callable[[int, dict[str, Tensor]], None] | None = None,
    on_round: Callable[[int, dict[str, float]], None] | None = None,
) -> Delta:
    """Rounds of training and attack; the other arguments and the hooks are those of `loop.train`.

    Args:
        score: (delta, conditions (n, L, D) that attacks found against it) -> (erasure, damage, how often each of those draws the
            concept (n,)), all in [0, 1] and better when lower.
        on_round: called with the number of a round and what its judge said: erasure, damage, and worst, the rate of the strongest attack.
        attackers: (round, tensors of a checkpoint or None) -> those that attack the model of this round, and learn on in the next one.
    """
    hard = config.hardened
    learns = cross_attention(model.network) | further_layers(model.network, hard.layers)
    outer = further_layers(model.network, hard.layers).keys() - further_layers(model.network, "attention").keys()
    rates = dict.fromkeys(outer, hard.outer_rate)
    original = {name: parameter.data for name, parameter in learns.items()}
    state = Rounds.from_tensors(resume) if resume else Rounds()
    inner = _part(resume, "inner/") if resume else None
    saved = _part(resume, "attackers/") if resume else None
    against = attackers(int(saved["round"]), saved) if saved else None

    def checkpoint(done: int = 0, training: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        parts = {"inner/": training or {}, "attackers/": against.tensors() if against else {}}
        named = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        return state.tensors() | named | {"done": torch.tensor(state.steps + done)}

    def report(done: int, training: Callable[[], Mapping[str, Tensor]]) -> None:
        if on_step:
            on_step(state.steps + done, lambda: checkpoint(done, training()))

    while not finished(state.points, hard.patience, hard.rounds):
        number = len(state.points)
        if len(state.deltas) == number:  # not trained yet
            settings, parts = config.model_copy(update={"method": "sdd", "snapshots": 0}), (c_0, stored, benign)
            log = on_log and (lambda row, number=number: on_log({**row, "round": number, "step": state.steps + row["step"]}))
            if number == 0:
                delta = train_sdd(model, conditions, *parts, settings, seed, inner, on_log=log, on_step=report)
            else:
                settings = settings.model_copy(update=hard.changed(config))
                live = against.conditions().cpu()
                found = live if state.found is None else torch.cat([state.found, live])
                shares = {name: getattr(hard, name) for name in ("found_share", "live_share", "found_pictures")}
                alike = state.drawn is None or hard.idle_weight is None
                met = () if alike else tuple((state.drawn + hard.idle_weight).tolist())
                told = conditions.joined_by(found, live=len(live), met=met, brought=tuple(against.brought), **shares)
                begin = {name: original[name].float() + value.to(original[name].device) for name, value in state.deltas[-1].items()}
                hooks = {"on_log": log, "on_step": beside(against, told.c, report), "begin": begin, "layers": hard.layers, "rates": rates}
                delta = train_sdd(model, told, *parts, settings, derive(seed, "round", number), inner, **hooks)
                state.found = told.c[-len(found) :].cpu()
            state.deltas.append(dict(delta.weights))
            state.steps += settings.steps
            inner, against = None, attackers(number, None)
        now = Delta(state.deltas[number])
        with applied(model, now):
            while against.step < hard.attack_steps:
                against.learn()
                report(0, dict)
            fresh = against.conditions()
        *point, drawn = score(now, fresh)
        state.points.append(tuple(point))
        state.drawn = torch.tensor(list(drawn), dtype=torch.float64)
        state.worst.append(max(drawn, default=point[0]))
        if on_round:
            on_round(number, state.report()[-1])
        for old in set(range(number)) - {chosen(state.points)}:  # once beaten in the sum a round stays beaten
            state.deltas[old] = {}
    best = chosen(state.points)
    return Delta(state.deltas[best], manifest={"rounds": state.report(), "kept_round": best})


def beside(attackers: Attackers, c: Tensor, then: Callable[[int, Callable], None]) -> Callable[[int, Callable], None]:
    """After each step of training a step of the attackers, whose conditions are the last rows of c (n, L, D): written anew in place."""

    def after(done: int, training: Callable[[], dict[str, Tensor]]) -> None:
        attackers.learn()
        c[-len(attackers.values) :] = attackers.conditions()
        then(done, training)

    return after


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
    """Whether the last `patience` rounds brought no better one to keep, or `rounds` after the first are done."""
    return len(points) > rounds or (len(points) > patience and chosen(points) < len(points) - patience)


def chosen(points: Sequence[tuple[float, float]]) -> int:
    """The round of the front with the least sum of erasure and damage; of equal ones the first."""
    return min(front(points), key=lambda i: (sum(points[i]), i))


def _part(saved: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
