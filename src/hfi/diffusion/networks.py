"""The door of each family: how its network is called with z_t, t and the one condition tensor c.

c is (B, L, D) everywhere. A family with a pooled text vector carries it as one further row at the end, padded with zeros to D;
here it is split off. Size conditions and position ids are constants of the model at its native resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.diffusion.flow import eps_of_flow, to_flow

if TYPE_CHECKING:
    from hfi.diffusion.model import Model

UNGUIDED = 1.0  # the guidance that a guidance-distilled network is told where none is asked for; diffusers' training scripts do so


def token_rows(model: Model, c: Tensor) -> Tensor:
    """The rows of c that stand for tokens (B, L, D): without the pooled vector."""
    return c[:, :-1] if model.pooled else c


def pooled_row(model: Model, c: Tensor) -> Tensor:
    """The pooled text vector (B, P) that c ends with."""
    return c[:, -1, : model.pooled]


def with_pooled(c: Tensor, pooled: Tensor) -> Tensor:
    """c (B, L, D) and a pooled vector (B, P) as one tensor (B, L + 1, D)."""
    return torch.cat([c, torch.nn.functional.pad(pooled, (0, c.shape[-1] - pooled.shape[-1])).unsqueeze(1)], 1)


def unet_output(model: Model, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """What a UNet predicts (B, C, h, w): eps, v or z_0. SDXL also reads the pooled vector and six numbers for size and crop."""
    if not model.pooled:
        return model.network(z_t, t, encoder_hidden_states=c, return_dict=False)[0]
    height, width = model.picture_size
    size = torch.tensor([height, width, 0, 0, height, width], dtype=c.dtype, device=c.device).expand(len(c), 6)
    extra = {"text_embeds": pooled_row(model, c), "time_ids": size}
    return model.network(z_t, t, encoder_hidden_states=token_rows(model, c), added_cond_kwargs=extra, return_dict=False)[0]


def flow_eps(model: Model, z_t: Tensor, t: Tensor, c: Tensor, guidance: float | None) -> Tensor:
    """eps (B, C, h, w), float32, of a flow-matching transformer."""
    sigma = model.sigmas.to(z_t.device)[t].view(-1, 1, 1, 1)
    x_s = to_flow(z_t, sigma)
    call = _flux if model.family == "flux" else _sd3
    with model.autocast():
        v = call(model, x_s, sigma.flatten(), c, guidance)
    return eps_of_flow(v.float(), x_s, sigma)


def _sd3(model: Model, x_s: Tensor, sigma: Tensor, c: Tensor, guidance: float | None) -> Tensor:
    tokens, pooled = token_rows(model, c), pooled_row(model, c)
    return model.network(
        hidden_states=x_s, timestep=sigma * model.timesteps, encoder_hidden_states=tokens, pooled_projections=pooled, return_dict=False
    )[0]


def _flux(model: Model, x_s: Tensor, sigma: Tensor, c: Tensor, guidance: float | None) -> Tensor:
    """Latents go in as patches of 2x2, (B, h w / 4, 4 C); positions are (0, row, column), text lies at the origin."""
    count, channels, height, width = x_s.shape
    patches = x_s.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * 4)
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).view(-1, 3).to(x_s)
    distilled = x_s.new_full((count,), UNGUIDED if guidance is None else guidance) if model.distilled else None
    out = model.network(
        hidden_states=patches,
        timestep=sigma,
        guidance=distilled,
        pooled_projections=pooled_row(model, c),
        encoder_hidden_states=token_rows(model, c),
        txt_ids=places.new_zeros(c.shape[1] - 1, 3),
        img_ids=places,
        return_dict=False,
    )[0]
    return out.view(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x_s.shape)
