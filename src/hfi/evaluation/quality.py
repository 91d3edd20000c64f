"""Quality of benign pictures before and after: CLIPScore and CMMD.

Both come from the study's own CLIP (`reward.encoder`). On the embedded emoji CLIP they are NOT comparable with numbers of
other papers, which use ViT-B/32 or ViT-L/14@336: compare them only with each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hfi.evaluation import statistics
from hfi.seeds import numpy_generator

SIGMA, SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, arXiv 2401.09603: width of the Gaussian kernel, and factor for reading
NOTE = "from the study's own CLIP: not comparable with other papers"


def clip_scores(images: Tensor, texts: Tensor) -> np.ndarray:
    """100 max(cos, 0) per picture (Hessel et al. 2021, arXiv 2104.08718, without its factor 2.5).

    Args:
        images, texts: (N, D) L2-normalised embeddings of pictures and of their prompts.
    """
    return (100 * (images * texts).sum(1).clamp(min=0)).double().numpy()


def clip_score(images: Tensor, texts: Tensor, prompts: list[str], seed: int, name: str, resamples: int) -> dict:
    """The mean CLIPScore with its bootstrap interval."""
    found = statistics.mean(
        clip_scores(images, texts), np.array(prompts), numpy_generator(seed, "bootstrap", "clip score", name), resamples
    )
    return found.plain()


def cmmd(x: Tensor, y: Tensor) -> float:
    """SCALE x MMD^2 between two sets of embeddings, Gaussian kernel exp(-|a - b|^2 / (2 SIGMA^2)), V-statistic.

    Args:
        x, y: (N, D) and (M, D), L2-normalised. Identical sets give 0.
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * SIGMA**2)).mean()

    return float(SCALE * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)))
