"""Faster passes of small networks on a CPU with bf16 matrix units: same mathematics, weights and state dicts.

Under bf16 autocast three things are slow on CPUs: GroupNorm of channels-last maps (a third of a sampling pass, 44 % of
an autoencoder's training step), the backward of fused attention (about 15 times its float32 time) and that of 3x3
convolutions on small maps. `speed_up` writes the three out. In float32, and on other devices, the library's own run.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_MAP = 256  # positions; above this the library's convolution, and its GroupNorm's forward, are as fast
TINY_MAP = 16  # and up to this a matrix product is as fast even where nothing learns
SMALL_NETWORK = 50_000_000  # parameters; above this one pass keeps all cores busy by itself


def speed_up(network: torch.nn.Module, small_map: int = SMALL_MAP) -> None:
    """Give a diffusers UNet or autoencoder the passes written out here, where they are the faster ones."""
    for module in network.modules():
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = _GroupNorm
        elif _replaceable(module):
            module.__class__ = _Conv2d
            module.small_map = small_map
        elif type(module) is torch.nn.Linear:
            module.__class__ = _Linear
    network.set_attn_processor(_Attention())


@contextlib.contextmanager
def constant_weights(network: torch.nn.Module) -> Iterator[None]:
    """While open, the weights that do not learn are promised to stay as they are, so each is turned into bf16 once, not in every pass.

    Without gradients, no weight learns. May be opened again inside itself: what learns outside may be constant within a sampling run.
    """
    mine = [
        module
        for module in network.modules()
        if isinstance(module, (_Conv2d, _Linear))
        and module.turned is None
        and not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters(recurse=False)))
    ]
    for module in mine:
        module.turned = {}
    try:
        yield
    finally:
        for module in mine:
            module.turned = None


def in_threads(function: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """function(*batch), its parts computed side by side: one thread and one part of the batch for each core.

    On passes as small as the embedded model's, two threads with half a batch each beat one operation after the other on
    two cores. Only for functions that treat each element of the batch alone and need no gradient.
    """
    threads = min(torch.get_num_threads(), len(batch[0]))
    if threads < 2:
        return function(*batch)

    def part(*tensors: Tensor) -> Tensor:
        with torch.no_grad():
            return function(*tensors)

    return torch.cat(list(_pool(threads).map(part, *(tensor.tensor_split(threads) for tensor in batch))))


def spread_over_threads(network: torch.nn.Module, device: torch.device) -> bool:
    """True where `in_threads` pays: a small network on the CPU, no gradient wanted."""
    if device.type != "cpu" or torch.is_grad_enabled():
        return False
    return sum(parameter.numel() for parameter in network.parameters()) <= SMALL_NETWORK


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "passes", initializer=lambda: torch.set_num_threads(1))


def _half(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _replaceable(module: torch.nn.Module) -> bool:
    return (
        type(module) is torch.nn.Conv2d
        and module.stride == (1, 1)
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.bias is not None
        and module.padding_mode == "zeros"
        and (module.kernel_size, module.padding) in (((1, 1), (0, 0)), ((3, 3), (1, 1)))
    )


class _Linear(torch.nn.Linear):
    """A linear layer that keeps its bf16 weights where they are constant."""

    turned: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.turned is None or not _half(x):
            return super().forward(x)
        if not self.turned:
            self.turned |= {name: value.to(torch.bfloat16) for name, value in self.named_parameters()}
        return F.linear(x, self.turned["weight"], self.turned.get("bias"))


class _Conv2d(torch.nn.Conv2d):
    """A convolution by matrix products where its map is small and it learns or its weights are constant; else the library's."""

    turned: dict[str, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not _half(x) or not (torch.is_grad_enabled() or self.turned is not None):
            return super().forward(x)
        n, _, h, w = x.shape
        product = h * w <= (self.small_map if torch.is_grad_enabled() else TINY_MAP)
        if self.turned is None and not product:
            return super().forward(x)
        kept = self.turned if self.turned is not None else {}
        if "bias" not in kept:
            kept["bias"] = self.bias.to(torch.bfloat16)
        if product and self.kernel_size == (3, 3):
            return _Convolution3x3.apply(x, self.weight, self.bias, kept)
        if "weight" not in kept:
            kept["weight"] = self.weight.to(torch.bfloat16)
        if self.kernel_size == (3, 3):
            return F.conv2d(x, kept["weight"], kept["bias"], padding=1)
        flat = x.permute(0, 2, 3, 1).reshape(n * h * w, -1)
        return F.linear(flat, kept["weight"].flatten(1), kept["bias"]).view(n, h, w, -1).permute(0, 3, 1, 2)


class _GroupNorm(torch.nn.GroupNorm):
    """GroupNorm over channels-last bf16 maps with float32 statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if not _half(x) or x.ndim != 4 or not (torch.is_grad_enabled() or x.shape[2] * x.shape[3] <= SMALL_MAP):
            return super().forward(x)
        return _Normalisation.apply(x.to(torch.bfloat16), self.weight, self.bias, self.num_groups, self.eps)


class _Attention:
    """Fused attention where nothing learns, written out where something does."""

    def __init__(self) -> None:
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

        self.fused, self.written = AttnProcessor2_0(), AttnProcessor()

    def __call__(self, attention, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        """The arguments by the names that diffusers looks for: it drops, with a warning, what is not among them."""
        chosen = self.written if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") else self.fused
        return chosen(attention, hidden_states, encoder_hidden_states, attention_mask, temb)


class _Normalisation(torch.autograd.Function):
    """Two passes over the map with plain multiply-adds, forward and backward."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        n, c, h, w = x.shape
        last, count = x.permute(0, 2, 3, 1).reshape(n, h * w, c), h * w * c // groups
        exact = last.float()
        mean, square = (v.view(n, groups, -1).sum(-1) / count for v in (exact.sum(1), (exact * exact).sum(1)))
        scale = ((square - mean * mean).clamp_min(0) + eps).rsqrt()
        mean, scale = (v.repeat_interleave(c // groups, 1) for v in (mean, scale))  # (n, c)
        gain, shift = (scale * weight).unsqueeze(1), (bias - mean * scale * weight).unsqueeze(1)
        ctx.save_for_backward(last, weight, scale, mean)
        ctx.meta = groups, count
        return torch.addcmul(shift.to(x.dtype), last, gain.to(x.dtype)).view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        last, weight, scale, mean = ctx.saved_tensors
        groups, count = ctx.meta
        n, c, h, w = gradient.shape
        dense = gradient.permute(0, 2, 3, 1).reshape(n, h * w, c)
        by_bias = dense.sum(1, dtype=torch.float32)  # (n, c)
        by_weight = ((dense * last).sum(1, dtype=torch.float32) - mean * by_bias) * scale
        a, b = ((v * weight).view(n, groups, -1).sum(-1).div(count).repeat_interleave(c // groups, 1) for v in (by_bias, by_weight))
        to_dense, to_last, constant = (
            v.unsqueeze(1).to(dense.dtype) for v in (scale * weight, -scale * scale * b, scale * (mean * scale * b - a))
        )
        to_x = torch.addcmul(torch.addcmul(constant, last, to_last), dense, to_dense)
        return to_x.view(n, h, w, c).permute(0, 3, 1, 2), by_weight.sum(0), by_bias.sum(0), None, None


def _columns(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (N H W, 9 C): every 3x3 window with padding 1, order (ky, kx, c)."""
    n, h, w, c = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    a, b, d, _ = padded.stride()
    return padded.as_strided((n, h, w, 3, 3 * c), (a, b, d, b, 1)).reshape(n * h * w, 9 * c)


def _across(weight: Tensor) -> Tensor:
    """(out, C, 3, 3) -> (out, 9 C), order (ky, kx, c)."""
    return weight.permute(0, 2, 3, 1).to(torch.bfloat16).reshape(weight.shape[0], -1)


def _back(flat: Tensor) -> Tensor:
    """(out, 9 C) -> (9 out, C): the windows turned round, for the gradient of the input."""
    out = flat.shape[0]
    return flat.view(out, 9, -1).flip(1).transpose(0, 1).reshape(9 * out, -1)


class _Convolution3x3(torch.autograd.Function):
    """A 3x3 convolution, stride 1, padding 1, as one bf16 matrix product; gradients for input, weight and bias.

    `kept` holds what was made of constant weights, and is filled where it holds nothing yet.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, kept: dict[str, Tensor]) -> Tensor:
        n, _, h, w = x.shape
        last = x.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous()
        if "across" not in kept:
            kept["across"] = _across(weight)
        ctx.save_for_backward(last if weight.requires_grad else None)
        ctx.kept, ctx.meta = kept, (weight.shape[0], x.dtype, weight.dtype, bias.dtype)
        return torch.addmm(kept["bias"], _columns(last), kept["across"].t()).view(n, h, w, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        n, _, h, w = gradient.shape
        (last,), (out, of_x, of_weight, of_bias) = ctx.saved_tensors, ctx.meta
        dense = gradient.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous()
        columns = _columns(dense)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            if "back" not in ctx.kept:
                ctx.kept["back"] = _back(ctx.kept["across"])
            to_x = (columns @ ctx.kept["back"]).view(n, h, w, -1).permute(0, 3, 1, 2).to(of_x)
        if ctx.needs_input_grad[1]:
            product = (columns.t() @ last.view(len(dense) * h * w, -1)).view(9, out, -1).flip(0)
            to_weight = product.view(3, 3, out, -1).permute(2, 3, 0, 1).to(of_weight)
        if ctx.needs_input_grad[2]:
            to_bias = dense.view(-1, out).sum(0, dtype=torch.float32).to(of_bias)
        return to_x, to_weight, to_bias, None
