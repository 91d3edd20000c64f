"""Train the autoencoder: 64x64x3 pictures <-> 8x8x8 latents (diffusers AutoencoderKL).

Loss: L1 on pixels, plus L1 on picture gradients at three scales (a sharpness term that needs
no downloaded network), plus opponent colours at low resolution, plus a small KL. The KL is larger than Stable Diffusion's, for a small
UNet makes rough latents and the decoder should forgive a tenth of a standard deviation.

Two parts: everything together, then (`--decoder-only`) the decoder alone on slightly noisy
latents. After the first the latents are settled, so the UNet trains beside the second.

Half of each batch are the chosen objects (held-out pairs never), half other icons of the same
sets, which teach it to compress rather than to remember. bf16 autocast with channels_last: on a
CPU with AMX this is 20 times faster than plain float32 (measured, see NOTES.md).
"""

import argparse

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from hfi.diffusion import fast

from . import common, data

LATENT_CHANNELS = 8
KL_WEIGHT = 1e-3  # per latent element, in units of mean absolute pixel error on [-1, 1]


def build() -> AutoencoderKL:
    """6.5 M parameters; narrow at full resolution, where the time goes."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        sample_size=data.SIZE,
        block_out_channels=(32, 64, 128, 192),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def sharpness_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean L1 between the gradients of two (B, 3, H, W) pictures, at full, half and quarter size."""
    total = 0.0
    for _ in range(3):
        for dim in (-1, -2):
            total = total + (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / 3


def opponents(x: torch.Tensor, size: int) -> torch.Tensor:
    """Red-green and blue-yellow of (B, 3, H, W), averaged over squares of `size` pixels: (B, 2, H / size, W / size)."""
    x = F.avg_pool2d(x, size)
    return torch.stack([x[:, 0] - x[:, 1], x[:, 2] - (x[:, 0] + x[:, 1]) / 2], 1)


def colour_loss(y: torch.Tensor, x: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
    """Error of the opponent colours: of the reconstruction at a quarter of the size, and of `guess`,
    a linear reading of the latents (B, 2, 8, 8).

    Colour is a small part of the pixel error: without these terms a short training learns the
    shapes and leaves red and green both brown (seen twice). The linear reading makes the encoder
    put colour into the latents at once, and the decoder soon uses it.
    """
    d = opponents(y - x, 4)
    return d.abs().mean() + 2 * d.square().mean() + (guess - opponents(x, 8)).square().mean()


def batch(pictures, extra, size: int, step: int, share: float) -> torch.Tensor:
    """(size, 3, 64, 64) in [-1, 1]: `share` of it chosen objects, the rest extra; shifted up to 4 pixels, half of them mirrored."""
    g = common.generator("vae", step)
    half = round(size * share)
    chosen = pictures[torch.randint(len(pictures), (half,), generator=g)]
    other = extra[torch.randint(len(extra), (size - half,), generator=g)]
    x = torch.cat([chosen, other]).float().permute(0, 3, 1, 2) / 127.5 - 1
    dx, dy = (int(v) for v in torch.randint(-4, 5, (2,), generator=g))
    x = torch.roll(x, (dy, dx), (2, 3))  # the margin is white and 4 wide: nothing wraps into view
    flip = torch.rand(len(x), generator=g) < 0.5
    x[flip] = x[flip].flip(-1)
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def reconstruct(vae, x: torch.Tensor) -> torch.Tensor:
    """Round trip through the mean latents, (B, 3, 64, 64) in [-1, 1]."""
    with torch.autocast(x.device.type, torch.bfloat16):
        return vae.decode(vae.encode(x).latent_dist.mean).sample.float().clamp(-1, 1)


def psnr(vae, pictures) -> float:
    """Decibels over [0, 1] pictures; `pictures` uint8 (N, 64, 64, 3)."""
    x = pictures.float().permute(0, 3, 1, 2) / 127.5 - 1
    device = next(vae.parameters()).device
    errors = [((reconstruct(vae, part.to(device)) - part.to(device)) / 2).square().mean((1, 2, 3)).cpu() for part in x.split(64)]
    return float(-10 * torch.log10(torch.cat(errors)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common.add_arguments(parser, minutes=22, batch=32, learning_rate=1.5e-3)
    parser.add_argument("--decoder-only", action="store_true", help="second part: the encoder (and so the latents) stays as it is")
    args = parser.parse_args()
    device = common.setup(args)
    pictures, pairs, seen = data.load_pictures()
    known, held = torch.from_numpy(pictures[seen]), torch.from_numpy(pictures[~seen])
    extra = torch.from_numpy(data.np.load(data.RUNS / "data" / "extra.npy"))
    torch.manual_seed(0)
    if args.decoder_only:
        vae = AutoencoderKL.from_pretrained(data.RUNS / "vae" / "model").to(device, memory_format=torch.channels_last).train()
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    else:
        vae = build().to(device, memory_format=torch.channels_last)
    name = "decoder" if args.decoder_only else "vae"
    trained = [p for p in vae.parameters() if p.requires_grad]
    if device == "cpu":
        fast.speed_up(vae, small_map=64)
    probe = torch.nn.Conv2d(LATENT_CHANNELS, 2, 1).to(device)  # not kept: it only reads colours from the latents
    probe_optimiser = torch.optim.Adam(probe.parameters(), lr=1e-2)
    run = common.Run(name, args, {"model": vae}, torch.optim.AdamW(trained, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3))
    while run.going():
        x = batch(known, extra, args.batch, run.step, 0.8 if args.decoder_only else 0.5).to(device)
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            g = common.generator("vae-noise", run.step)
            noise = torch.randn(posterior.mean.shape, generator=g).to(device)
            spread = posterior.std
            if args.decoder_only:  # forgive a UNet: noise of up to 0.15 standard deviations of the latents
                spread = spread + 0.15 / vae.config.scaling_factor * torch.rand(len(x), 1, 1, 1, generator=g).to(device)
            y = vae.decode(posterior.mean + spread * noise).sample
        y = y.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        pixel, sharp = (y - x).abs().mean(), sharpness_loss(y, x)
        colour = colour_loss(y, x, probe(mean))
        probe_optimiser.zero_grad()
        run.update(
            pixel + sharp + colour + KL_WEIGHT * kl,
            **{k: float(v.detach()) for k, v in {"pixel": pixel, "sharp": sharp, "colour": colour, "kl": kl}.items()},
        )
        probe_optimiser.step()
        if run.report_due():
            vae.eval()
            run.note(psnr_known=psnr(vae, known[::8]), psnr_held_out=psnr(vae, held))
            picks = torch.cat([known[::170][:8], held[::18][:8]])
            original = (picks.float().permute(0, 3, 1, 2) / 127.5 - 1).to(device)
            common.save_grid(run.folder / "grid.png", torch.cat([original, reconstruct(vae, original)]) / 2 + 0.5, columns=16)
            vae.train()
    vae.eval()
    if common.RANK == 0:
        if args.decoder_only:
            vae.save_pretrained(data.RUNS / "vae" / "model")
            data.write_atomically(run.folder / "done", b"")
        else:
            save(vae, known)
        print(f"PSNR {psnr(vae, known):.2f} dB on pictures seen, {psnr(vae, held):.2f} on held-out pairs")


@torch.no_grad()
def save(vae, known) -> None:
    """Write runs/vae/model, with the scaling factor that gives the latents unit standard deviation."""
    device = next(vae.parameters()).device
    means = []
    for part in known.split(64):
        x = (part.float().permute(0, 3, 1, 2) / 127.5 - 1).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            means.append(vae.encode(x).latent_dist.mean.float())
    latents = torch.cat(means)
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    vae.save_pretrained(data.RUNS / "vae" / "model")
    print(f"scaling factor {vae.config.scaling_factor:.3f}, channel means {latents.mean((0, 2, 3)).tolist()}")


if __name__ == "__main__":
    main()
