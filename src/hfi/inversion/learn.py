"""Learn soft tokens: the loop that inversion and re-inversion share, with its checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.fast import constant_weights
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.diffusion.text import encode_ids, table_statistics, token_ids, word_rows
from hfi.errors import Diverged, HFIError
from hfi.inversion.objective import weighted_denoising_loss
from hfi.seeds import generator
from hfi.workspace import StageRun, read_tensors, write_tensors

if TYPE_CHECKING:
    from hfi.config import Invert

# the token alone half of the time; the paper does not say
TEMPLATES = {
    "harm": ("{}", "a {}", "a picture of a {}", "{}"),
    "style": ("{}", "a picture in the style of {}", "in the style of {}", "{}"),
}


@dataclass
class State:
    """Everything that a step reads and changes; saving it is a checkpoint."""

    rows: Tensor  # (n, D) float32
    first_moment: Tensor
    second_moment: Tensor
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        return {"rows": self.rows, "first_moment": self.first_moment, "second_moment": self.second_moment, "step": torch.tensor(self.step)}

    @classmethod
    def from_tensors(cls, saved: dict[str, Tensor]) -> State:
        return cls(saved["rows"], saved["first_moment"], saved["second_moment"], int(saved["step"]))


@dataclass
class Lesson:
    """One token to learn.

    index: its number, for its random draws; start: the state to begin or continue from.
    latents: z_0 of its pictures (N, C, h, w); weights: theirs (N,), >= 0, mean 1.
    """

    index: int
    start: State
    latents: Tensor
    weights: Tensor


def initial_rows(model: Model, vectors: int, word: str, seed: int, *index: int | str) -> Tensor:
    """Starting rows (n, D): the word's embedding repeated, with 1 % noise so that rows can part; random without a word.

    Random rows have the table's mean and spread per dimension.
    """
    mean, spread = table_statistics(model)
    noise = torch.randn(vectors, len(mean), generator=generator(seed, "initial rows", *index))
    if not word:
        return mean + spread * noise
    rows = word_rows(model, word, vectors)
    if rows is None:
        raise HFIError(f"{word!r} has no token in this model's vocabulary", field="invert.initial_word", remedy="choose another word")
    return rows + 0.01 * spread * noise


def fresh_state(rows: Tensor) -> State:
    """A state at step 0."""
    return State(rows, torch.zeros_like(rows), torch.zeros_like(rows))


def learn_tokens(
    model: Model,
    lessons: Sequence[Lesson],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    stage: str,
    kind: str = "harm",
    on_step: Callable[[list[State], list[float]], None] | None = None,
) -> list[Tensor]:
    """Minimise the weighted denoising loss over the rows of each token; returns them (n, D) on the CPU.

    The tokens learn side by side in one pass, each from a batch and a loss of its own: none knows of the others. Every
    step's pictures, timesteps, noise and template come from (seed, stage, index, step), so a run continued from a saved
    state equals an uninterrupted one.

    Args:
        model: its network is frozen; only the rows learn.
        lessons: the tokens, all at the same step.
        kind: "harm" or "style": which templates a token stands in while it learns.
        on_step: called after each step with the tokens' states and losses.

    Raises:
        Diverged: a loss became NaN or infinite.
    """
    rows = {f"<learned-{i}>": torch.nn.Parameter(lesson.start.rows.clone().to(model.device)) for i, lesson in enumerate(lessons)}
    begun = lessons[0].start.step
    optimiser = torch.optim.AdamW(rows.values(), lr=learning_rate, weight_decay=weight_decay)
    for row, lesson in zip(rows.values(), lessons, strict=True):
        optimiser.state[row] = {
            "step": torch.tensor(float(begun)),
            "exp_avg": lesson.start.first_moment.clone().to(model.device),
            "exp_avg_sq": lesson.start.second_moment.clone().to(model.device),
        }
    templates = TEMPLATES[kind]
    ids = token_ids(model, [template.format(name) for name in rows for template in templates], rows)
    with constant_weights(model.network):
        for step in range(begun, steps):
            parts = [_batch(model, lesson, batch_size, len(templates), generator(seed, stage, lesson.index, step)) for lesson in lessons]
            z_0, eps, t, template, weight = (torch.cat(column) for column in zip(*parts, strict=True))
            owner = torch.arange(len(lessons)).repeat_interleave(batch_size)
            c = encode_ids(model, ids, rows)[owner * len(templates) + template]
            predicted = predict_noise(model, add_noise(model, z_0, eps, t), t, c)
            losses = [
                weighted_denoising_loss(*part)
                for part in zip(eps.split(batch_size), predicted.split(batch_size), weight.split(batch_size), strict=True)
            ]
            values = torch.stack(losses).tolist()
            if not all(map(math.isfinite, values)):
                raise Diverged(
                    f"the inversion loss became {sum(values)} at step {step}",
                    field="invert.learning_rate",
                    remedy="lower it, or use --dtype float32",
                )
            optimiser.zero_grad()
            sum(losses).backward()
            optimiser.step()
            if on_step:
                moments = [(row.detach(), optimiser.state[row]["exp_avg"], optimiser.state[row]["exp_avg_sq"]) for row in rows.values()]
                on_step([State(*moment, step + 1) for moment in moments], values)
    return [row.detach().cpu() for row in rows.values()]


def _batch(model: Model, lesson: Lesson, size: int, templates: int, draw: torch.Generator) -> tuple[Tensor, ...]:
    """z_0 and eps (B, C, h, w), t, numbers of templates and weights (B,) of one token's step."""
    chosen = torch.randint(len(lesson.latents), (size,), generator=draw)
    z_0 = lesson.latents[chosen]
    eps = torch.randn(z_0.shape, generator=draw)
    t = torch.randint(model.timesteps, (size,), generator=draw)
    template = torch.randint(templates, (size,), generator=draw)
    return z_0.to(model.device), eps.to(model.device), t, template, lesson.weights[chosen].to(model.device)


