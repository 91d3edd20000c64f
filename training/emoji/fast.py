"""Fast bf16 (AMX) CPU training and sampling for small diffusers models.

    unet = enable_fast_cpu_training(unet)       # state_dict unchanged, fp32 master weights
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = unet(x, t, c).sample
    loss = F.mse_loss(out.float(), target)      # loss, optimizer in fp32

* 1x1 and 3x3 stride-1 convolutions on small maps become NHWC im2col + bf16 GEMM (oneDNN's
  small-map backward convolution does not reach AMX speed; its bf16 GEMMs do).
* attention is plain matmul/softmax: the CPU flash backward in bf16 is ~15x slower than in fp32.
* GroupNorm is written out on channels-last bf16, with statistics in fp32.
Active only under CPU bf16 autocast (or on bf16 tensors); otherwise the stock modules run.
"""

import types

import torch
import torch.nn as nn
import torch.nn.functional as F

BF = torch.bfloat16


def _im2col3(x):
    """(N,H,W,C) contiguous -> (N*H*W, 9C) for a 3x3 window, padding 1, order (ky,kx,c)."""
    n, h, w, c = x.shape
    p = F.pad(x, (0, 0, 1, 1, 1, 1))
    s = p.stride()
    return p.as_strided((n, h, w, 3, 3 * c), (s[0], s[1], s[2], s[1], 1)).reshape(n * h * w, 9 * c)


class _Conv3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):  # x: NCHW logical, any layout
        n, c, h, w = x.shape
        xl = x.permute(0, 2, 3, 1).to(BF).contiguous()
        wl = weight.permute(0, 2, 3, 1).to(BF).reshape(weight.shape[0], -1)
        y = torch.addmm(bias.to(BF), _im2col3(xl), wl.t()) if bias is not None else _im2col3(xl) @ wl.t()
        ctx.save_for_backward(xl, wl)
        ctx.meta = (x.dtype, weight.dtype, None if bias is None else bias.dtype)
        return y.view(n, h, w, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, g):
        xl, wl = ctx.saved_tensors
        n, h, w, c = xl.shape
        o = wl.shape[0]
        gl = g.permute(0, 2, 3, 1).to(BF).contiguous()
        gx = gw = gb = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            gcol = _im2col3(gl)  # one im2col of the gradient serves both GEMMs
        if ctx.needs_input_grad[0]:
            wf = wl.view(o, 9, c).flip(1).transpose(0, 1).reshape(9 * o, c)
            gx = (gcol @ wf).view(n, h, w, c).permute(0, 3, 1, 2).to(ctx.meta[0])
        if ctx.needs_input_grad[1]:
            gw = (gcol.t() @ xl.view(-1, c)).view(9, o, c).flip(0).to(ctx.meta[1])
            gw = gw.view(3, 3, o, c).permute(2, 3, 0, 1)
        if ctx.needs_input_grad[2]:
            gb = gl.view(-1, o).sum(0, dtype=torch.float32).to(ctx.meta[2])
        return gx, gw, gb


def _on(x):
    return x.device.type == "cpu" and (x.dtype == BF or torch.is_autocast_enabled("cpu"))


def _conv_forward(self, x):
    if not _on(x) or x.shape[2] * x.shape[3] > self._fast_max_hw:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
    if self.kernel_size == (1, 1):
        w = self.weight.flatten(1)
        return F.linear(x.permute(0, 2, 3, 1).to(BF), w, self.bias).permute(0, 3, 1, 2)
    return _Conv3.apply(x, self.weight, self.bias)


