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


def prepare_texts(pairs, kinds, device: str) -> None:
    """Write runs/unet/texts.safetensors: `states` (captions, 32, width) bf16, row 0 the empty one; `table`
    (pairs and then kinds, VARIANTS) rows of it. Encoded once: a minute that no training step pays again."""
    path = data.RUNS / "unet" / "texts.safetensors"
    if path.exists():
        return
    texts, table = caption_table(pairs, kinds, Captions())
    tokenizer, text_encoder = load_text(device)
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


def load_text(device: str):
    """The trained tokenizer and text encoder, frozen."""
    tokenizer = CLIPTokenizer.from_pretrained(data.RUNS / "clip" / "model")
    return tokenizer, CLIPTextModel.from_pretrained(data.RUNS / "clip" / "model").to(device).eval().requires_grad_(False)


def load_parts(device: str):
    """The trained autoencoder, tokenizer and text encoder, frozen."""
    vae = (
        AutoencoderKL.from_pretrained(data.RUNS / "vae" / "model")
        .to(device, memory_format=torch.channels_last)
        .eval()
        .requires_grad_(False)
    )
    return vae, *load_text(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_arguments(parser, minutes=120, batch=128, learning_rate=1.1e-3)
    parser.add_argument("--prepare", action="store_true", help="encode the captions and stop (needs CLIP only)")
    args = parser.parse_args()
    device = common.setup(args)
    pictures, pairs, seen = data.load_pictures()
    extra, kinds = data.load_extra()
    if common.RANK == 0:
        prepare_texts([pair for pair, ok in zip(pairs, seen, strict=True) if ok], kinds, device)
    if args.prepare:
        return
    common.wait_for_others()
    texts = load_file(data.RUNS / "unet" / "texts.safetensors", device=device)
    states, table = texts["states"], texts["table"].cpu()
    vae, tokenizer, text_encoder = load_parts(device)
    ours, others = int(seen.sum()), round(OTHERS * args.batch)
    mean, std = encode_pictures(vae, torch.cat([torch.from_numpy(pictures[seen]), torch.from_numpy(extra)]))
    grid_states = encode_texts(GRID_PROMPTS, tokenizer, text_encoder)
    print(f"{len(mean)} pictures, latents' standard deviation {float(mean.std()):.3f}, posterior's {float(std.mean()):.3f}")

    torch.manual_seed(2)
    unet = build().to(device, memory_format=torch.channels_last)
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
            [torch.randint(ours, (args.batch - others,), generator=g), torch.randint(ours, len(mean), (others,), generator=g)]
        )
        words = table[picks, torch.randint(VARIANTS, (args.batch,), generator=g)]
        t = torch.randint(1000, (args.batch,), generator=g).to(device)
        jitter, eps = torch.randn(2, args.batch, *mean.shape[1:], generator=g).to(device)
        z = mean[picks] + std[picks] * jitter
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
            if run.step > 200 and int(run.spent / 60) % 5 == 4:
                z = sample(ema, grid_states, states[:1], [common.generator("grid", i) for i in range(len(grid_states))])
                common.save_grid(run.folder / f"grid-{int(run.spent / 60):03d}.png", decode(vae, z), columns=len(data.choice.STYLES))
    if common.RANK == 0:
        ema.save_pretrained(data.RUNS / "unet" / "model")


if __name__ == "__main__":
    main()
