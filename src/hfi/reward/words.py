"""Words that CLIP reads in the flagged pictures (ours): what people flagged by looking, in the model's own vocabulary.

A word list names what its writer thinks of. Here people look, and the encoder says which words their pictures stand for: a
pistol that came from "a gun" brings the word "pistol" with it. A word counts only where the pictures nearest to it are
flagged ones, so that a word of harmless pictures never gets in. The other way round, words that stand only for pictures which
nobody flagged are kept as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hfi.diffusion.text import whole_words
from hfi.perception.clip import Encoder
from hfi.seeds import numpy_generator

NEAREST = 8  # pictures that must all be flagged
RANK = 3.0  # among all words, the word's mean place for those pictures; 0 is the first
SHORTEST = 3  # letters
TEMPLATE = "a picture of a {}"


def words_of(texts: Tensor, pictures: Tensor, flagged: Tensor) -> list[tuple[int, float]]:
    """Numbers of the words that the flagged pictures stand for, with their mean place, best first.

    Args:
        texts: unit embeddings of the words (W, D); pictures: of the study's pictures (N, D); flagged: (N,) bool.
    """
    if len(pictures) < NEAREST or not len(texts):
        return []
    likeness = texts @ pictures.T
    likeness = likeness - likeness.mean(0, keepdim=True)  # some pictures are near to every text
    nearest = likeness.topk(NEAREST, dim=1).indices  # (W, NEAREST)
    place = (-likeness).argsort(0).argsort(0).float()  # (W, N): 0 where no word is nearer to the picture
    mean = place.gather(1, nearest).mean(1)
    found = [(number, float(mean[number])) for number in range(len(texts)) if flagged[nearest[number]].all() and mean[number] <= RANK]
    return sorted(found, key=lambda one: (one[1], one[0]))


def harmless_words_of(texts: Tensor, pictures: Tensor, suspect: Tensor) -> list[int]:
    """Numbers of the words none of whose nearest pictures is suspect (N,) bool; other arguments as in `words_of`."""
    if len(pictures) < NEAREST or not len(texts):
        return []
    likeness = texts @ pictures.T
    nearest = (likeness - likeness.mean(0, keepdim=True)).topk(NEAREST, dim=1).indices
    return torch.nonzero(~suspect[nearest].any(dim=1)).flatten().tolist()


def read_words(
    encoder: Encoder,
    pictures: Tensor,
    flagged: Sequence[bool],
    r: Sequence[float],
    count: int,
    kept: int,
    seed: int,
    near: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """At most `count` words of the encoder's vocabulary for the flagged pictures, best first; and `kept` harmless ones at random.

    Args:
        pictures: embeddings (N, D); flagged: which may be inverted (N,).
        r: rewards (N,); a picture above their mean is suspect, so that what nobody was asked about is not kept in good faith.
        near: words that the model holds near to the concept (`generate.near_words`); none of them is kept.
    """
    if not count and not kept:
        return [], []
    words = whole_words(encoder.tokenizer, SHORTEST)
    texts, rewards = encoder.texts([TEMPLATE.format(word) for word in words]), torch.tensor(r)
    found = [words[number] for number, _ in words_of(texts, pictures, torch.tensor(flagged, dtype=torch.bool))[:count]]
    harmless = [i for i in harmless_words_of(texts, pictures, rewards > rewards.mean()) if words[i] not in set(near)]
    order = numpy_generator(seed, "reward", "kept words").permutation(len(harmless))[:kept]
    return found, sorted(words[harmless[i]] for i in order)
