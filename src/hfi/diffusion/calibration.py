"""How long this machine takes for the passes that stages are made of: measured in seconds, so that a dry run can tell hours."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hfi.diffusion.families import text_weights
from hfi.diffusion.fast import constant_weights
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.sampling import decode
from hfi.diffusion.text import encode_ids, encode_prompts, token_ids, token_width

BATCHES = (1, 2, 8, 32, 128)
PATIENCE = 4.0  # seconds: a kind of pass whose next batch would take longer is not measured further
REPEATS = 3


def calibrate(model: Model, patience: float = PATIENCE) -> dict:
    """{kind: {batch: seconds}} for five kinds of pass, and the memory of learning.

    forward: the network without gradient. erase: a step of learning the text's weights, AdamW included. invert: a step that
    learns a condition, without the text encoders. text: the text encoders with a soft token that learns. decode: latents to
    pictures. memory_mib: {batch: peak beyond the loaded model} while erasing (accelerators only; 0 elsewhere).
    """
    names = set(text_weights(name for name, _ in model.network.named_parameters()))
    trained = [parameter for name, parameter in model.network.named_parameters() if name in names]
    optimiser = torch.optim.AdamW(trained, lr=0.0, foreach=True)  # nothing moves
    row = torch.nn.Parameter(torch.zeros(4, token_width(model), device=model.device))
    ids = token_ids(model, ["a <s>"], {"<s>": row})
    empty, memory = encode_prompts(model, [""]), {}

    def material(batch: int) -> tuple:
        draw = torch.Generator().manual_seed(0)
        z_t = torch.randn(batch, *model.latent_shape, generator=draw).to(model.device)
        return z_t, torch.full((batch,), model.timesteps // 2), empty.expand(batch, -1, -1)

    def forward(batch: int) -> None:
        predict_noise(model, *material(batch))

    def erase(batch: int) -> None:
        predict_noise(model, *material(batch)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if model.device.type == "cuda":
            memory[batch] = (torch.cuda.max_memory_allocated() - before) / 2**20

    def invert(batch: int) -> None:
        z_t, t, c = material(batch)
        predict_noise(model, z_t, t, c.clone().requires_grad_()).square().mean().backward()

    def text(batch: int) -> None:
        encode_ids(model, ids.expand(batch, -1), {"<s>": row}).square().mean().backward()
        row.grad = None

    def pictures(batch: int) -> None:
        decode(model, material(batch)[0])

    before = torch.cuda.memory_allocated() if model.device.type == "cuda" else 0
    found = {}
    with torch.no_grad(), constant_weights(model.network):
        found["forward"] = _times(forward, patience)
    for parameter in trained:
        parameter.requires_grad_(True)
    with constant_weights(model.network):
        found["erase"] = _times(erase, patience)
    for parameter in trained:
        parameter.requires_grad_(False)
    with constant_weights(model.network):
        found["invert"] = _times(invert, patience)
    found["text"] = _times(text, patience)
    return {**found, "decode": _times(pictures, patience), "memory_mib": memory}


def _times(run: Callable[[int], None], patience: float) -> dict[int, float]:
    """The median seconds of a pass at each batch that patience allows."""
    found: dict[int, float] = {}
    for number, batch in enumerate(BATCHES):
        if found and found[BATCHES[number - 1]] * batch / BATCHES[number - 1] > patience:
            break
        run(batch)  # the first pass of a shape also plans it
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            run(batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
            if times[-1] > patience:
                break
        found[batch] = sorted(times)[len(times) // 2]
    return found
