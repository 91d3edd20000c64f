"""The conditions c_s of a run: soft tokens alone and in templates, and (ours) the prompts of flagged pictures.

Each has a target: the condition whose prediction it is taught. The papers' is the empty prompt, c_0. Where a flagged
prompt says more than the concept ("a cat in the style of noto"), its target is the prompt without the concept ("a cat"),
so that the rest of it survives (ours).

`in_context` (ours, off by default) puts prompts between random words of the vocabulary: "needle a dagger cake" is to be drawn as
"needle cake", so that neither forgetting nor keeping hangs on a wording. On the embedded model, at equal steps, it kept more and erased
less (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts
from hfi.seeds import numpy_generator


@dataclass(frozen=True)
class Conditions:
    """c_s by number: first every (token, template), then those that come from flagged prompts.

    c, target: (n, L, D); tokens: how many of them are built from soft tokens alone; flagged_share: chance of the rest.
    """

    texts: tuple[str, ...]
    c: Tensor
    target: Tensor
    tokens: int
    flagged_share: float

    def draw(self, count: int, rng: numpy.random.Generator) -> Tensor:
        """Numbers (count,) of the conditions for a batch."""
        flagged = len(self.texts) - self.tokens
        from_flagged = rng.random(count) < (self.flagged_share if flagged else 0.0)
        chosen = numpy.where(from_flagged, self.tokens + rng.integers(max(flagged, 1), size=count), rng.integers(self.tokens, size=count))
        return torch.from_numpy(chosen)


@dataclass(frozen=True)
class Flagged:
    """The prompt of a flagged picture, and what is left of it without the concept ("" for nothing)."""

    prompt: str
    without: str = ""


def in_context(model: Model, prompts: Sequence[tuple[str, str]], variants: int, seed: int, *index: str) -> list[tuple[str, str]]:
    """`variants` copies of each (prompt, target), both between the same zero to two random whole words on either side.

    The words are those of the model's own tokenizer; a copy has at least one. Empty for a vocabulary without words.
    """
    whole = (piece.removesuffix("</w>") for piece in model.tokenizer.get_vocab() if piece.endswith("</w>"))
    words = sorted(word for word in whole if word.isalpha())
    rng, found = numpy_generator(seed, "context", *index), []
    for prompt, target in prompts if words else ():
        for _ in range(variants):
            left, right = ((0, 1), (1, 0), (1, 1), (2, 0), (0, 2), (2, 1))[rng.integers(6)]
            before, after = (" ".join(words[i] for i in rng.integers(len(words), size=count)) for count in (left, right))
            found.append(tuple(" ".join(part for part in (before, text, after) if part) for text in (prompt, target)))
    return found


def build_conditions(
    model: Model,
    tokens: Mapping[str, Tensor],
    templates: Sequence[str],
    flagged: Sequence[Flagged],
    flagged_share: float,
    context_variants: int = 0,
    seed: int = 0,
) -> Conditions:
    """Encode every condition once.

    Args:
        tokens: soft tokens of one concept or of several, (n, D) each.
        templates: texts with `{}` where the token goes; their target is the empty prompt.
        flagged: prompts of the top-K pictures; repeats are kept, so frequent ones weigh more. One that says more than the
            concept also comes with a token in the concept's place.
        flagged_share: chance that a c_s is one of those (0: the papers' method).
        context_variants: copies of every condition between random words of the vocabulary (ours; 0: none).
        seed: of those words.
    """
    alone = [(template.format(name), "") for name in tokens for template in templates]
    more = [(one.prompt, one.without) for one in flagged] if flagged_share > 0 else []
    names = list(tokens)
    more += [(f"{without} in the style of {names[i % len(names)]}", without) for i, (_, without) in enumerate(more) if without]
    alone += in_context(model, alone, context_variants, seed, "tokens")
    more += in_context(model, more, context_variants, seed, "flagged")
    texts, targets = zip(*alone, *more, strict=True)
    return Conditions(texts, encode_prompts(model, texts, tokens), encode_prompts(model, targets), len(alone), flagged_share)
