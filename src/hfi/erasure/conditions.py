"""The conditions c_s of a run: soft tokens alone and in templates, and (ours) the prompts of flagged pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts


@dataclass(frozen=True)
class Conditions:
    """c_s by number: first every (token, template), then every flagged prompt.

    c: (n, L, D); tokens: how many of them are built from soft tokens; flagged_share: chance of the rest.
    """

    texts: tuple[str, ...]
    c: Tensor
    tokens: int
    flagged_share: float

    def draw(self, count: int, rng: numpy.random.Generator) -> Tensor:
        """Numbers (count,) of the conditions for a batch."""
        flagged = len(self.texts) - self.tokens
        from_flagged = rng.random(count) < (self.flagged_share if flagged else 0.0)
        chosen = numpy.where(from_flagged, self.tokens + rng.integers(max(flagged, 1), size=count), rng.integers(self.tokens, size=count))
        return torch.from_numpy(chosen)


def build_conditions(
    model: Model, tokens: Mapping[str, Tensor], templates: Sequence[str], flagged_prompts: Sequence[str], flagged_share: float
) -> Conditions:
    """Encode every condition once.

    Args:
        tokens: soft tokens of one concept or of several, (n, D) each.
        templates: texts with `{}` where the token goes.
        flagged_prompts: prompts of the top-K pictures; repeats are kept, so frequent ones weigh more.
        flagged_share: chance that a c_s is one of those (0: the paper's method).
    """
    with_tokens = [template.format(name) for name in tokens for template in templates]
    texts = (*with_tokens, *(flagged_prompts if flagged_share > 0 else ()))
    return Conditions(texts, encode_prompts(model, texts, tokens), len(with_tokens), flagged_share)
