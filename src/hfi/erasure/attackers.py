"""What attacks a model while it learns: tokens, and free prompt embeddings, that learn to make it draw pictures of the concept.

Attack and training go on side by side, a step each, so that the model meets all that an attack passes through and not its end alone
(after the adversarial training of classifiers in which both share their steps, Shafahi et al. 2019, arXiv 1904.12843; for this use ours).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hfi.config import Hardened
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.diffusion.text import encode_ids, token_ids
from hfi.errors import Diverged
from hfi.inversion.learn import TEMPLATES, initial_rows
from hfi.seeds import generator


class Attackers:
    """`reinversions` tokens and `embeddings` prompt embeddings, each with pictures of its own; all that changes is in `tensors`.

    A token minimises ||eps - eps_theta(z_t, t, c)||^2 over its rows, from random ones; an embedding over c itself (L, D), from c_0.
    Every random number comes from (seed, round, attacker, step).

    Args:
        pictures: z_0 (K, C, h, w) of the concept. kinds: their numbers, kind by kind; each attacker brings those of one, tokens and
            embeddings in turns of their own, this round's after the last one's.
        c_0: the empty prompt (1, L, D). kind: "harm" or "style": the templates that a token stands in.
        learning_rate: of tokens. together: attackers in one pass; changes speed and memory only.
        number: the round. saved: `tensors` of the same round, to go on from.

    Attributes:
        brought: numbers of the pictures of every attacker so far, those of earlier rounds first.
    """

    def __init__(
        self,
        model: Model,
        pictures: Tensor,
        kinds: Sequence[Sequence[int]],
        c_0: Tensor,
        config: Hardened,
        learning_rate: float,
        kind: str,
        together: int,
        seed: int,
        number: int,
        saved: Mapping[str, Tensor] | None = None,
    ):
        self.model, self.together, self.seed, self.round = model, together, seed, number
        self.tokens, self.batch = config.reinversions, config.attack_batch
        self.templates, count = TEMPLATES[kind], config.reinversions + config.embeddings
        turns = [
            turn
            for past in range(number + 1)
            for each in (config.reinversions, config.embeddings)
            for turn in range(past * each, (past + 1) * each)
        ]
        self.brought = [torch.tensor(kinds[turn % len(kinds)]) for turn in turns]
        self.pictures = [pictures[own] for own in self.brought[-count:]]
        sizes = [config.vectors[(number + i) % len(config.vectors)] for i in range(self.tokens)]
        rows = [initial_rows(model, size, "", seed, "attackers", number, i) for i, size in enumerate(sizes)]
        starts = [*rows, *[c_0[0].detach().float()] * config.embeddings]
        if saved:
            starts = [saved[f"value/{i}"] for i in range(count)]
        self.values = [torch.nn.Parameter(start.clone().to(model.device)) for start in starts]
        rates = [learning_rate] * self.tokens + [config.embedding_learning_rate] * config.embeddings
        self.optimiser = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in zip(self.values, rates, strict=True)])
        self.step = int(saved["step"]) if saved else 0
        for i, value in enumerate(self.values if saved else ()):
            first, second = (saved[f"{name}/{i}"].clone().to(model.device) for name in ("first", "second"))
            self.optimiser.state[value] = {"step": torch.tensor(float(self.step)), "exp_avg": first, "exp_avg_sq": second}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step reads and changes."""
        found = {"round": torch.tensor(self.round), "step": torch.tensor(self.step)}
        for i, value in enumerate(self.values):
            state = self.optimiser.state[value]
            zero = torch.zeros_like(value.data)
            found |= {f"value/{i}": value.data, f"first/{i}": state.get("exp_avg", zero), f"second/{i}": state.get("exp_avg_sq", zero)}
        return found

    def learn(self) -> None:
        """One step of every attacker against the weights that the model has now.

        Raises:
            Diverged: a loss became NaN or infinite.
        """
        for start in range(0, len(self.values), self.together):
            part = range(start, min(start + self.together, len(self.values)))
            z_0, eps, t = (torch.cat(column) for column in zip(*map(self._states, part), strict=True))
            z_t = add_noise(self.model, z_0.to(self.model.device), eps.to(self.model.device), t)
            predicted = predict_noise(self.model, z_t, t, self._encoded(part).repeat_interleave(self.batch, 0))
            loss = (eps.to(predicted) - predicted).square().sum() / (self.batch * eps[0].numel())
            if not math.isfinite(float(loss.detach())):
                raise Diverged(
                    f"the loss of an attack became {float(loss.detach())} in round {self.round}",
                    field="erase.learning_rate",
                    remedy="lower it, or use --dtype float32; the last checkpoint is good",
                )
            mine = [self.values[i] for i in part]  # the model's own weights may learn as well: theirs is not asked for
            for value, gradient in zip(mine, torch.autograd.grad(loss, mine), strict=True):
                value.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1

    @torch.no_grad()
    def conditions(self) -> Tensor:
        """What they have found by now (n, L, D); a token stands in one of its templates, in every step another."""
        return self._encoded(range(len(self.values))).detach().clone()

    def _encoded(self, part: range) -> Tensor:
        tokens, found = [i for i in part if i < self.tokens], []
        if tokens:
            rows = {f"<attacker-{i}>": self.values[i] for i in tokens}
            draws = [torch.randint(len(self.templates), (1,), generator=self._draw("template", i)) for i in tokens]
            texts = [self.templates[int(draw)].format(name) for draw, name in zip(draws, rows, strict=True)]
            found = [encode_ids(self.model, token_ids(self.model, texts, rows), rows)]
        return torch.cat([*found, *[self.values[i][None] for i in part if i >= self.tokens]])

    def _states(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        draw = self._draw("states", i)
        z_0 = self.pictures[i][torch.randint(len(self.pictures[i]), (self.batch,), generator=draw)]
        return z_0, torch.randn(z_0.shape, generator=draw), torch.randint(self.model.timesteps, (self.batch,), generator=draw)

    def _draw(self, what: str, i: int) -> torch.Generator:
        return generator(self.seed, "attackers", what, self.round, i, self.step)
