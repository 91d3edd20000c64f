"""What every attack is given, what it returns, and how it keeps its state: the one signature of this room."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.seeds import generator
from hfi.workspace import read_json, read_tensors, write_json, write_tensors

LOOKS = 8  # fixed noised latents of each target, evenly over the schedule, on which prompts are compared (ours)


@dataclass(frozen=True)
class Target:
    """What an attack is after: pictures of the concept that the original model drew, and the words they were drawn for.

    latents: z_0 (N, C, h, w); prompts, seeds: what drew each; numbers: each one's name in random draws, whatever batch it is in.
    pairs: prompts with the concept and the same without; kind: harm or style.
    original: (z_t, t, places among the N) -> eps of the ORIGINAL model under those prompts (B, C, h, w); only P4D asks it.
    """

    latents: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    numbers: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    kind: str = "harm"
    original: Callable[[Tensor, Tensor, Sequence[int]], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, end: int) -> Target:
        """The targets from `start` to `end`."""
        here, original = slice(start, end), self.original
        return replace(
            self,
            latents=self.latents[here],
            prompts=self.prompts[here],
            seeds=self.seeds[here],
            numbers=self.numbers[here],
            original=original and (lambda z_t, t, places: original(z_t, t, [start + place for place in places])),
        )


@dataclass(frozen=True)
class Found:
    """What an attack found, one entry for each condition.

    c: conditions (n, L, D). texts: the same as a prompt, "" where no words say it. owners: the number of the target each is for.
    final: False for prompts on the way, which are drawn once each and count for their target's success only.
    z_0, share: noise starts: the pictures (n, C, h, w) and the t / T they are noised to. losses: of each target, at the start and now.
    queries: passes of one latent through the attacked UNet ("unet"), through the original's ("original"), of one prompt through the
    text encoder ("text").
    """

    c: Tensor
    texts: tuple[str, ...]
    owners: tuple[int, ...]
    final: tuple[bool, ...]
    queries: dict[str, int]
    seconds: float
    z_0: Tensor | None = None
    share: float = 0.0
    losses: tuple[tuple[float, float], ...] = ()


@dataclass
class Run:
    """Where an attack keeps its state between interruptions, and whom it tells how far it is. Without a file nothing is kept."""

    file: Path | None = None
    every: float = 60.0  # seconds
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    before: float = 0.0  # seconds of earlier, interrupted runs

    def __post_init__(self) -> None:
        if self.file and self.clock.exists():
            self.before = float(read_json(self.clock)["seconds"])

    @property
    def clock(self) -> Path:
        return self.file.with_suffix(".clock.json")

    @property
    def seconds(self) -> float:
        """Seconds of work so far, earlier interrupted runs included up to their last checkpoint."""
        return self.before + time.monotonic() - self.began

    def saved(self) -> dict[str, Tensor] | None:
        """The tensors of the last checkpoint, or None."""
        return read_tensors(self.file) if self.file and self.file.exists() else None

    def checkpoint(self) -> None:
        """Note the seconds spent."""
        if self.file:
            write_json(self.clock, {"seconds": self.seconds})

    def step(self, done: int, total: int, note: str, state: Callable[[], dict[str, Tensor]]) -> None:
        """Tell how far the attack is, and keep its state when the last checkpoint is old enough."""
        self.on_progress(done, total, note)
        if time.monotonic() - self.last > self.every:
            self.keep(state())

    def keep(self, state: dict[str, Tensor]) -> None:
        """Write a checkpoint now."""
        if self.file:
            write_tensors(self.file, state)
            self.checkpoint()
        self.last = time.monotonic()


class Learner:
    """Adam or AdamW over named tensors, whose whole state is a few tensors."""

    def __init__(
        self,
        values: Mapping[str, Tensor],
        kind: type[torch.optim.Optimizer],
        learning_rate: float,
        weight_decay: float,
        saved: Mapping[str, Tensor] | None = None,
    ):
        self.values, self.done = dict(values), 0
        self.optimiser = kind(self.values.values(), lr=learning_rate, weight_decay=weight_decay)
        if saved:
            self.done = int(saved["done"])
            for name, value in self.values.items():
                value.data.copy_(saved[f"value/{name}"])
                moments = {moment: saved[f"{moment}/{name}"].to(value.device) for moment in ("exp_avg", "exp_avg_sq") if self.done}
                if moments:
                    self.optimiser.state[value] = {"step": torch.tensor(float(self.done)), **moments}

    def step(self, gradients: Sequence[Tensor] | None = None) -> None:
        """One step, along the given gradients or those that `backward` left."""
        if gradients is not None:
            for value, gradient in zip(self.values.values(), gradients, strict=True):
                value.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1

    def tensors(self) -> dict[str, Tensor]:
        """A checkpoint."""
        saved = {"done": torch.tensor(self.done)}
        for name, value in self.values.items():
            saved[f"value/{name}"] = value.detach()
            if self.done:
                saved |= {f"{moment}/{name}": self.optimiser.state[value][moment] for moment in ("exp_avg", "exp_avg_sq")}
        return saved


def noised(model: Model, target: Target, seed: int, stage: str, *index: int | str, each: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """z_t, eps (N x each, C, h, w) and t (N x each,): each target noised `each` times, drawn by its own number."""
    eps, t = [], []
    for number in target.numbers:
        draw = generator(seed, stage, number, *index)
        t.append(torch.randint(model.timesteps, (each,), generator=draw))
        eps.append(torch.randn(each, *target.latents.shape[1:], generator=draw))
    eps, t = torch.cat(eps).to(model.device), torch.cat(t)
    z_0 = target.latents.repeat_interleave(each, 0).to(model.device)
    return add_noise(model, z_0, eps, t), eps, t


def squared_error(predicted: Tensor, wanted: Tensor, targets: int) -> Tensor:
    """Mean squared error of each target (N,), of predictions (N x each, C, h, w)."""
    return (predicted - wanted).pow(2).reshape(targets, -1).mean(1)


class Look:
    """The loss of any conditions on the same few noised latents of each target: how prompts are compared (ours)."""

    def __init__(self, model: Model, target: Target, seed: int, goal: str = "noise"):
        """goal: noise (the eps that was added) or original (what the original model predicts)."""
        self.model, self.size = model, len(target)
        t = ((torch.arange(LOOKS) + 0.5) * model.timesteps / LOOKS).long().repeat(len(target))
        eps = torch.cat([torch.randn(LOOKS, *target.latents.shape[1:], generator=generator(seed, "look", n)) for n in target.numbers])
        eps = eps.to(model.device)
        self.t, self.z_t = t, add_noise(model, target.latents.repeat_interleave(LOOKS, 0).to(model.device), eps, t)
        self.wanted = eps
        if goal == "original":
            with torch.no_grad():
                self.wanted = target.original(self.z_t, t, [place for place in range(len(target)) for _ in range(LOOKS)])

    @torch.no_grad()
    def __call__(self, c: Tensor) -> Tensor:
        """Losses (N,) of conditions (N, L, D), on the CPU."""
        predicted = predict_noise(self.model, self.z_t, self.t, c.repeat_interleave(LOOKS, 0))
        return squared_error(predicted, self.wanted, self.size).cpu()