class _GroupNorm(torch.autograd.Function):
    """GroupNorm on channels-last bf16 with float32 statistics.

    The stock backward takes 44 % of an autoencoder step (channels_last bf16); this one makes
    two passes over the tensor with plain fused multiply-adds.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):  # x: NCHW logical
        n, c, h, w = x.shape
        xl = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        count = h * w * c // groups
        total = xl.sum(1, dtype=torch.float32).view(n, groups, -1).sum(-1)
        squares = xl.float().square().sum(1).view(n, groups, -1).sum(-1)
        mean = total / count
        scale = ((squares / count - mean * mean).clamp_min(0) + eps).rsqrt()
        mean, scale = (v.repeat_interleave(c // groups, 1) for v in (mean, scale))  # (n, c)
        gain, shift = (scale * weight).unsqueeze(1), (bias - mean * scale * weight).unsqueeze(1)
        ctx.save_for_backward(xl, weight, scale, mean)
        ctx.meta = (groups, count, x.shape)
        return torch.addcmul(shift.to(x.dtype), xl, gain.to(x.dtype)).view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, g):
        xl, weight, scale, mean = ctx.saved_tensors
        groups, count, (n, c, h, w) = ctx.meta
        gl = g.permute(0, 2, 3, 1).reshape(n, h * w, c)
        sum_g = gl.sum(1, dtype=torch.float32)  # (n, c)
        sum_gx = ((gl * xl).sum(1, dtype=torch.float32) - mean * sum_g) * scale  # sum of g * xhat
        a, b = ((v * weight).view(n, groups, -1).sum(-1).div(count).repeat_interleave(c // groups, 1) for v in (sum_g, sum_gx))
        on_g, on_x, constant = (v.unsqueeze(1).to(gl.dtype) for v in (scale * weight, -scale * scale * b, scale * (mean * scale * b - a)))
        gx = torch.addcmul(torch.addcmul(constant, xl, on_x), gl, on_g)
        return gx.view(n, h, w, c).permute(0, 3, 1, 2), sum_gx.sum(0), sum_g.sum(0), None, None


def _gn_forward(self, x):
    if not _on(x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
    if x.ndim != 4:
        with torch.autocast("cpu", enabled=False):
            return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)
    return _GroupNorm.apply(x.to(BF), self.weight, self.bias, self.num_groups, self.eps)


class MatmulAttnProcessor:
    """Attention by bmm + softmax, for token inputs (UNet) and NCHW inputs (VAE mid block)."""

    fp32_sdpa = False

    def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, temb=None, *a, **k):
        res, shape = x, x.shape
        if attn.spatial_norm is not None:
            x = attn.spatial_norm(x, temb)
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        b, s, _ = x.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(
                attention_mask, (encoder_hidden_states if encoder_hidden_states is not None else x).shape[1], b
            )
            attention_mask = attention_mask.view(b, attn.heads, -1, attention_mask.shape[-1])
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        c = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            c = attn.norm_encoder_hidden_states(c)
        q, kk, v = (m.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for m in (attn.to_q(x), attn.to_k(c), attn.to_v(c)))
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        if attn.norm_k is not None:
            kk = attn.norm_k(kk)
        if self.fp32_sdpa:
            with torch.autocast("cpu", enabled=False):
                o = F.scaled_dot_product_attention(q.float(), kk.float(), v.float(), attn_mask=attention_mask)
        else:
            w = (q * q.shape[-1] ** -0.5) @ kk.transpose(-1, -2)
            if attention_mask is not None:
                w = w + attention_mask
            o = w.softmax(-1).to(v.dtype) @ v
        o = attn.to_out[1](attn.to_out[0](o.transpose(1, 2).reshape(b, s, -1)))
        if len(shape) == 4:
            o = o.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            o = o + res
        return o / attn.rescale_output_factor


def enable_fast_cpu_training(model, max_hw=256, conv=True, norm=True, attn=True):
    """Patch instances in place (forwards only; parameters, classes, state_dict stay as they are)."""
    model.to(memory_format=torch.channels_last)
    for m in model.modules():
        if (
            conv
            and isinstance(m, nn.Conv2d)
            and m.stride == (1, 1)
            and m.groups == 1
            and m.dilation == (1, 1)
            and (m.kernel_size, m.padding) in (((1, 1), (0, 0)), ((3, 3), (1, 1)))
            and m.padding_mode == "zeros"
        ):
            m._fast_max_hw = max_hw
            m.forward = types.MethodType(_conv_forward, m)
        elif norm and isinstance(m, nn.GroupNorm):
            m.forward = types.MethodType(_gn_forward, m)
    if attn:
        model.set_attn_processor(MatmulAttnProcessor())
    return model