def learn_with_checkpoints(
    model: Model,
    lessons: Sequence[Lesson],
    run: StageRun,
    checkpoint: Path,
    config: Invert,
    steps: int,
    seed: int,
    stage: str,
    kind: str,
    on_progress: Callable[[int, float], None],
) -> tuple[list[Tensor], list[list[list[float]]]]:
    """`learn_tokens` that goes on from `checkpoint`, written every `config.checkpoint_seconds` and at the end.

    Returns the rows, and for each token its curve [[step, mean loss], ...] every 25 steps; `on_progress` is called with
    the steps done and the mean of the last losses.
    """
    curves: list[list[list[float]]] = [[] for _ in lessons]
    windows: list[list[float]] = [[] for _ in lessons]
    if checkpoint.exists():
        saved = read_tensors(checkpoint)
        curves, windows = json.loads(bytes(saved.pop("log").tolist()).decode())
        for number, lesson in enumerate(lessons):
            lesson.start = State.from_tensors({key: saved[f"{number}/{key}"] for key in lesson.start.tensors()})
    last = time.monotonic()

    def on_step(states: list[State], losses: list[float]) -> None:
        nonlocal last
        done = states[0].step
        for window, loss in zip(windows, losses, strict=True):
            window.append(loss)
        if done % 25 == 0 or done == steps:
            for curve, window in zip(curves, windows, strict=True):
                curve.append([done, sum(window) / len(window)])
                window.clear()
        on_progress(done, sum(curve[-1][1] for curve in curves) / len(curves) if curves[0] else sum(losses) / len(losses))
        if time.monotonic() - last > config.checkpoint_seconds or done == steps:
            log = torch.tensor(list(json.dumps([curves, windows]).encode()), dtype=torch.uint8)
            tensors = {f"{number}/{key}": value for number, state in enumerate(states) for key, value in state.tensors().items()}
            write_tensors(checkpoint, {**tensors, "log": log})
            run.checkpoint()
            last = time.monotonic()

    on_progress(lessons[0].start.step, math.nan)
    rows = learn_tokens(
        model,
        lessons,
        steps=steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=seed,
        stage=stage,
        kind=kind,
        on_step=on_step,
    )
    return rows, curves
