"""The loop of every eraser that learns by steps: student, kept average, checkpoints, drift log.

A method is what it adds to this: which weights learn, where they start, and what is to be predicted under c_s (sdd.py, esd.py, ca.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hfi.config import Training
from hfi.diffusion.fast import constant_weights
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.erasure.conditions import Conditions
from hfi.erasure.ema import ConstantEMA
from hfi.erasure.latents import Batch, Source
from hfi.erasure.objective import drift, preservation_loss, sdd_loss
from hfi.erasure.preserved import Benign, Preserved
from hfi.erasure.trainable import swapped
from hfi.errors import Diverged
from hfi.seeds import generator

LOG_EVERY = 25
PROBES = 16


@dataclass(frozen=True)
class Target:
    """What is to be predicted under each c_s of a batch of B states.

    wanted: (batch, what the original weights predict) -> (B, C, h, w); called without gradient, under the student's weights.
    of_original: batch -> the conditions (k B, L, D), k in turn for every state, of what the original weights are to predict; None: nothing.
    """

    wanted: Callable[[Batch, Tensor], Tensor]
    of_original: Callable[[Batch], Tensor] | None = None


def train(
    model: Model,
    trained: Mapping[str, torch.nn.Parameter],
    target: Target,
    conditions: Conditions,
    c_0: Tensor,
    stored: Tensor,
    benign: Benign,
    config: Training,
    seed: int,
    resume: dict[str, Tensor] | None = None,
    on_log: Callable[[dict], None] | None = None,
    on_step: Callable[[int, Callable[[], dict[str, Tensor]]], None] | None = None,
    on_snapshot: Callable[[int, dict[str, Tensor]], None] | None = None,
    *,
    snapshots: Collection[int] = (),
    begin: Mapping[str, Tensor] | None = None,
    rates: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Fine-tune `trained` until eps under c_s is the target; returns what changed, theta_bar - theta_original, float32, on the CPU.

    Args:
        model: the original model; its weights are the original ones again when this returns.
        target: the prediction to learn under each c_s of a batch.
        conditions: the c_s; c_0: the empty prompt (1, L, D).
        stored: z_0 (K, C, h, w) for `forward` and `mix`.
        benign: for the preservation term (ours) and the drift log.
        resume: tensors of a checkpoint, as given by `on_step`.
        on_log: called every 25 steps with a row of the log.
        on_step: called after each step with the count done and a function that returns a checkpoint.
        on_snapshot: called after each step in `snapshots`, before `on_step`, with the count done and the change so far.
        begin: weights to start from, where not the original ones.
        rates: of the tensors that learn at another rate than `config.learning_rate`, the factor.

    Raises:
        Diverged: the loss or its gradient became NaN or infinite; the last checkpoint is still good.
    """
    original = {name: parameter.data for name, parameter in trained.items()}
    for name, parameter in trained.items():
        parameter.data = parameter.data.float().clone()  # float32 masters, however the weights are held
        if begin and name in begin:
            parameter.data.copy_(begin[name])
        parameter.requires_grad_(True)
    teacher = ConstantEMA({name: parameter.data for name, parameter in trained.items()}, config.ema_decay)
    of_rate: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in trained.items():
        of_rate.setdefault((rates or {}).get(name, 1.0), []).append(parameter)
    groups = [{"params": parameters, "factor": factor} for factor, parameters in of_rate.items()]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True)
    source, kept = Source(model, config, conditions, c_0, stored, seed), Preserved(model, config, benign, c_0, seed)
    buffers = {"buffer": source, "preserved": kept}
    start = _restore(resume, trained, teacher, optimiser, buffers) if resume else 0
    probe, begun = _probe(model, benign, c_0, original, trained, seed), time.monotonic()
    sums = resume["sums"].tolist() if resume else [0.0, 0.0, 0.0]
    try:
        with constant_weights(model.network):
            for step in range(start, config.steps):
                for micro in range(config.accumulate):
                    with swapped(trained, teacher.values), torch.no_grad():
                        batch = source.next(step, micro)
                        benign_rows = kept.next(step, micro) if config.preservation else None
                    erase, keep = _losses(model, target, batch, conditions, benign_rows, original, trained)
                    ((erase + config.preservation * keep) / config.accumulate).backward()
                    sums = [sums[0] + float(erase.detach()), sums[1] + float(keep.detach() if config.preservation else 0.0), sums[2] + 1]
                if not math.isfinite(sums[0] + sums[1]):
                    raise Diverged(
                        f"the erasure loss became NaN at step {step}",
                        field="erase.learning_rate",
                        remedy="lower it, or use --dtype float32; the last checkpoint is good",
                    )
                norm = torch.nn.utils.clip_grad_norm_(trained.values(), config.clip_norm)
                if not torch.isfinite(norm):  # of a finite loss; clipping by it would write NaN into every weight
                    raise Diverged(
                        f"the gradient of the erasure became infinite at step {step}",
                        field="erase.learning_rate",
                        remedy="lower it, or use --dtype float32; the last checkpoint is good",
                    )
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(config, step) * group["factor"]
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                teacher.update(trained)
                done = step + 1
                if on_log and (done % LOG_EVERY == 0 or done == config.steps):
                    with swapped(trained, teacher.values):
                        moved = probe()
                    on_log(
                        {
                            "step": done,
                            "loss": sums[0] / sums[2],
                            "preservation": sums[1] / sums[2] if config.preservation else None,
                            **moved,
                            "seconds": round(time.monotonic() - begun, 2),
                        }
                    )
                    sums = [0.0, 0.0, 0.0]
                if on_snapshot and done in snapshots:
                    on_snapshot(done, _delta(teacher, original))
                if on_step:
                    on_step(done, lambda: _checkpoint(done, trained, teacher, optimiser, buffers, sums))  # noqa: B023 - used at once
        return _delta(teacher, original)
    finally:
        for name, parameter in trained.items():
            parameter.data = original[name]
            parameter.requires_grad_(False)
            parameter.grad = None


