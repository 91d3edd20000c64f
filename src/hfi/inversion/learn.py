"""Learn one soft token: the loop that inversion and re-inversion share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.diffusion.text import embedding_table, encode_ids, token_ids
from hfi.errors import Diverged, HFIError
from hfi.inversion.objective import weighted_denoising_loss
from hfi.seeds import generator

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


def initial_rows(model: Model, vectors: int, word: str, seed: int, *index: int | str) -> Tensor:
    """Starting rows (n, D): the word's embedding repeated, with 1 % noise so that rows can part; random without a word.

    Random rows have the table's mean and spread per dimension.
    """
    table = embedding_table(model).detach().float().cpu()
    noise = torch.randn(vectors, table.shape[1], generator=generator(seed, "initial rows", *index))
    if not word:
        return table.mean(0) + table.std(0) * noise
    ids = model.tokenizer(word, add_special_tokens=False)["input_ids"]
    if not ids:
        raise HFIError(f"{word!r} has no token in this model's vocabulary", field="invert.initial_word", remedy="choose another word")
    return table[[ids[i % len(ids)] for i in range(vectors)]] + 0.01 * table.std(0) * noise


def learn_token(
    model: Model,
    latents: Tensor,
    weights: Tensor,
    start: State,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    stage: str,
    index: int | str,
    kind: str = "harm",
    on_step: Callable[[State, float], None] | None = None,
) -> Tensor:
    """Minimise the weighted denoising loss over the rows of one token; returns them (n, D) on the CPU.

    Every step's pictures, timesteps, noise and template come from (seed, stage, index, step), so a run continued from a
    saved state equals an uninterrupted one.

    Args:
        model: its network is frozen; only the rows learn.
        latents: z_0 of the pictures (N, C, h, w).
        weights: (N,), >= 0, mean 1.
        start: state to begin or continue from.
        kind: "harm" or "style": which templates the token stands in while it learns.
        on_step: called after each step with the state and the loss.

    Raises:
        Diverged: the loss became NaN or infinite.
    """
    name = "<learned>"
    rows = torch.nn.Parameter(start.rows.clone().to(model.device))
    optimiser = torch.optim.AdamW([rows], lr=learning_rate, weight_decay=weight_decay)
    optimiser.state[rows] = {
        "step": torch.tensor(float(start.step)),
        "exp_avg": start.first_moment.clone().to(model.device),
        "exp_avg_sq": start.second_moment.clone().to(model.device),
    }
    ids = token_ids(model, [template.format(name) for template in TEMPLATES[kind]], {name: rows})
    for step in range(start.step, steps):
        draw = generator(seed, stage, index, step)
        chosen = torch.randint(len(latents), (batch_size,), generator=draw)
        z_0 = latents[chosen].to(model.device)
        eps = torch.randn(z_0.shape, generator=draw).to(model.device)
        t = torch.randint(model.timesteps, (batch_size,), generator=draw)
        template = torch.randint(len(ids), (batch_size,), generator=draw)
        c = encode_ids(model, ids, {name: rows})[template]
        predicted = predict_noise(model, add_noise(model, z_0, eps, t), t, c)
        loss = weighted_denoising_loss(eps, predicted, weights[chosen].to(model.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(
                f"the inversion loss became {value} at step {step}",
                field="invert.learning_rate",
                remedy="lower it, or use --dtype float32",
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if on_step:
            moments = optimiser.state[rows]
            on_step(State(rows.detach(), moments["exp_avg"], moments["exp_avg_sq"], step + 1), value)
    return rows.detach().cpu()


def fresh_state(rows: Tensor) -> State:
    """A state at step 0."""
    return State(rows, torch.zeros_like(rows), torch.zeros_like(rows))
