"""What may happen to a picture between the renderer and a generator's output.

All functions take and return float (B, 3, 64, 64) in [0, 1] on a white ground; random numbers
come from the generator given. Nothing is mirrored: a right arrow must stay one.
"""

import torch
import torch.nn.functional as F


def move(x: torch.Tensor, g: torch.Generator, shift: float = 4, scale: float = 0.12, turn: float = 0.0) -> torch.Tensor:
    """Shift by up to `shift` pixels, scale by 1 +- `scale`, turn by up to `turn` radians; white comes in at the edges."""
    n = len(x)
    dx, dy, s, a = (torch.rand(4, n, generator=g) * 2 - 1) * torch.tensor([shift / 32, shift / 32, scale, turn]).unsqueeze(1)
    cos, sin, s = a.cos(), a.sin(), 1 / (1 + s)
    theta = torch.stack([torch.stack([cos * s, -sin * s, dx], 1), torch.stack([sin * s, cos * s, dy], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return 1 - F.grid_sample(1 - x, grid, padding_mode="zeros", align_corners=False)


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, sigma in pixels."""
    at = torch.arange(-3, 4, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma).square())
    kernel = (kernel / kernel.sum()).expand(3, 1, 7)
    x = F.pad(x, (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel.unsqueeze(2), groups=3), kernel.unsqueeze(3), groups=3)


def soften(x: torch.Tensor, g: torch.Generator, noise: float = 0.05, colour: float = 0.06) -> torch.Tensor:
    """Blur a third, coarsen a fifth, add noise to a half, and let colours drift a little."""
    n = len(x)
    u = torch.rand(4, n, 1, 1, 1, generator=g)
    sigma = 0.5 + 0.8 * float(torch.rand((), generator=g))
    x = torch.where(u[0] < 0.33, blur(x, sigma), x)
    coarse = F.interpolate(F.interpolate(x, scale_factor=0.5, mode="area"), scale_factor=2, mode="bilinear")
    x = torch.where(u[1] < 0.2, coarse, x)
    gain = 1 + colour * (torch.rand(n, 3, 1, 1, generator=g) * 2 - 1)
    x = 1 - (1 - x) * gain
    strength = noise * u[2] * (u[3] < 0.5)
    return (x + strength * torch.randn(x.shape, generator=g)).clamp(0, 1)
