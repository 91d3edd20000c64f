"""Self-attention switched off (perturbed-attention guidance, PAG, Ahn et al., arXiv 2403.17377): what a network predicts of a vague picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def perturbed_attention(network: torch.nn.Module) -> Iterator[None]:
    """While open, every self-attention (attn1) of a diffusers UNet has the identity for its map: each place sees itself alone.

    PAG perturbs chosen layers; here it is all of them, which needs no choice. Not for two threads on one network at once.
    """
    mine = {module: module.processor for name, module in network.named_modules() if name.endswith("attn1")}
    for module in mine:
        module.processor = _Identity()
    try:
        yield
    finally:
        for module, processor in mine.items():
            module.processor = processor


class _Identity:
    """softmax(Q K^T) V with the identity in the softmax's place: V. (diffusers' own of this kind halves the batch, and threads split it.)"""

    def __call__(self, attention, hidden_states: Tensor, encoder_hidden_states=None, attention_mask=None, temb=None) -> Tensor:
        project, dropout = attention.to_out
        return dropout(project(attention.to_v(hidden_states)))
