"""Load a text-to-image pipeline and speak one noise convention: eps, whatever the network itself predicts."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfi.diffusion.fast import in_threads, speed_up, spread_over_threads
from hfi.diffusion.guidance import Guidance
from hfi.diffusion.identity import model_folder, model_hash
from hfi.errors import HFIError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass
class Model:
    """A latent diffusion model with a UNet, ready for every stage.

    Weights are float32; `autocast()` chooses the arithmetic of forward passes.
    """

    name: str
    hash: str
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    alpha_bar: Tensor  # (T,) cumulative signal level, float32, on the CPU
    prediction: str  # what the UNet predicts: epsilon, v_prediction or sample
    latent_shape: tuple[int, int, int]  # (C, h, w)
    scaling: float
    text_cache: dict = field(default_factory=dict, repr=False)
    guidance: tuple[Guidance, ...] = ()  # what sampling steers away from: hfi.erasure.delta.applied puts it on

    @property
    def unet(self) -> torch.nn.Module:
        return self.pipeline.unet

    @property
    def vae(self) -> torch.nn.Module:
        return self.pipeline.vae

    @property
    def text_encoder(self) -> torch.nn.Module:
        return self.pipeline.text_encoder

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def timesteps(self) -> int:
        """Length T of the training schedule."""
        return len(self.alpha_bar)

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 arithmetic over float32 weights where asked for; plain float32 otherwise."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def pick_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one, else the CPU. Raises HFIError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise HFIError("no CUDA device is available", field="device", remedy="use --device cpu, or install a CUDA build of torch")
    if name == "mps" and not torch.backends.mps.is_available():
        raise HFIError("no MPS device is available", field="device", remedy="use --device cpu")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """'auto' is bfloat16 where the device computes it fast, else float32."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def load_model(source: str, device: str = "auto", dtype: str = "auto") -> Model:
    """Load 'emoji', a diffusers folder or a hub id.

    Only safetensors are read. Raises HFIError naming what is missing.
    """
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    place = pick_device(device)
    folder = model_folder(source)
    if folder is not None and not (folder / "model_index.json").is_file():
        raise HFIError(
            "not a diffusers pipeline (model_index.json is missing)",
            file=source,
            field="model",
            remedy="give a folder written by save_pretrained, a hub id, or 'emoji'; 'hfi models' lists what is supported",
        )
    if folder is None and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise HFIError(
            "unknown model",
            file=source,
            field="model",
            remedy="use 'emoji', a diffusers folder or a hub id like CompVis/stable-diffusion-v1-4; 'hfi models' lists what is supported",
        )
    try:
        with warnings.catch_warnings(), quiet_loading():
            warnings.simplefilter("ignore")
            pipeline = StableDiffusionPipeline.from_pretrained(
                str(folder or source),
                torch_dtype=torch.float32,
                use_safetensors=True,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
                local_files_only=folder is not None,
            )
    except Exception as error:  # the libraries raise many kinds here; all mean the same to the user
        remedy = (
            "the folder is damaged or of another family; write it again with save_pretrained (safetensors)"
            if folder
            else "check the name, the network and, for gated models, 'hf auth login'"
        )
        raise HFIError(
            f"cannot be loaded ({str(error).strip().splitlines()[0][:140] if str(error).strip() else type(error).__name__})",
            file=source,
            field="model",
            remedy=remedy,
        ) from error
    return from_pipeline(pipeline, source, place, pick_dtype(dtype, place))


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the libraries' own loading bars; ours show what takes time."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    yield
    diffusers_logging.enable_progress_bar()
    transformers_logging.enable_progress_bar()


def from_pipeline(pipeline: Any, name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """Wrap a loaded pipeline; raises HFIError for a family that is not supported or weights with NaN."""
    unet = pipeline.unet
    prediction = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction", "sample"}:
        raise HFIError(f"its scheduler predicts {prediction!r}, which is not supported", file=name, field="model")
    for part in (unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval().to(device=device, dtype=torch.float32)
        if device.type == "cpu":
            part.to(memory_format=torch.channels_last)
        for key, weight in part.named_parameters():
            if not torch.isfinite(weight).all():
                raise HFIError("holds NaN or infinite weights", file=name, field=key, remedy="get an undamaged copy of the model")
    if device.type == "cpu" and dtype == torch.bfloat16:
        speed_up(unet)
        speed_up(pipeline.vae)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return Model(
        name=name,
        hash=model_hash(name),
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        alpha_bar=pipeline.scheduler.alphas_cumprod.float().cpu(),
        prediction=prediction,
        latent_shape=(unet.config.in_channels, height, width),
        scaling=float(pipeline.vae.config.scaling_factor),
    )


def predict_noise(model: Model, z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """eps_theta(z_t, t, c), float32.

    Args:
        z_t: noised latents (B, C, h, w), unit-variance convention of the model.
        t: timesteps (B,), integers in [0, T).
        c: text conditions (B, L, D).
    """

    def passes(z_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        with model.autocast():
            out = model.unet(z_t, t.to(z_t.device), encoder_hidden_states=c, return_dict=False)[0]
        return to_eps(out.float(), z_t, model.alpha_bar.to(z_t.device)[t.to(z_t.device)], model.prediction)

    return in_threads(passes, z_t, t, c) if spread_over_threads(model.unet, model.device) else passes(z_t, t, c)


def to_eps(out: Tensor, z_t: Tensor, alpha_bar_t: Tensor, prediction: str) -> Tensor:
    """Convert a network's output to eps (Salimans and Ho 2022, arXiv 2202.00512, for v)."""
    if prediction == "epsilon":
        return out
    signal, noise = (level.sqrt().view(-1, 1, 1, 1) for level in (alpha_bar_t, 1 - alpha_bar_t))
    if prediction == "v_prediction":
        return signal * out + noise * z_t
    return (z_t - signal * out) / noise  # "sample": the network predicts z_0


def add_noise(model: Model, z_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps."""
    level = model.alpha_bar.to(z_0.device)[t.to(z_0.device)].view(-1, 1, 1, 1)
    return level.sqrt() * z_0 + (1 - level).sqrt() * eps


def save_pipeline(model: Model, folder: Path) -> None:
    """Write the pipeline as a diffusers folder (safetensors), whole or not at all."""
    import shutil

    from hfi.errors import disk_errors

    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        model.pipeline.save_pretrained(partial, safe_serialization=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
