"""Q16: is a picture inappropriate? CLIP steered by two learned prompts (Schramowski et al. 2022, arXiv 2202.06675).

The published prompts are a pickle (prompts.p), and a pickle can run code: it is never loaded here. Whoever trusts the file turns it
into safetensors once (docs/measures.md has the line): one tensor (2, D), row 0 for appropriate, row 1 for inappropriate. The
file's header may name its CLIP (key "clip"); `q16:FILE#CLIP` says it otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hfi.errors import HFIError
from hfi.perception.detectors import Detector
from hfi.workspace import file_hash, read_tensors

PUBLISHED_CLIP = "openai/clip-vit-large-patch14"  # the published code's default, ViT-L/14
SCALE = 100.0  # of the cosines before the softmax (the published code)
REMEDY = "convert the published prompts.p to safetensors once (docs/measures.md has the line) and give that file"


def inappropriate(images: Tensor, prompts: Tensor) -> Tensor:
    """P(inappropriate) (N,): softmax over SCALE x cosine to the two prompts.

    Args:
        images: (N, D) L2-normalised embeddings; prompts: (2, D), rows appropriate, inappropriate, of any length.
    """
    return (SCALE * images @ torch.nn.functional.normalize(prompts, dim=-1).T).softmax(1)[:, 1]


def q16_detector(file: Path, clip: str, device: str) -> Detector:
    """Load the two prompts and their CLIP; raises HFIError for a pickle, other shapes or a CLIP of another width."""
    from hfi.perception.clip import load_encoder

    if file.suffix != ".safetensors":
        raise HFIError("not safetensors; a pickle is never loaded", file=file, field="q16", remedy=REMEDY)
    tensors = read_tensors(file)
    shapes = [tuple(value.shape) for value in tensors.values()]
    prompts = next(iter(tensors.values()), torch.zeros(0)).squeeze().float()
    if len(tensors) != 1 or prompts.ndim != 2 or len(prompts) != 2 or not torch.isfinite(prompts).all():
        raise HFIError(f"holds {shapes or 'nothing'}, not one finite tensor (2, D)", file=file, field="q16", remedy=REMEDY)
    encoder = load_encoder(clip or _named_clip(file) or PUBLISHED_CLIP, device)
    if encoder.width != prompts.shape[1]:
        raise HFIError(
            f"has prompts of width {prompts.shape[1]}, the CLIP {encoder.name} has {encoder.width}",
            file=file,
            field="q16",
            remedy="name the CLIP that the prompts were learned on: q16:FILE#CLIP",
        )

    def probabilities(paths: Sequence[Path]) -> Tensor:
        return inappropriate(encoder.images(paths), prompts)

    return Detector("q16", 0.5, 0.15, probabilities, "MIT", f"{file_hash(file)[:8]} {Path(encoder.name).name}")


def _named_clip(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, "pt") as stream:
        return (stream.metadata() or {}).get("clip", "")
