"""The non-members nearest to the concept, by words and by looks; the original model and its CLIP decide, before erasing can."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hfi.config import Concept
from hfi.diffusion.prompts import Vocabulary, members
from hfi.evaluation.prompt_sets import outside

NEAREST = 20


@dataclass(frozen=True)
class Near:
    """The two lists, nearest first."""

    text: tuple[str, ...]
    image: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Both lists together, each name once."""
        return list(dict.fromkeys([name for pair in zip(self.text, self.image, strict=False) for name in pair] + [*self.text, *self.image]))


def nearest(inside: Tensor, outside: Mapping[str, Tensor], count: int) -> tuple[str, ...]:
    """The `count` names whose embedding has the largest cosine with any member.

    Args:
        inside: (M, D) embeddings of the members.
        outside: name -> (D,) embedding; both L2-normalised.
    """
    if not outside or not len(inside):
        return ()
    names = list(outside)
    cosine = (torch.stack([outside[name] for name in names]) @ inside.T).amax(1)
    order = torch.argsort(cosine, descending=True, stable=True)[:count]
    return tuple(names[i] for i in order.tolist())


def find(concept: Concept, vocabulary: Vocabulary, encoder, pictures: Mapping[str, Sequence], without: Collection[str] = ()) -> Near:
    """The nearest non-members (harm), or the nearer half of the other styles (style).

    Args:
        encoder: a perception.clip.Encoder.
        pictures: the original model's pictures (paths) of each object, or of each style; a name without pictures is no
            candidate by image.
        without: objects and styles that are to go as well, and are no neighbours.
    """
    own = list(members(concept, vocabulary))
    if concept.kind == "style":
        rest = [style for style in vocabulary.styles if style != concept.name and style not in without]
        count = max(1, len(rest) // 2) if rest else 0
    else:
        rest, count = [name for name in outside(concept, vocabulary) if name not in without], NEAREST
    words = dict(zip([*own, *rest], encoder.texts([*own, *rest]), strict=True))
    by_text = nearest(torch.stack([words[name] for name in own]), {name: words[name] for name in rest}, count)
    shown = [name for name in (*own, *rest) if pictures.get(name)]
    rows = encoder.images([path for name in shown for path in pictures[name]])
    looks, start = {}, 0
    for name in shown:
        mean = rows[start : start + len(pictures[name])].mean(0)
        looks[name] = mean / mean.norm().clamp(min=1e-12)
        start += len(pictures[name])
    seen = [looks[name] for name in own if name in looks]
    by_image = nearest(torch.stack(seen) if seen else torch.zeros(0, 1), {name: looks[name] for name in rest if name in looks}, count)
    return Near(by_text, by_image)
