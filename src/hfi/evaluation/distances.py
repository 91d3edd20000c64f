"""How far benign pictures moved: FID and KID (torchmetrics, extra "measures"), CMMD, and LPIPS between the pairs.

All but LPIPS work on embeddings of a stated feature network: by default the study's own CLIP, L2-normalised. Such numbers compare
studies of one CLIP and size with each other and are NOT comparable with papers, which use Inception v3.
Before and after share prompts and seeds, so the pictures come in pairs; FID, KID and CMMD look at the two sets as wholes.
Pictures that repeat, as in a bootstrap, bias these three upward: so they have no interval. LPIPS has one, over prompts.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hfi.errors import HFIError
from hfi.evaluation import statistics
from hfi.perception.pictures import open_picture, to_tensor
from hfi.seeds import numpy_generator

DISTANCES = ("fid", "kid", "cmmd", "lpips", "clip_score")
NO_INTERVAL = "none: repeated pictures, as in a bootstrap, bias it upward"
NOT_INCEPTION = "not comparable with papers that use Inception"
LPIPS_NETS = ("alex", "vgg", "squeeze")
BATCH = 32


class Features(torch.nn.Module):
    """A feature network for torchmetrics whose input is embeddings (N, D) already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings


def torchmetrics_image(name: str):
    """A module of torchmetrics.image; raises HFIError where the extra is not installed."""
    import importlib

    try:
        return importlib.import_module(f"torchmetrics.image.{name}")
    except ImportError:
        raise HFIError("needs torchmetrics, which is not installed", field="measure", remedy="pip install 'hfi[measures]'") from None


def fid(x: Tensor, y: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two sets of embeddings (Heusel et al. 2017, arXiv 1706.08500).

    Args:
        x, y: (N, D), (M, D), at least two each. Equal sets give 0. With fewer pictures than D it is biased far upward.
    """
    metric = torchmetrics_image("fid").FrechetInceptionDistance(feature=Features(x.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(x.double(), real=True)
    metric.update(y.double(), real=False)
    return max(0.0, float(metric.compute()))


def kid(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 with the kernel (cos + 1)^3 between two sets of unit embeddings (Binkowski et al. 2018, arXiv 1801.01401).

    All pictures at once instead of random subsets, so it depends on no order and no seed. It may be negative: on average it is 0 for
    two independent samples of one distribution, and below 0 for pairs that hardly changed (see `kid_of_pairs`).

    Args:
        x, y: (N, D) each, N at least 2.
    """
    metric = _kid_module().KernelInceptionDistance(
        feature=Features(x.shape[1]), subsets=1, subset_size=len(x), degree=3, gamma=1.0, coef=1.0
    )
    with torch.random.fork_rng(devices=[]):  # it shuffles what it sums over: to no effect, but with the global generator
        metric.update(x.double(), real=True)
        metric.update(y.double(), real=False)
        return float(metric.compute()[0])


def kid_of_pairs(x: Tensor, y: Tensor) -> float:
    """KID without the kernel between the two pictures of a pair, which share their seed and are no independent samples (ours).

    The U-statistic of Gretton et al. 2012 (JMLR 13, lemma 6) over pairs: equal sets give exactly 0. Args as in `kid`, in pairs.
    """
    kernel = _kid_module().poly_kernel
    x, y, n = x.double(), y.double(), len(x)

    def off_diagonal(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    k_xx, k_yy, k_xy = (off_diagonal(kernel(a, b, 3, 1.0, 1.0)) for a, b in ((x, x), (y, y), (x, y)))
    return float(k_xx + k_yy - 2 * k_xy)


def _kid_module():
    warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
    return torchmetrics_image("kid")


def inception(before: Sequence[Path], after: Sequence[Path], which: str) -> float:
    """FID or KID with Inception v3 as papers have it, which torchmetrics fetches; raises HFIError where that cannot be done."""
    module = torchmetrics_image(which)
    with _weights_only(), torch.random.fork_rng(devices=[]), _fetched("Inception v3", "torch-fidelity", "inception"):
        if which == "fid":
            metric = module.FrechetInceptionDistance(feature=2048)
        else:
            metric = module.KernelInceptionDistance(feature=2048, subsets=1, subset_size=min(len(before), len(after)))
    for files, real in ((before, True), (after, False)):
        for start in range(0, len(files), BATCH):
            metric.update((to_tensor([open_picture(path) for path in files[start : start + BATCH]]) * 255).round().byte(), real=real)
    with torch.random.fork_rng(devices=[]):
        found = metric.compute()
    return float(found if which == "fid" else found[0])


def lpips_distance(net: str) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS (Zhang et al. 2018, arXiv 1801.03924): a function of two batches (N, 3, H, W) in [0, 1] to distances (N,)."""
    if net not in LPIPS_NETS:
        raise HFIError(f"no such network {net!r}", field="measure lpips", remedy=f"use lpips:{' or lpips:'.join(LPIPS_NETS)}")
    module = torchmetrics_image("lpip")
    with _weights_only(), torch.random.fork_rng(devices=[]), _fetched(f"the backbone of LPIPS ({net})", "torchvision", "lpips"):
        metric = module.LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return metric.net(x, y, normalize=True).reshape(-1)

    return distance


def lpips(
    distance: Callable[[Tensor, Tensor], Tensor],
    before: Sequence[Path],
    after: Sequence[Path],
    prompts: Sequence[str],
    seed: int,
    resamples: int,
) -> dict:
    """Mean distance of the pairs with its interval over prompts. 0: no pixel changed."""
    rows = []
    for start in range(0, len(before), BATCH):
        pair = [to_tensor([open_picture(path) for path in files[start : start + BATCH]]) for files in (before, after)]
        rows.append(distance(*pair))
    values = torch.cat(rows).double().numpy() if rows else np.zeros(0)
    return statistics.mean(values, np.asarray(prompts), numpy_generator(seed, "bootstrap", "lpips"), resamples).plain()


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """While open, whatever a library loads with torch goes through the loader that runs no code."""
    name, before = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _fetched(what: str, package: str, extra: str) -> Iterator[None]:
    """Turn a missing package, or weights that cannot be fetched, into one line."""
    try:
        yield
    except ImportError:
        raise HFIError(f"{what} needs {package}, which is not installed", field="measure", remedy=f"pip install 'hfi[{extra}]'") from None
    except Exception as error:  # libraries raise many kinds while they fetch and unpack weights
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise HFIError(
            f"the weights of {what} cannot be fetched ({first})",
            field="measure",
            remedy="connect once so that they are kept in torch's hub cache, or measure with the study's own CLIP",
        ) from error
