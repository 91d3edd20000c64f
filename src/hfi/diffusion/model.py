"""Load a text-to-image pipeline and speak one noise convention: eps, whatever the network itself predicts."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfi.config import Memory, StudyConfig
from hfi.diffusion.families import FAMILIES, Family, family_of
from hfi.diffusion.fast import in_threads, speed_up, spread_over_threads
from hfi.diffusion.flow import LEAST_SIGNAL, alpha_bar_of, flow_sigmas
from hfi.diffusion.guidance import Guidance
from hfi.diffusion.identity import model_hash
from hfi.diffusion.memory import save_memory
from hfi.diffusion.networks import flow_eps, unet_output
from hfi.errors import HFIError


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder with its tokenizer. `name` (clip, clip_l, clip_g, t5) also names its columns in a soft token."""

    name: str
    tokenizer: Any
    network: torch.nn.Module
    length: int  # ids that it reads

    @property
    def embedding(self) -> torch.nn.Module:
        """The layer that looks ids up (T5 names another one, with the same weights, that it never calls)."""
        return (self.network.encoder if self.name == "t5" else self.network).get_input_embeddings()

    @property
    def table(self) -> Tensor:
        """Its embedding table (V, D)."""
        return self.embedding.weight


@dataclass
class Model:
    """A latent diffusion model, ready for every stage, whatever its family.

    Weights are float32; `autocast()` chooses the arithmetic of forward passes.
    """

    name: str
    hash: str  # of its files
    content: str  # of its weights, whatever files they came from: what pictures are named after
    family: str  # a key of hfi.diffusion.families.FAMILIES
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    alpha_bar: Tensor  # (T,) cumulative signal level, float32, on the CPU
    prediction: str  # what the network predicts: epsilon, v_prediction, sample or flow
    latent_shape: tuple[int, int, int]  # (C, h, w)
    scaling: float
    shift: float = 0.0  # the autoencoder's latents are (z_0 / scaling) + shift
    encoders: tuple[TextEncoder, ...] = ()
    pooled: int = 0  # width of the pooled text vector that c ends with; 0: none
    sigmas: Tensor | None = None  # (T,) s of flow-matching models
    distilled: bool = False  # the network takes the guidance scale as an input (FLUX.1-dev)
    offload: bool = False  # text encoders and autoencoder wait on the CPU
    empty_is_zero: bool = False  # the empty prompt's condition is all zeros (SDXL)
    text_cache: dict = field(default_factory=dict, repr=False)
    guidance: tuple[Guidance, ...] = ()  # what sampling steers away from: hfi.erasure.delta.applied puts it on

    @property
    def network(self) -> torch.nn.Module:
        """What denoises: the UNet or the transformer."""
        return getattr(self.pipeline, FAMILIES[self.family].network[0])

    @property
    def unet(self) -> torch.nn.Module:
        """`network`, by its name in the families that have a UNet."""
        return self.network

    @property
    def vae(self) -> torch.nn.Module:
        return self.pipeline.vae

    @property
    def text_encoder(self) -> torch.nn.Module:
        """The first text encoder, a CLIP in every family."""
        return self.encoders[0].network

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's tokenizer."""
        return self.encoders[0].tokenizer

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels: the model's native resolution."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.latent_shape[1] * factor, self.latent_shape[2] * factor

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
    """'auto' is bfloat16 where the device computes it fast, else float32; under ATEN_CPU_CAPABILITY=avx2, too, it is float32."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        narrow = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
        fast = device.type == "cpu" and not narrow and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def load_model(source: str, device: str = "auto", dtype: str = "auto", configs: str | Path = "", memory: Memory | None = None) -> Model:
    """Load 'emoji', a diffusers folder, a hub id or a single .safetensors file.

    Args:
        configs: for a single file: a diffusers folder (its weights are not read) or an original config (.yaml); "": the hub's.
        memory: what is traded for memory; None: nothing.

    Only safetensors are read. Raises HFIError naming what is missing.
    """
    from hfi.diffusion.loading import load_pipeline

    place = pick_device(device)
    model = from_pipeline(load_pipeline(source, configs), source, place, pick_dtype(dtype, place))
    if memory is not None:
        save_memory(model, memory)
    return model


def study_model(config: StudyConfig) -> Model:
    """The model of a study, as all of its settings say."""
    return load_model(config.model, config.device, config.dtype, config.configs, config.memory)


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
    """Wrap a loaded pipeline; raises HFIError for a family that is not supported, parts that do not fit or weights with NaN."""
    family = family_of({"_class_name": type(pipeline).__name__}, name)
    network, config = getattr(pipeline, family.network[0]), pipeline.scheduler.config
    encoders = _encoders(pipeline, family)
    flow = family.predicts == "flow"
    prediction = "flow" if flow else config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction", "sample", "flow"} or not hasattr(
        pipeline.scheduler, "sigmas" if flow else "alphas_cumprod"
    ):
        raise HFIError(f"its scheduler predicts {prediction!r}, which is not supported", file=name, field="model")
    content = model_hash(name) if name == "emoji" else content_hash(parts_of(pipeline, family))
    for label, part in parts_of(pipeline, family).items():
        part.requires_grad_(False).eval().to(device=device, dtype=torch.float32)
        if device.type == "cpu":
            part.to(memory_format=torch.channels_last)
        for key, weight in part.named_parameters():
            if not torch.isfinite(weight).all():
                raise HFIError(
                    f"holds NaN or infinite weights ({label})", file=name, field=key, remedy="get an undamaged copy of the model"
                )
    if device.type == "cpu" and dtype == torch.bfloat16:
        if family.network[0] == "unet":
            speed_up(network)
        speed_up(pipeline.vae)
    shape, pooled = _latent_shape(pipeline, family), check_widths(pipeline, family, name)
    sigmas = flow_sigmas(config, shape[1] * shape[2] // 4) if flow else None
    alpha_bar = alpha_bar_of(sigmas) if flow else pipeline.scheduler.alphas_cumprod.float().cpu().clamp(min=LEAST_SIGNAL**2)
    return Model(
        name=name,
        hash=model_hash(name),
        content=content,
        family=family.key,
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        alpha_bar=alpha_bar,
        prediction=prediction,
        latent_shape=shape,
        scaling=float(pipeline.vae.config.scaling_factor),
        shift=float(pipeline.vae.config.get("shift_factor") or 0.0),
        encoders=encoders,
        pooled=pooled,
        sigmas=sigmas,
        distilled=bool(network.config.get("guidance_embeds", False)),
        empty_is_zero=family.key == "sdxl" and bool(pipeline.config.get("force_zeros_for_empty_prompt", True)),
    )


def parts_of(pipeline: Any, family: Family) -> dict[str, torch.nn.Module]:
    """Every network of a pipeline by its part's name: the one that denoises, the autoencoder, the text encoders."""
    names = [family.network[0], "vae", *(encoder.part for encoder in family.encoders)]
    return {name: part for name in names if (part := getattr(pipeline, name)) is not None}


