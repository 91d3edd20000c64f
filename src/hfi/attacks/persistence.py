"""Does the concept stay away when somebody goes on training? Rounds of fine-tuning on benign pictures, ordinary denoising loss.

No attack on the concept: what a user does who adapts the model to pictures of their own. All weights of the UNet learn, or a LoRA on
the projections of its attention (Hu et al. 2021, arXiv 2106.09685, by peft).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from hfi.attacks.found import Learner, Run
from hfi.config import Persist
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.errors import Diverged
from hfi.seeds import generator

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]


def fine_tune(
    model: Model,
    latents: Tensor,
    c: Tensor,
    config: Persist,
    seed: int,
    run: Run,
    on_round: Callable[[int, float], None],
    lora: bool = False,
) -> None:
    """Train for `config.rounds` rounds from the weights that the model has now; afterwards it has those again, to the last bit.

    Args:
        latents: z_0 of benign pictures (N, C, h, w); c: the conditions of their prompts (N, L, D).
        run: continues from its checkpoint, which is also written at the end of every round.
        on_round: called with the number of the round, from 1, and the mean loss of its last step, while the model holds its weights.
            After an interruption a round may be told again.
        lora: learn a LoRA instead of all weights.
    """
    learning_rate = config.lora_learning_rate if lora else config.learning_rate
    with _adapter(model.network, config.lora_rank, seed) if lora else _all_weights(model.network) as learning:
        saved = run.saved()
        learner, loss = Learner(learning, torch.optim.AdamW, learning_rate, config.weight_decay, saved), math.nan
        if saved:
            loss = float(saved["loss"])
            if learner.done and learner.done % config.steps == 0:
                on_round(learner.done // config.steps, loss)
        total = config.rounds * config.steps
        for step in range(learner.done, total):
            draw = generator(seed, "persistence", step)
            chosen = torch.randint(len(latents), (config.batch_size,), generator=draw)
            t = torch.randint(model.timesteps, (config.batch_size,), generator=draw)
            eps = torch.randn(config.batch_size, *latents.shape[1:], generator=draw).to(model.device)
            z_t = add_noise(model, latents[chosen].to(model.device), eps, t)
            value = (predict_noise(model, z_t, t, c[chosen.to(c.device)]) - eps).pow(2).mean()
            loss = float(value.detach())
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} at step {step}", field="persist.learning_rate", remedy="lower it")
            value.backward()
            learner.step()

            def state() -> dict[str, Tensor]:
                return {**learner.tensors(), "loss": torch.tensor(loss, dtype=torch.float64)}  # noqa: B023 - used at once

            run.step(step + 1, total, f"loss {loss:.4f}", state)
            if learner.done % config.steps == 0:
                run.keep(state())
                on_round(learner.done // config.steps, loss)


@contextlib.contextmanager
def _all_weights(unet: torch.nn.Module) -> Iterator[dict[str, torch.nn.Parameter]]:
    """While open, every parameter is a copy that may learn."""
    parameters = dict(unet.named_parameters())
    kept = {name: parameter.data for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.data = parameter.data.float().clone()  # however the weights are held
        parameter.requires_grad_(True)
    try:
        yield parameters
    finally:
        for name, parameter in parameters.items():
            parameter.data, parameter.grad = kept[name], None
            parameter.requires_grad_(False)


@contextlib.contextmanager
def _adapter(unet: torch.nn.Module, rank: int, seed: int) -> Iterator[dict[str, torch.nn.Parameter]]:
    """While open, the attention's projections have a LoRA that may learn; it starts at nothing (B = 0), A from our own generator."""
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS)
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; what it drew is replaced below
        inject_adapter_in_model(settings, unet)
    learning = {name: parameter for name, parameter in unet.named_parameters() if "lora_" in name}
    for name, parameter in learning.items():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
        if "lora_A" in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator(seed, "persistence", name))
            parameter.data.copy_(drawn)
    try:
        yield learning
    finally:
        for name, module in list(unet.named_modules()):
            if isinstance(module, LoraLayer):
                parent, _, leaf = name.rpartition(".")
                setattr(unet.get_submodule(parent), leaf, module.base_layer)
        unet.requires_grad_(False)
        unet.__dict__.pop("peft_config", None)
