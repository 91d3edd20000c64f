"""Two judges that name the object and the style of an emoji picture, or say `neither`.

    judge = load_judge("scorer")
    out = judge(images)                 # float (B, 3, 64, 64) in [0, 1]
    out.object_probs                    # (B, objects + 1); the last column is `neither`: no known object
    out.style_probs                     # (B, styles)
    judge.objects[out.object_probs.argmax(1)[0]]

`annotator` (a residual network) plays simulated people and chooses settings; `scorer` (a
compact convolutional transformer, after Hassani et al. 2021) only scores, once, at the end. They share no layer, no
augmentation and no seed with each other, and nothing with the reward model. How well they do,
and how far their errors go together, is in MODEL_CARD.md.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

from . import judge_path

NEITHER = "neither"
BATCH = 256  # pictures at a time, for bounded memory


@dataclass(frozen=True)
class Verdict:
    """Probabilities: `object_probs` (B, objects + 1), `style_probs` (B, styles); rows sum to 1."""

    object_probs: torch.Tensor
    style_probs: torch.Tensor


class _Residual(nn.Module):
    """Two 3x3 convolutions and a short cut, (B, inner, H, W) -> (B, outer, H / stride, W / stride)."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)
        self.short = nn.Conv2d(inner, outer, 1, stride, bias=False) if stride > 1 or inner != outer else nn.Identity()

    def forward(self, x):
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.short(x))


class _Attention(nn.Module):
    """One pre-norm transformer block over tokens (B, N, width), four heads."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        # written out: the CPU's fused bf16 attention has a slow backward
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class _Tokens(nn.Module):
    """Three overlapping convolutions to 8x8 tokens, then attention; (B, 3, 64, 64) -> (B, width, 8, 8)."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        sizes = (3, 48, 96, width)
        self.stem = nn.Sequential(
            *(layer for inner, outer in zip(sizes, sizes[1:], strict=False) for layer in (nn.Conv2d(inner, outer, 3, 2, 1), nn.GELU()))
        )
        self.place = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(_Attention(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2) + self.place
        return self.norm(self.blocks(x)).transpose(1, 2).unflatten(2, (8, 8))


class JudgeNetwork(nn.Module):
    """(B, 3, 64, 64) in [0, 1] -> object logits (B, objects + 1) and style logits (B, styles)."""

    def __init__(self, architecture: str, objects: int, styles: int):
        super().__init__()
        if architecture == "residual":
            widths = (32, 64, 128, 192)
            layers = [nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
            for inner, outer, stride in zip((32, *widths), widths, (1, 2, 2, 2), strict=False):
                layers.append(_Residual(inner, outer, stride))
        elif architecture == "tokens":
            widths = (160,)
            layers = [_Tokens(160, 4)]
        else:
            raise ValueError(f"unknown judge architecture {architecture!r}: residual or tokens")
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        self.object_head = nn.Linear(widths[-1], objects + 1)
        self.style_head = nn.Linear(widths[-1], styles)

    def forward(self, x):
        h = self.dropout(self.body(x * 2 - 1).mean((2, 3)))
        return self.object_head(h), self.style_head(h)


class Judge:
    """A trained judge; `objects` ends in "neither", `styles` does not."""

    def __init__(self, name: str, network: JudgeNetwork, objects: list[str], styles: list[str]):
        self.name, self.network, self.objects, self.styles = name, network.eval(), objects, styles

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> Verdict:
        """images float (B, 3, 64, 64) in [0, 1]."""
        if images.ndim != 4 or images.shape[1:] != (3, 64, 64):
            raise ValueError(f"a judge looks at (B, 3, 64, 64) pictures, not {tuple(images.shape)}")
        device = self.network.object_head.weight.device
        parts = [self.network(part.to(device, torch.float32)) for part in images.split(BATCH)]
        objects, styles = (
            torch.cat(column).softmax(1) if parts else torch.zeros(0, n)
            for column, n in zip(zip(*parts, strict=True) if parts else ((), ()), (len(self.objects), len(self.styles)), strict=True)
        )
        return Verdict(objects, styles)


def load_judge(name: str, device: str = "cpu") -> Judge:
    """The shipped judge "annotator" or "scorer"."""
    return load_folder(judge_path(name), name, device)


def load_folder(folder: Path, name: str, device: str = "cpu") -> Judge:
    """A judge from a folder with config.json (architecture, objects, styles) and model.safetensors."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = JudgeNetwork(config["architecture"], len(config["objects"]) - 1, len(config["styles"]))
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in load_file(folder / "model.safetensors").items()}
    )
    return Judge(name, network.to(device), config["objects"], config["styles"])