def content_hash(parts: Mapping[str, torch.nn.Module]) -> str:
    """SHA-256 (hex) over the weights of all parts, in float32, under the names that diffusers and transformers give them.

    So a folder and a single file of one model have one. The embedded model keeps the hash of its files, which its pictures have had.
    """

    def one(item: tuple[str, Tensor]) -> bytes:
        name, value = item
        values = value.detach().to("cpu", torch.float32).contiguous()
        return hashlib.sha256(f"{name} {tuple(value.shape)}\n".encode() + hashlib.sha256(values.numpy()).digest()).digest()

    weights = [(f"{label}.{name}", value) for label, part in sorted(parts.items()) for name, value in sorted(part.named_parameters())]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing lets other threads run
        return hashlib.sha256(b"".join(pool.map(one, weights))).hexdigest()


def _encoders(pipeline: Any, family: Family) -> tuple[TextEncoder, ...]:
    found = []
    for encoder in family.encoders:
        network, tokenizer = getattr(pipeline, encoder.part), getattr(pipeline, encoder.tokenizer)
        if network is not None:
            own = tokenizer.model_max_length if tokenizer.model_max_length < 10_000 else 0
            longest = own or getattr(network.config, "max_position_embeddings", 0) or encoder.length
            found.append(TextEncoder(encoder.name, tokenizer, network, min(longest, encoder.length or longest)))
    return tuple(found)


