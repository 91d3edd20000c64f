"""What a network predicts without self-attention: of a vague picture (perturbed-attention guidance, PAG, Ahn et al., arXiv 2403.17377)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from hfi.diffusion.model import Model, network_eps, spread


def predict_perturbed(model: Model, z_t: Tensor, t: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """eps_theta(z_t, t, c), and the same where every self-attention has the identity for its map: each place sees itself alone.

    PAG perturbs chosen layers; here it is all of a UNet's, which needs no choice.

    Args:
        z_t: (B, C, h, w); t: (B,); c: (B, L, D), as for `predict_noise`.
    """

    def passes(*batch: Tensor) -> Tensor:
        return torch.cat(network_eps(model, *(torch.cat([one] * 2) for one in batch)).chunk(2), 1)

    with second_half_perturbed(model.network):
        return spread(model, passes, z_t, t, c).chunk(2, 1)


@contextlib.contextmanager
def second_half_perturbed(network: torch.nn.Module) -> Iterator[None]:
    """While open, the second half of every batch goes through self-attentions (attn1) whose map is the identity."""
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    mine = {module: module.processor for name, module in network.named_modules() if name.endswith("attn1")}
    for module in mine:
        module.processor = PAGIdentitySelfAttnProcessor2_0()
    try:
        yield
    finally:
        for module, processor in mine.items():
            module.processor = processor