def learning_rate(config: Training, step: int) -> float:
    """The learning rate of a step in [0, config.steps)."""
    rising = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return config.learning_rate * rising * (0.5 * (1 + math.cos(math.pi * step / config.steps)) if config.schedule == "cosine" else 1.0)


def _losses(
    model: Model,
    target: Target,
    batch: Batch,
    conditions: Conditions,
    benign_rows: tuple[Tensor, Tensor, Tensor] | None,
    original: dict[str, Tensor],
    trained: Mapping[str, torch.nn.Parameter],
) -> tuple[Tensor, Tensor]:
    """The erasing loss and the preservation term of one batch; original weights and student predict all that they must in one pass each."""
    c_s, size = conditions.c[batch.condition], len(batch.t)
    asked = target.of_original(batch) if target.of_original else c_s[:0]
    times = len(asked) // size
    z_t, t, c = torch.cat([batch.z_t] * times) if times else batch.z_t[:0], batch.t.repeat(times), asked
    if benign_rows:
        z_t, t, c = (torch.cat(both) for both in zip((z_t, t, c), benign_rows, strict=True))
    with torch.no_grad():
        if len(t):
            with swapped(trained, original):
                frozen = predict_noise(model, z_t, t, c)
        else:
            frozen = z_t
        wanted = target.wanted(batch, frozen[: len(asked)])
    if not benign_rows:
        return sdd_loss(predict_noise(model, batch.z_t, batch.t, c_s), wanted), torch.zeros(())
    both = predict_noise(model, *(torch.cat(pair) for pair in zip((batch.z_t, batch.t, c_s), benign_rows, strict=True)))
    return sdd_loss(both[:size], wanted), preservation_loss(both[size:], frozen[len(asked) :])


def _probe(model: Model, benign: Benign, c_0: Tensor, original: dict[str, Tensor], trained: Mapping, seed: int) -> Callable[[], dict]:
    """A function that measures the drift of unconditional and benign predictions on fixed noised benign latents."""
    if not len(benign.latents):
        return lambda: {"drift_unconditional": None, "drift_benign": None}
    draw, count = generator(seed, "drift probe"), min(PROBES, len(benign.latents))
    t = torch.randint(model.timesteps, (count,), generator=draw)
    z_0 = benign.latents[:count].to(model.device)
    z_t = add_noise(model, z_0, torch.randn(z_0.shape, generator=draw).to(model.device), t)
    c = benign.c[:count]

    @torch.no_grad()
    def predictions() -> tuple[Tensor, Tensor]:
        return predict_noise(model, z_t, t, c_0.expand_as(c)), predict_noise(model, z_t, t, c)

    with swapped(trained, original):
        first = predictions()

    def measure() -> dict:
        now = predictions()
        return {"drift_unconditional": drift(now[0], first[0]), "drift_benign": drift(now[1], first[1])}

    return measure


def _delta(teacher: ConstantEMA, original: dict[str, Tensor]) -> dict[str, Tensor]:
    """theta_bar - theta_original, float32, on the CPU."""
    return {name: (value - original[name]).float().cpu() for name, value in teacher.values.items()}


def _checkpoint(done: int, trained: Mapping, teacher: ConstantEMA, optimiser, buffers: Mapping, sums: list[float]) -> dict[str, Tensor]:
    saved = {"done": torch.tensor(done), "sums": torch.tensor(sums, dtype=torch.float64)}
    for name, parameter in trained.items():
        state = optimiser.state[parameter]
        saved |= {
            f"student/{name}": parameter.data,
            f"teacher/{name}": teacher.values[name],
            f"first/{name}": state["exp_avg"],
            f"second/{name}": state["exp_avg_sq"],
        }
    return saved | {f"{name}/{key}": value for name, source in buffers.items() for key, value in source.buffer.items()}


def _restore(saved: dict[str, Tensor], trained: Mapping, teacher: ConstantEMA, optimiser, buffers: Mapping) -> int:
    done = int(saved["done"])
    for name, parameter in trained.items():
        parameter.data.copy_(saved[f"student/{name}"])
        teacher.values[name].copy_(saved[f"teacher/{name}"])
        optimiser.state[parameter] = {
            "step": torch.tensor(float(done)),
            "exp_avg": saved[f"first/{name}"].to(parameter.device),
            "exp_avg_sq": saved[f"second/{name}"].to(parameter.device),
        }
    for name, source in buffers.items():
        source.buffer = {key.removeprefix(f"{name}/"): value for key, value in saved.items() if key.startswith(f"{name}/")}
    return done