def _latent_shape(pipeline: Any, family: Family) -> tuple[int, int, int]:
    """(C, h, w) at the native resolution; FLUX names it in its autoencoder alone, and packs 2x2 patches into channels."""
    network = getattr(pipeline, family.network[0]).config
    channels = network.in_channels // 4 if family.key == "flux" else network.in_channels
    factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    size = pipeline.vae.config.sample_size if family.key == "flux" else network.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return (channels, height // factor, width // factor) if family.key == "flux" else (channels, height, width)


def check_widths(pipeline: Any, family: Family, name: str) -> int:
    """The width of the pooled text vector; raises HFIError where text encoders, autoencoder and network do not belong together."""
    network, vae = getattr(pipeline, family.network[0]).config, pipeline.vae.config
    texts = {encoder.name: getattr(pipeline, encoder.part).config for encoder in family.encoders if getattr(pipeline, encoder.part)}
    hidden = {label: config.d_model if label == "t5" else config.hidden_size for label, config in texts.items()}
    pooled = {
        "sd": 0,
        "sdxl": texts["clip_g"].projection_dim if "clip_g" in texts else 0,
        "sd3": sum(config.projection_dim for label, config in texts.items() if label != "t5"),
        "flux": hidden.get("clip_l", 0),
    }[family.key]
    if family.network[0] == "unet":
        reads, gives = network.cross_attention_dim, sum(hidden.values())
        fits = reads == gives
        if family.key == "sdxl":
            fits = fits and network.projection_class_embeddings_input_dim == pooled + 6 * (network.addition_time_embed_dim or 0)
    else:
        reads, gives = network.joint_attention_dim, hidden.get("t5", network.joint_attention_dim)
        fits = reads == gives and network.pooled_projection_dim == pooled
    if not fits:
        raise HFIError(f"its network reads text states of width {reads}, its text encoders give {gives} (pooled {pooled})", file=name,
                       field="model", remedy="the text encoders are another model's; get the pipeline whole")  # fmt: skip
    channels = _latent_shape(pipeline, family)[0]
    if channels != vae.latent_channels:
        raise HFIError(
            f"its network takes {channels} channels, the autoencoder gives {vae.latent_channels}",
            file=name,
            field="model",
            remedy="inpainting, editing and refiner models are not supported; give a text-to-image model",
        )
    return pooled


def predict_noise(model: Model, z_t: Tensor, t: Tensor, c: Tensor, guidance: float | None = None) -> Tensor:
    """eps_theta(z_t, t, c), float32.

    Args:
        z_t: noised latents (B, C, h, w), unit-variance convention of the model.
        t: timesteps (B,), integers in [0, T).
        c: text conditions (B, L, D).
        guidance: what a guidance-distilled network is told (FLUX.1-dev; None: 1, unguided); others take none.
    """
    return spread(model, lambda *batch: network_eps(model, *batch, guidance), z_t, t, c)


def spread(model: Model, passes: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """passes(*batch), over the cores where that pays; `passes` must treat each element of the batch alone."""
    return in_threads(passes, *batch) if spread_over_threads(model.network, model.device) else passes(*batch)


def network_eps(model: Model, z_t: Tensor, t: Tensor, c: Tensor, guidance: float | None = None) -> Tensor:
    """`predict_noise` in one pass of the network."""
    t = t.to(z_t.device)
    if model.prediction == "flow":
        return flow_eps(model, z_t, t, c, guidance)
    with model.autocast():
        out = unet_output(model, z_t, t, c)
    return to_eps(out.float(), z_t, model.alpha_bar.to(z_t.device)[t], model.prediction)


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
