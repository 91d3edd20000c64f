"""Train the UNet: eps-prediction on 8x8x8 latents, conditioned on the frozen text encoder.

As Stable Diffusion: DDPM with 1000 steps, betas scaled-linear 0.00085 to 0.012, cross-attention
to all 32 token states, 12 % empty captions for guidance. Few objects and many passes: the whole
set fits in memory as latents (mean and standard deviation of the posterior, drawn anew each
time) and as text states of `VARIANTS` captions a picture, so a step is the UNet and nothing else.
A quarter of each batch are icons that are no object of ours, called by their style and at most their
kind ("a mammal in the style of noto"): five thousand of them, too many to learn by heart, so that a
style has to be learned as a way of drawing. The kept weights are an exponential average (`EMA_DECAY`), as is the grid drawn on the way.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from hfi.diffusion import fast

from . import common, data
from .captions import Captions

VARIANTS = 48  # captions kept for each picture
OTHERS = 0.25  # share of a batch: icons that are no object of ours, for their style
EMA_DECAY = 0.999  # per step
MIN_SNR = 5.0  # the last bit of noise is the largest error and says least about the object
TOGETHER = 8  # steps between two averages of the processes' weights
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
GRID_PROMPTS = [
    f"{name} in the style of {style}"
    for name in ("a rocket", "a kitchen knife", "a beer mug", "a fire", "a frog", "a guitar", "a pistol", "a hamburger")
    for style in data.choice.STYLES
]


def build() -> UNet2DConditionModel:
    """9.6 M parameters: two resolutions (8x8 and 4x4), attention at both."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(96, 192),
        layers_per_block=1,
        cross_attention_dim=192,
        attention_head_dim=4,
        norm_num_groups=32,  # (diffusers: attention_head_dim is the number of heads)
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon")


@torch.no_grad()
def encode_pictures(vae, pictures) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (N, 64, 64, 3) -> posterior mean and standard deviation, scaled to unit variance, (N, 8, 8, 8) each."""
    device = next(vae.parameters()).device
    parts = []
    for part in pictures.split(64):
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode((part.float().permute(0, 3, 1, 2) / 127.5 - 1).to(device)).latent_dist
        parts.append((posterior.mean.float(), posterior.std.float()))
    mean, std = (torch.cat(column) * vae.config.scaling_factor for column in zip(*parts, strict=True))
    return mean, std


@torch.no_grad()
def encode_texts(texts: list[str], tokenizer, text_encoder) -> torch.Tensor:
    """(N, 32, width) last hidden states in bf16, on the encoder's device."""
    states = []
    for at in range(0, len(texts), 256):
        ids = tokenizer(texts[at : at + 256], padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.autocast(text_encoder.device.type, torch.bfloat16):
            states.append(text_encoder(ids.to(text_encoder.device)).last_hidden_state.to(torch.bfloat16))
    return torch.cat(states)


def prepare_texts(path: Path, pairs, kinds, captions: Captions, tokenizer, text_encoder) -> None:
    """Write `path`, a safetensors file: `states` (captions, 32, width) bf16, row 0 the empty one; `table`
    (pairs and then kinds, VARIANTS) rows of it. Encoded once: a minute that no training step pays again."""
    if path.exists():
        return
    texts, table = caption_table(pairs, kinds, captions)
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"states": encode_texts(texts, tokenizer, text_encoder).cpu(), "table": table}, part)
    part.replace(path)
    print(f"{len(texts)} captions of {len(table)} pictures")


def caption_table(pairs, kinds, captions: Captions) -> tuple[list[str], torch.Tensor]:
    """Unique captions, and for each of `pairs` and then `kinds` `VARIANTS` indices into them (long, (N, VARIANTS))."""
    index, rows = {"": 0}, []
    for draw, known in ((captions.draw, pairs), (captions.draw_kind, kinds)):
        for number, pair in enumerate(known):
            rng = random.Random(f"{common.SEED} {number}")
            rows.append([index.setdefault(draw(*pair, rng).text, len(index)) for _ in range(VARIANTS)])
    return list(index), torch.tensor(rows)


@torch.no_grad()
def sample(unet, states, empty, generators, guidance: float = 4.0, steps: int = 20) -> torch.Tensor:
    """Latents (N, 8, 8, 8) by DDIM with classifier-free guidance; states (N, 32, W), empty (1, 32, W)."""
    plan = scheduler()
    plan.set_timesteps(steps)
    device = states.device
    z = torch.stack([torch.randn(8, 8, 8, generator=g) for g in generators]).to(device)
    both = torch.cat([empty.expand_as(states), states])
    for t in plan.timesteps:
        with torch.autocast(device.type, torch.bfloat16):
            nothing, something = unet(torch.cat([z, z]), t, both).sample.float().chunk(2)
        z = plan.step(nothing + guidance * (something - nothing), t, z).prev_sample
    return z


@torch.no_grad()
def decode(vae, z: torch.Tensor) -> torch.Tensor:
    """Latents of unit variance -> pictures (N, 3, 64, 64) in [0, 1]."""
    with torch.autocast(z.device.type, torch.bfloat16):
        return torch.cat([vae.decode(part / vae.config.scaling_factor).sample.float() for part in z.split(64)]).div(2).add(0.5).clamp(0, 1)


def load_text(device: str, folder: Path | None = None):
    """The trained tokenizer and text encoder of a CLIP folder (None: runs/clip/model), frozen."""
    folder = folder or data.RUNS / "clip" / "model"
    return CLIPTokenizer.from_pretrained(folder), CLIPTextModel.from_pretrained(folder).to(device).float().eval().requires_grad_(False)


