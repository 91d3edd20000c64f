"""r_psi: an MLP on L2-normalised CLIP image embeddings (METHOD section 3; the paper does not say its size)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hfi.errors import HFIError
from hfi.seeds import generator
from hfi.workspace import read_json, read_tensors, write_json, write_tensors


class RewardModel(nn.Module):
    """Embeddings (N, D) -> rewards (N,), unbounded.

    Embeddings are centred and scaled by two fixed numbers of the training pictures first (ours): CLIP embeddings lie in a
    narrow cone, in which an MLP learns slowly.
    """

    def __init__(self, width: int, hidden: Sequence[int], seed: int = 0):
        super().__init__()
        self.width, self.hidden = width, tuple(hidden)
        sizes = (width, *hidden, 1)
        self.layers = nn.ModuleList(nn.utils.skip_init(nn.Linear, inner, outer) for inner, outer in zip(sizes, sizes[1:], strict=False))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        random = generator(seed, "reward", "weights")
        for layer in self.layers:  # torch's own default, but from our generator
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=random)
            nn.init.zeros_(layer.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        h = (embeddings - self.centre) * self.scale
        for layer in self.layers[:-1]:
            h = torch.nn.functional.gelu(layer(h))
        return self.layers[-1](h).squeeze(-1)

    def fit_scale(self, embeddings: Tensor) -> None:
        """Take centre and scale from the training pictures (N, D)."""
        self.centre.copy_(embeddings.mean(0))
        spread = (embeddings - self.centre).square().mean().sqrt()
        self.scale.copy_(1 / spread if spread > 1e-8 else torch.ones(()))

    def save(self, folder: Path, facts: dict) -> None:
        """Write reward.safetensors and reward.json; `facts` says what its numbers mean and which encoder it needs."""
        write_tensors(folder / "reward.safetensors", self.state_dict())
        write_json(folder / "reward.json", {"width": self.width, "hidden": list(self.hidden), **facts})

    @classmethod
    def load(cls, folder: Path) -> RewardModel:
        """Read a saved model; raises HFIError when it is missing or damaged."""
        about, tensors = read_json(folder / "reward.json"), read_tensors(folder / "reward.safetensors")
        try:
            model = cls(about["width"], about["hidden"])  # type: ignore[index]
            model.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError):
            raise HFIError("does not fit reward.json", file=folder / "reward.safetensors", remedy="run 'hfi reward' again") from None
        return model.eval()
