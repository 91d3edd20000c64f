"""Where z_t comes from: `teacher`, `replay`, `forward` or `mix` (METHOD, "Where the time goes").

Each source is a function of the step alone, given the teacher's weights: its randomness comes from (seed, step). Only
`replay` keeps anything between steps, its buffer, which goes into checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from scipy.stats import beta as beta_law
from torch import Tensor

from hfi.config import Training
from hfi.diffusion.model import Model, add_noise
from hfi.diffusion.sampling import ddim, trajectory
from hfi.erasure.conditions import Conditions
from hfi.erasure.objective import beta_fractions
from hfi.seeds import generator, numpy_generator


@dataclass
class Batch:
    """States to learn from: z_t (B, C, h, w), t (B,), and the numbers of their conditions (B,).

    steered (B,): the condition that stands for the concept there, where a target is steered away from it; None: their own.
    """

    z_t: Tensor
    t: Tensor
    condition: Tensor
    steered: Tensor | None = None


@dataclass
class Source:
    """A stream of states; call `next` under the teacher's weights."""

    model: Model
    config: Training
    conditions: Conditions
    c_0: Tensor  # (1, L, D)
    stored: Tensor  # z_0 (K, C, h, w): of the flagged feedback pictures, or of the anchor (ca.py)
    seed: int
    buffer: dict[str, Tensor] = field(default_factory=dict)

    def next(self, step: int, micro: int = 0) -> Batch:
        """The batch of one (step, micro-batch)."""
        kind = self.config.latents
        if kind == "mix":
            share = numpy_generator(self.seed, "mix", step, micro).random()
            kind = "replay" if share < self.config.mix_share else "forward"
        batch = {"teacher": self.teacher, "replay": self.replay, "forward": self.forward}[kind](step, micro)
        return self._of_attacks(batch, step, micro) if self.conditions.found else batch

    def _of_attacks(self, batch: Batch, step: int, micro: int) -> Batch:
        """Where a state meets what an attack found, a soft token stands for the concept, and some states are noised pictures (ours).

        A token in a prompt of its own ("a <weapon-1> in the style of noto", read as "in the style of noto"), as often as alone: what a
        token alone adds to the empty prompt is the concept and the look of the pictures that it was learned from, which is to stay.

        Runs under a condition that no longer draws the concept do not come by its pictures, and there is where an attack learns.
        """
        rng, size = numpy_generator(self.seed, "of attacks", step, micro), len(batch.t)
        found = batch.condition >= len(self.conditions.texts) - self.conditions.found
        steered = torch.where(found, self.conditions.token_of(batch.condition, rng), batch.condition)
        pictures = found & torch.from_numpy(rng.random(size) < self.conditions.found_pictures)
        other = self.forward(step, micro, batch.condition)
        z_t = torch.where(pictures.view(-1, 1, 1, 1).to(batch.z_t.device), other.z_t, batch.z_t)
        return Batch(z_t, torch.where(pictures, other.t, batch.t), batch.condition, steered)

    def forward(self, step: int, micro: int, condition: Tensor | None = None) -> Batch:
        """Feedback latents noised to t ~ Beta: no sampling at all, but the original model's pictures; the given conditions' own, if any."""
        rng, size = numpy_generator(self.seed, "forward", step, micro), self.config.batch_size
        t = (beta_fractions(size, self.config.beta, rng) * self.model.timesteps).long()
        chosen = torch.from_numpy(rng.integers(len(self.stored), size=size))
        if condition is None:
            condition = self.conditions.draw(size, rng)
        elif self.conditions.brought:
            chosen = self.conditions.picture_of(condition, chosen, rng)
        z_0 = self.stored[chosen].to(self.model.device)
        eps = torch.randn(z_0.shape, generator=generator(self.seed, "forward noise", step, micro)).to(self.model.device)
        return Batch(add_noise(self.model, z_0, eps, t), t, condition)

    def teacher(self, step: int, micro: int) -> Batch:
        """A fresh guided run per state, stopped at t ~ Beta, as SDD was published."""
        rng, size = numpy_generator(self.seed, "teacher", step, micro), self.config.batch_size
        condition = self.conditions.draw(size, rng)
        last = self.config.sampling_steps - 1
        # fraction 1 is pure noise, the first step of a run
        stops = (last - (beta_fractions(size, self.config.beta, rng) * self.config.sampling_steps).long()).clamp(0, last)
        z_T = torch.randn((size, *self.model.latent_shape), generator=generator(self.seed, "teacher noise", step, micro))
        kept, times = torch.empty_like(z_T, device=self.model.device), torch.zeros(size, dtype=torch.long)
        for number, (t, z_t) in enumerate(guided_run(self.model, z_T, self.conditions.c[condition], self.c_0, self.config)):
            here = stops == number
            kept[here.to(kept.device)], times[here] = z_t[here.to(z_t.device)], t
            if number == int(stops.max()):
                break
        return Batch(kept, times, condition)

    def replay(self, step: int, micro: int) -> Batch:
        """States of recent teacher runs, drawn with Beta weights over t; as many draws as states, then new runs.

        A run serves one condition, so few of many are met; `redraw` (ours) pairs a share of the states with another condition of the run's
        law. As the concept goes, all conditions come to have the states of the empty prompt, so in the end the pairs agree.
        """
        size = self.config.batch_size
        if not self.buffer or int(self.buffer["draws"]) + size > len(self.buffer["t"]):
            self._refill(step, micro)
        rng = numpy_generator(self.seed, "replay", step, micro)
        chosen = torch.from_numpy(rng.choice(len(self.buffer["t"]), size=size, p=self.buffer["weight"].numpy()))
        self.buffer["draws"] += size
        condition = self.buffer["condition"][chosen]
        if self.config.redraw:
            fresh = numpy_generator(self.seed, "redraw", step, micro)
            other = torch.from_numpy(fresh.random(size) < self.config.redraw)
            condition = torch.where(other, self.conditions.draw(size, fresh), condition)
        return Batch(self.buffer["z_t"][chosen].to(self.model.device), self.buffer["t"][chosen], condition)

    def _refill(self, step: int, micro: int) -> None:
        runs, rng = self.config.replay_runs, numpy_generator(self.seed, "replay runs", step, micro)
        condition = self.conditions.draw(runs, rng)
        noise = torch.randn((runs, *self.model.latent_shape), generator=generator(self.seed, "replay noise", step, micro))
        states = states_of_runs(self.model, noise, self.conditions.c[condition], self.c_0, self.config)
        weight = torch.from_numpy(beta_law.pdf((states["t"].double() + 0.5).numpy() / self.model.timesteps, *self.config.beta))
        condition = condition.repeat(len(weight) // runs)
        self.buffer = {**states, "condition": condition, "weight": weight / weight.sum(), "draws": torch.tensor(0)}


def guided_run(model: Model, z_T: Tensor, c: Tensor, c_0: Tensor, config: Training):
    """The pairs (t, z_t) of guided runs (n, C, h, w) under c (n, L, D), from noise on."""
    return trajectory(model, z_T.to(model.device), c, c_0.expand_as(c), config.sampling_steps, config.guidance_scale)


def states_of_runs(model: Model, z_T: Tensor, c: Tensor, c_0: Tensor, config: Training) -> dict[str, Tensor]:
    """{"z_t": (S n, C, h, w), "t": (S n,)} of n guided runs of S steps, step by step, on the CPU."""
    states = [(t, z_t.cpu()) for t, z_t in guided_run(model, z_T, c, c_0, config) if t >= 0]
    return {"z_t": torch.cat([z_t for _, z_t in states]), "t": torch.tensor([t for t, _ in states]).repeat_interleave(len(z_T))}


def timestep_grid(model: Model, config: Training) -> Tensor:
    """The timesteps of a teacher run, from noise to clean (S,)."""
    return ddim(model, config.sampling_steps).timesteps
