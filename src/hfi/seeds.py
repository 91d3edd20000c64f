"""Every random number of a study comes from (study seed, stage, index): nothing to restore after an interruption.

The global generators of torch and numpy are never used, so the order in which things run changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    import torch


def derive(seed: int, stage: str, *index: int | str) -> int:
    """A 63-bit seed for one random event of a study.

    Args:
        seed: the study's seed.
        stage: the stage or purpose, e.g. "generate".
        index: what tells this event from its siblings, e.g. (step,) or (image,).
    """
    words = "\x1f".join([str(seed), stage, *map(str, index)])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(seed: int, stage: str, *index: int | str) -> torch.Generator:
    """A CPU torch.Generator for one random event; CPU, so that every device draws the same noise."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, stage, *index))


def numpy_generator(seed: int, stage: str, *index: int | str) -> numpy.random.Generator:
    """A numpy Generator for one random event."""
    import numpy

    return numpy.random.default_rng(derive(seed, stage, *index))
