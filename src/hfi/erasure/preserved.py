"""What stays: benign pictures and their prompts, and the states on which the original predictions under them are kept.

Two kinds of states: benign pictures, noised; and (ours, `preservation_runs`) states that the kept average passes through when it draws
benign prompts. A noised picture stands for its own prompt only; a prompt that has none (a kept word, another style) borrows one,
and what an erased model does there says little about what it draws. Its own runs are where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hfi.config import Training
from hfi.diffusion.model import Model, add_noise
from hfi.erasure.latents import states_of_runs
from hfi.seeds import generator

EMPTY = 0.125  # of the states keep the empty prompt's prediction, the target of the erasure, where it was


@dataclass
class Benign:
    """Benign pictures and their prompts: the preservation term's material, UCE's preserved concepts and the drift's probe.

    latents: z_0 (P, C, h, w); c: conditions (P, L, D), c[i] being the prompt of latents[i]; end: text states of their last words (P, D).
    """

    latents: Tensor
    c: Tensor
    end: Tensor | None = None


@dataclass
class Preserved:
    """A stream of states to keep predictions on; call `next` under the kept average's weights. The buffer goes into checkpoints."""

    model: Model
    config: Training
    benign: Benign
    c_0: Tensor  # (1, L, D)
    seed: int
    buffer: dict[str, Tensor] = field(default_factory=dict)

    def next(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """z_t (B, C, h, w), t (B,) and c (B, L, D) of one (step, micro-batch)."""
        size, number = self.config.batch_size, step * self.config.accumulate + micro
        before, after = (math.floor(self.config.preservation_runs * size * count) for count in (number, number + 1))
        rows, of_runs = self.noised(step, micro, size), after - before  # so that the share holds over steps whatever the batch
        if not of_runs:
            return rows
        return tuple(torch.cat([run, noised[of_runs:]]) for run, noised in zip(self.of_runs(step, micro, of_runs), rows, strict=True))

    def noised(self, step: int, micro: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Benign pictures, noised to t uniform over the schedule."""
        draw = generator(self.seed, "preservation", step, micro)
        chosen = torch.randint(len(self.benign.latents), (size,), generator=draw)
        z_0 = self.benign.latents[chosen].to(self.model.device)
        t = torch.randint(self.model.timesteps, (size,), generator=draw)
        z_t = add_noise(self.model, z_0, torch.randn(z_0.shape, generator=draw).to(self.model.device), t)
        return z_t, t, self._under(chosen, draw)

    def of_runs(self, step: int, micro: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """States of recent guided runs of benign prompts, uniform over their steps; as many draws as states, then new runs."""
        draw = generator(self.seed, "preservation runs", step, micro)
        if not self.buffer or int(self.buffer["draws"]) + size > len(self.buffer["t"]):
            own = torch.randint(len(self.benign.c), (self.config.replay_runs,), generator=draw)
            noise = torch.randn((len(own), *self.model.latent_shape), generator=draw)
            states = states_of_runs(self.model, noise, self.benign.c[own], self.c_0, self.config)
            self.buffer = {**states, "own": own.repeat(len(states["t"]) // len(own)), "draws": torch.tensor(0)}
        chosen = torch.randint(len(self.buffer["t"]), (size,), generator=draw)
        self.buffer["draws"] += size
        z_t, t = self.buffer["z_t"][chosen].to(self.model.device), self.buffer["t"][chosen]
        return z_t, t, self._under(self.buffer["own"][chosen], draw)

    def _under(self, chosen: Tensor, draw: torch.Generator) -> Tensor:
        empty = (torch.rand(len(chosen), generator=draw) < EMPTY).view(-1, 1, 1).to(self.model.device)
        return torch.where(empty, self.c_0, self.benign.c[chosen])