def load_vae(device: str, folder: Path | None = None) -> AutoencoderKL:
    """The trained autoencoder of a folder (None: runs/vae/model), frozen."""
    vae = AutoencoderKL.from_pretrained(folder or data.RUNS / "vae" / "model").float()
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def load_parts(device: str):
    """The trained autoencoder, tokenizer and text encoder, frozen."""
    return load_vae(device), *load_text(device)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_arguments(parser, minutes=120, batch=128, learning_rate=1.1e-3)
    common.add_exclusion(parser)
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder, if not that of runs/")
    parser.add_argument("--prepare", action="store_true", help="encode the captions and stop (needs CLIP only)")
    args = parser.parse_args(argv)
    device = common.setup(args)
    catalogue = data.load_catalogue(args.exclude)
    pictures, pairs, seen = data.load_pictures(catalogue)
    extra, kinds = data.load_extra(catalogue)
    tokenizer, text_encoder = load_text(device, args.runs / "clip" / "model")
    path = args.runs / "unet" / "texts.safetensors"
    if common.RANK == 0:
        known = [pair for pair, ok in zip(pairs, seen, strict=True) if ok]
        prepare_texts(path, known, kinds, Captions(catalogue), tokenizer, text_encoder)
    if args.prepare:
        return
    common.wait_for_others()
    texts = load_file(path, device=device)
    vae = load_vae(device, args.vae)
    latents = encode_pictures(vae, torch.cat([torch.from_numpy(pictures[seen]), torch.from_numpy(extra)]))
    spread, posterior = float(latents[0].std()), float(latents[1].mean())
    print(f"{len(latents[0])} pictures, latents' standard deviation {spread:.3f}, posterior's {posterior:.3f}")
    grid = draw_grid(vae, encode_texts(GRID_PROMPTS, tokenizer, text_encoder), texts["states"][:1], len(data.choice.STYLES))
    rows = torch.arange(len(latents[0])).unsqueeze(1)
    ema = train(args, latents, rows, texts["states"], texts["table"].cpu(), int(seen.sum()), grid)
    if common.RANK == 0:
        ema.save_pretrained(args.runs / "unet" / "model")


def draw_grid(vae, states, empty, columns: int) -> Callable[[UNet2DConditionModel, Path], None]:
    """What draws one picture for each of `states` (N, 32, W), always from the same noise."""

    def draw(unet, path: Path) -> None:
        z = sample(unet, states, empty, [common.generator("grid", i) for i in range(len(states))])
        common.save_grid(path, decode(vae, z), columns)

    return draw


def train(args, latents, rows, states, table, ours: int, grid=None, start: UNet2DConditionModel | None = None) -> UNet2DConditionModel:
    """The training proper; returns the averaged weights.

    Args:
        latents: (mean, standard deviation) of the pictures' posteriors, (M, 8, 8, 8) each.
        rows: (N, copies) long, the rows of `latents` that a training picture is drawn from, each as often as it stands there.
        states: (captions, 32, W), row 0 the empty caption.
        table: (N, variants) long, rows of `states`: the captions of each training picture.
        ours: the first so many of the N are objects of ours.
        grid: what draws samples to a path, or nothing.
        start: the weights to go on from; None: fresh ones.
    """
    device, (mean, std), others = args.device, latents, round(OTHERS * args.batch)
    torch.manual_seed(2)
    unet = build().to(device, memory_format=torch.channels_last)
    if start is not None:
        unet.load_state_dict(start.state_dict())
    ema = build().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    ema.load_state_dict(unet.state_dict())
    if device == "cpu":
        fast.speed_up(unet)
    noising = DDPMScheduler(**SCHEDULE)
    alphas = noising.alphas_cumprod.to(device)
    weight = (MIN_SNR * (1 - alphas) / alphas).clamp(max=1)  # min-SNR weighting of eps (Hang et al. 2023, arXiv 2303.09556)
    weights, averages = list(unet.parameters()), list(ema.parameters())
    optimiser = torch.optim.AdamW(weights, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    run = common.Run("unet", args, {"model": unet, "ema": ema}, optimiser, warmup=200, together=TOGETHER)
    while run.going():
        g = common.generator("unet", run.step)
        picks = torch.cat(
            [torch.randint(ours, (args.batch - others,), generator=g), torch.randint(ours, len(rows), (others,), generator=g)]
        )
        words = table[picks, torch.randint(table.shape[1], (args.batch,), generator=g)]
        shown = rows[picks, torch.randint(rows.shape[1], (args.batch,), generator=g)] if rows.shape[1] > 1 else rows[picks, 0]
        t = torch.randint(1000, (args.batch,), generator=g).to(device)
        jitter, eps = torch.randn(2, args.batch, *mean.shape[1:], generator=g).to(device)
        z = mean[shown] + std[shown] * jitter
        a = alphas[t].view(-1, 1, 1, 1)
        z_t = (a.sqrt() * z + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            predicted = unet(z_t, t, states[words].float()).sample
        error = (predicted.float() - eps).square().mean((1, 2, 3))
        run.update((error * weight[t]).mean(), plain=float(error.detach().mean()))
        if run.step % TOGETHER == 0:  # where the processes agree on the weights
            decay = min(EMA_DECAY**TOGETHER, (1 + run.step) / (10 * TOGETHER + run.step))
            torch._foreach_lerp_(averages, weights, 1 - decay)
        if run.report_due(60):
            run.note()
            if grid and run.step > 200 and int(run.spent / 60) % 5 == 4:
                grid(ema, run.folder / f"grid-{int(run.spent / 60):03d}.png")
    return ema


if __name__ == "__main__":
    main()
