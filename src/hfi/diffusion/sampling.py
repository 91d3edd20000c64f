"""Classifier-free guided sampling; one generator per picture, so a seed gives the same picture in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from torch import Tensor

from hfi.diffusion.fast import constant_weights, in_threads, spread_over_threads
from hfi.diffusion.flow import Trailing
from hfi.diffusion.guidance import change, ordered_sum
from hfi.diffusion.memory import awake
from hfi.diffusion.model import Model, add_noise, predict_noise
from hfi.errors import Diverged, HFIError

PURE_NOISE = 1e-5  # alpha_bar at the end of flow and zero-SNR schedules is below, of others (SD 1: 5e-3) above


def check_steps(model: Model, steps: int) -> None:
    """Raise HFIError for more sampling steps than the schedule has timesteps (one less where its first one is left out)."""
    most = model.timesteps - int(float(model.alpha_bar[-1]) >= PURE_NOISE)
    if steps > most:
        raise HFIError(f"{steps} steps, where the model's schedule has {most}", file=model.name, field="steps", remedy="ask for fewer")


def ddim(model: Model, steps: int) -> DDIMScheduler | Trailing:
    """The model's schedule as DDIM, eta 0, in our eps convention; one that reaches pure noise is sampled from there."""
    check_steps(model, steps)
    if model.alpha_bar[-1] < PURE_NOISE:
        return Trailing(model.alpha_bar, steps)
    scheduler = DDIMScheduler.from_config(
        model.pipeline.scheduler.config,
        prediction_type="epsilon",
        clip_sample=False,
        thresholding=False,
        timestep_spacing="leading",
        set_alpha_to_one=False,
        steps_offset=1,
        rescale_betas_zero_snr=False,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def schedule(model: Model, steps: int, sampler: str = "ddim") -> DDIMScheduler | Trailing | DPMSolverMultistepScheduler:
    """`ddim`, or DPM-Solver++ of second order (Lu et al., arXiv 2211.01095) over the same timesteps' noise levels."""
    if sampler == "ddim":
        return ddim(model, steps)
    check_steps(model, steps)
    if model.alpha_bar[-1] < PURE_NOISE:
        raise HFIError(
            "draws from pure noise (flow matching, or a zero-SNR schedule), for which dpmsolver++ is not supported",
            file=model.name,
            field="sampler",
            remedy="set it to ddim",
        )
    before = torch.cat([torch.ones(1), model.alpha_bar[:-1].cpu()])
    scheduler = DPMSolverMultistepScheduler(
        trained_betas=(1 - model.alpha_bar.cpu() / before).numpy(),
        num_train_timesteps=model.timesteps,
        prediction_type="epsilon",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="leading",
        steps_offset=1,
        final_sigmas_type="sigma_min",
        euler_at_final=True,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def initial_noise(model: Model, seeds: Sequence[int]) -> Tensor:
    """z_T (B, C, h, w) of unit variance, one CPU generator per picture."""
    noise = [torch.randn(model.latent_shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(model.device)


def check_guidable(model: Model) -> None:
    """Raise HFIError for a guidance-distilled model (FLUX.1-dev): it draws in one pass without c_0, so nothing can be steered away from."""
    if model.distilled:
        raise HFIError(
            "is guidance-distilled: it has no second prediction to steer away from",
            file=model.name,
            field="erase.method",
            remedy="choose a method that changes weights, e.g. sdd",
        )


def guided_noise(
    model: Model,
    z_t: Tensor,
    t: Tensor,
    c: Tensor,
    c_0: Tensor,
    guidance_scale: float,
    at: float = 0.0,
    memory: dict[int, Tensor | None] | None = None,
) -> Tensor:
    """eps(c_0) + s_g (eps(c) - eps(c_0)) (Ho and Salimans 2022, arXiv 2207.12598), bent by `model.guidance`; one pass when s_g is 1.

    A guidance-distilled network (FLUX.1-dev) is told s_g instead, in one pass without c_0.

    Args:
        z_t: (B, C, h, w); t: (B,) integers; c, c_0: (B, L, D).
        at: steps of the run that lie behind, as a share in [0, 1).
        memory: what guidance remembers from step to step of one run: an empty dict at first, changed in place.
    """
    if model.distilled:
        return predict_noise(model, z_t, t, c, guidance_scale)
    if guidance_scale == 1.0:
        return predict_noise(model, z_t, t, c)
    unwanted = [row.expand_as(c) for one in model.guidance for row in one.c_s]
    count = 2 + len(unwanted)
    every = predict_noise(model, torch.cat([z_t] * count), torch.cat([t] * count), torch.cat([c_0, c, *unwanted]))
    without, with_c, *rest = every.chunk(count)
    guided = without + guidance_scale * (with_c - without)
    if not model.guidance:
        return guided
    memory, changes = {} if memory is None else memory, []
    for number, one in enumerate(model.guidance):
        eps_s, rest = torch.stack(rest[: len(one.c_s)]).mean(0), rest[len(one.c_s) :]
        asked, memory[number] = change(one, with_c, without, eps_s, guidance_scale, at, memory.get(number))
        changes.append(asked)
    return guided + ordered_sum(changes)


@torch.no_grad()
def trajectory(
    model: Model,
    z_t: Tensor,
    c: Tensor,
    c_0: Tensor,
    steps: int,
    guidance_scale: float,
    begin: int | None = None,
    sampler: str = "ddim",
) -> Iterator[tuple[int, Tensor]]:
    """Yield (t, z_t) before each step from pure noise to the end, and finally (-1, z_0).

    Args:
        z_t: unit noise (B, C, h, w); c, c_0: (B, L, D).
        begin: z_t is a state at this timestep, and the earlier steps are left out (see `noised_start`).
    """
    scheduler, memory = schedule(model, steps, sampler), {}
    with constant_weights(model.network):
        for number, t in enumerate(scheduler.timesteps.tolist()):
            if begin is not None and t > begin:
                continue
            yield t, z_t
            now = torch.full((len(z_t),), t, device=z_t.device)
            eps = guided_noise(model, z_t, now, c, c_0, guidance_scale, number / steps, memory)
            z_t = scheduler.step(eps, t, z_t).prev_sample
    yield -1, z_t


@torch.no_grad()
def sample_latents(
    model: Model,
    c: Tensor,
    c_0: Tensor,
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float,
    on_step: Callable[[], None] | None = None,
    start: tuple[Tensor, int] | None = None,
    sampler: str = "ddim",
) -> Tensor:
    """Draw z_0 (B, C, h, w) for conditions c (B, L, D); raises Diverged when the network returns NaN.

    `start`: a state and its timestep, from `noised_start`, instead of pure noise.
    """
    z_0, begin = start or (initial_noise(model, seeds), None)
    for _, state in trajectory(model, z_0, c, c_0.expand_as(c), steps, guidance_scale, begin, sampler):
        z_0 = state  # the last one is clean
        if on_step:
            on_step()
    if not torch.isfinite(z_0).all():
        raise Diverged("sampling gave NaN", file=model.name, field="dtype", remedy="try --dtype float32")
    return z_0


def noised_start(model: Model, z_0: Tensor, share: float, seeds: Sequence[int], steps: int, sampler: str = "ddim") -> tuple[Tensor, int]:
    """Pictures z_0 (B, C, h, w) noised to t of at least `share` of T: the state and t, the first of the sampler's that is so high.

    A share of 0 leaves the pictures as they are, and no step is made; above the sampler's highest t it is that one.
    """
    if share <= 0:
        return z_0.to(model.device), -1
    grid = sorted(schedule(model, steps, sampler).timesteps.tolist())
    t = next((t for t in grid if t >= share * model.timesteps), grid[-1])
    return add_noise(model, z_0.to(model.device), initial_noise(model, seeds), torch.full((len(z_0),), t)), t


@torch.no_grad()
def decode(model: Model, latents: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1], float32 on the CPU."""

    def passes(latents: Tensor) -> Tensor:
        with model.autocast():
            pictures = model.vae.decode(latents / model.scaling + model.shift, return_dict=False)[0]
        return (pictures.float() / 2 + 0.5).clamp(0, 1).cpu()

    with awake(model, model.vae):
        return in_threads(passes, latents) if spread_over_threads(model.vae, model.device) else passes(latents)


@torch.no_grad()
def encode_images(model: Model, pictures: Tensor) -> Tensor:
    """Latent means z_0 (B, C, h, w) of pictures (B, 3, H, W) in [0, 1]."""
    with awake(model, model.vae), model.autocast():
        moments = model.vae.encode(pictures.to(model.device) * 2 - 1).latent_dist
    return (moments.mean.float() - model.shift) * model.scaling


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """8-bit pictures from (B, 3, H, W) in [0, 1]."""
    data = (pictures.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(picture) for picture in data]
