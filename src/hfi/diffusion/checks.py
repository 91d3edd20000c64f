"""What a model's files say before anything of them is loaded: whole, safetensors, one dtype a part, no code. Imports no torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from hfi.errors import HFIError

PICKLED = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}
SAFE = "get or convert it as safetensors; pickled files can run code and are never opened"
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
MATRICES = {"F32", "F16", "BF16"}  # what training can start from


def read_index(folder: Path, name: str) -> dict:
    """model_index.json; raises HFIError where a folder has none."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        if isinstance(index, dict):
            return index
        raise ValueError("no mapping")
    except FileNotFoundError:
        raise HFIError(
            "not a diffusers pipeline (model_index.json is missing)",
            file=name,
            field="model",
            remedy="give a folder written by save_pretrained, a hub id, or 'emoji'; 'hfi models' lists what is supported",
        ) from None
    except (OSError, ValueError):
        raise HFIError("model_index.json cannot be read", file=name, field="model", remedy="get the pipeline again") from None


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{tensor: (dtype, shape)} of a safetensors file, from its first bytes; raises HFIError for a truncated or foreign file."""
    if path.suffix in PICKLED:
        raise HFIError("is pickled", file=path, field="model", remedy=SAFE)
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
        try:
            header = json.loads(stream.read(length)) if 0 < length <= size - 8 else None
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            raise HFIError("cannot be loaded (not a whole safetensors file)", file=path, field="model", remedy="get it again") from None
    if 8 + length + end != size:
        raise HFIError(f"cannot be loaded (truncated: {size} bytes of {8 + length + end})", file=path, field="model", remedy="get it again")
    return found


def check_dtypes(header: Mapping[str, tuple[str, tuple[int, ...]]], file: Path, part: str) -> None:
    """The weights of one part must be of one floating dtype that learning can start from; raises HFIError naming two that differ."""
    first: dict[str, str] = {}
    for name, (dtype, _) in header.items():
        if dtype in FLOATS:
            first.setdefault(dtype, name)
    for dtype, name in first.items():
        if dtype not in MATRICES:
            raise HFIError(f"is {dtype}", file=file, field=name, remedy="quantised weights cannot learn; get the float16 or bfloat16 files")
    if len(first) > 1:
        (one, here), (other, there) = list(first.items())[:2]
        raise HFIError(
            f"mixed dtypes in {part}: {one} here, {other} in {there}", file=file, field=here, remedy="write it again in one dtype"
        )


def weight_files(folder: Path, part: str, variant: str) -> list[Path]:
    """The safetensors of one part of a diffusers folder: those of the variant ("" or "fp16") where it has such."""
    found = sorted((folder / part).glob("*.safetensors"))
    of_variant = [path for path in found if f".{variant}" in path.name]
    plain = [path for path in found if ".fp16" not in path.name and ".non_ema" not in path.name]
    return (of_variant or plain) if variant else plain


def variant_of(folder: Path, parts: Iterable[str]) -> str:
    """ "" where every part has plain files, "fp16" where some part has half-precision ones alone.

    Raises HFIError naming a part without weights.
    """
    variant = ""
    for part in parts:
        if not weight_files(folder, part, ""):
            if weight_files(folder, part, "fp16"):
                variant = "fp16"
                continue
            pickled = sorted(path for path in (folder / part).glob("*") if path.suffix in PICKLED)
            if pickled:
                raise HFIError("is pickled", file=pickled[0], field=part, remedy=SAFE)
            raise HFIError("its weights are missing (no .safetensors)", file=folder / part, field=part, remedy="get the pipeline whole")
    return variant


def check_folder(folder: Path, parts: Iterable[str]) -> str:
    """Check every part's files; returns the variant to load. Raises HFIError naming the file."""
    code = sorted(folder.rglob("*.py"))
    if code:
        raise HFIError(
            "is code to execute", file=code[0], field="model", remedy="remove it, or get a copy without: HFI runs no code of a model"
        )
    parts = list(parts)
    variant = variant_of(folder, parts)
    for part in parts:
        header: dict[str, tuple[str, tuple[int, ...]]] = {}
        for path in weight_files(folder, part, variant):
            header |= read_header(path)
        check_dtypes(header, folder / part, part)
    return variant


# the parts of a single file by the beginning of their keys; the longest that fits counts
SINGLE = {
    "network": ("model.diffusion_model.",),
    "vae": ("first_stage_model.", "vae."),
    "text encoders": ("cond_stage_model.", "conditioner.embedders.", "text_encoders."),
}
KNOWN_REST = (  # what training frameworks leave in a checkpoint, and no part of a pipeline reads
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "model_ema.decay", "model_ema.num_updates", "lvlb_weights", "logvar", "scale_factor",
    "denoiser.sigmas", "edm_mean", "edm_std", "v_pred", "ztsnr",
)  # fmt: skip


def part_of_key(key: str) -> str | None:
    """Which part of a single file a key belongs to: network, vae, text encoders, rest; None for a key that nobody knows."""
    for part, beginnings in SINGLE.items():
        if key.startswith(beginnings):
            return part
    return "rest" if key in KNOWN_REST or key.startswith("model_ema.") else None


def check_single(path: Path) -> tuple[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """The family of a single-file checkpoint, by its keys, and its header.

    Raises HFIError for pickled, truncated or half checkpoints, mixed dtypes within a part, and keys that nobody knows.
    """
    if path.suffix != ".safetensors":
        if path.suffix in PICKLED:
            raise HFIError("is pickled", file=path, field="model", remedy=SAFE)
        raise HFIError("is no .safetensors file", file=path, field="model", remedy="give a .safetensors checkpoint or a diffusers folder")
    header = read_header(path)
    parts: dict[str, dict] = {}
    for key, entry in header.items():
        parts.setdefault(part_of_key(key) or f"?{key}", {})[key] = entry
    keys = set(header)
    if not parts.get("network"):
        bare = any(key.startswith(("double_blocks.", "joint_blocks.", "input_blocks.", "transformer_blocks.")) for key in keys)
        word = "holds the network alone, without text encoders and autoencoder" if bare else "is no checkpoint of a whole pipeline"
        raise HFIError(word, file=path, field="model", remedy="give a whole checkpoint, or the diffusers folder; a LoRA is no model")
    for part in SINGLE:
        if part not in parts:
            raise HFIError(
                f"its {part} is missing", file=path, field=SINGLE[part][0], remedy="give a whole checkpoint or the diffusers folder"
            )
    if strange := sorted(part[1:] for part in parts if part.startswith("?")):
        raise HFIError(f"{len(strange)} keys are left over, this is the first", file=path, field=strange[0],
                       remedy="the file is of another family or damaged")  # fmt: skip
    for part, entries in parts.items():
        if part != "rest":
            check_dtypes(entries, path, part)
    return _family(keys, path), header


def _family(keys: set[str], path: Path) -> str:
    if any(key.startswith("model.diffusion_model.joint_blocks.") for key in keys):
        return "sd3"
    if any(key.startswith("model.diffusion_model.double_blocks.") for key in keys):
        return "flux"
    if any(key.startswith("conditioner.embedders.1.") for key in keys):
        return "sdxl"
    if any(key.startswith("cond_stage_model.") for key in keys):
        return "sd"
    raise HFIError("is of another family (by its keys)", file=path, field="model", remedy="'hfi models' lists what is supported")
