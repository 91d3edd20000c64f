"""What lies near a concept (ours, both off by default): objects to be kept, and words that nobody thought of.

People can only flag what they are shown. So they are shown the objects whose names the text encoder holds nearest to what is asked for,
and pictures of the words under which the model itself predicts most nearly what it predicts when the concept is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hfi.config import Concept
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.prompts import Vocabulary, asked_for, members
from hfi.diffusion.text import encode_prompts, text_embeddings, whole_words
from hfi.seeds import generator

STATES, LEVEL = 4, 0.9  # noise, and the share of T at which it is read: there a prediction is the rough shape of what will be drawn
TOGETHER = 256  # texts encoded at once: a CLIP tokenizer has tens of thousands of words
SCANNED = 1500  # words at most that the model is asked about; of a larger vocabulary those nearest by the text encoder


def near_misses(model: Model, concept: Concept, vocabulary: Vocabulary, count: int) -> list[str]:
    """The `count` non-members of a harm whose names are nearest to what its feedback prompts name, by the model's text encoder.

    Cosine of the states at the end of the text, less their mean over all names; nearest to any. Empty for a style.
    """
    if concept.kind == "style" or not count:
        return []
    inside = set(members(concept, vocabulary))
    return nearest_names(model, asked_for(concept, vocabulary), [name for name in vocabulary.objects if name not in inside], count)


def nearest_names(model: Model, asked: list[str], names: list[str], count: int) -> list[str]:
    """The `count` names nearest to any of those asked for, by the text encoder."""
    parts = [text_embeddings(model, names[start : start + TOGETHER]) for start in range(0, len(names), TOGETHER)]
    left, right = torch.cat(parts), text_embeddings(model, asked)
    right, left = (normalize(one - left.mean(0), dim=1) for one in (right, left))
    order = torch.argsort((left @ right.T).amax(1), descending=True, stable=True)
    return [names[i] for i in order[:count].tolist()]


def near_words(
    model: Model,
    concept: Concept,
    vocabulary: Vocabulary,
    count: int,
    seed: int,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The `count` words that the model holds nearest to a harm, in turn by what it draws and by what it reads. Empty for a style.

    The words are those of the tokenizer and the vocabulary's keywords, whatever they belong to, but for what is asked for anyway, styles,
    and every word in the name of an unlisted member. Nearest to any of the concept's words and listed members, (a) by what the network
    predicts under the word on a few states of pure noise, cosine of eps(z_t, t, word) less the mean over all words; (b) by the text
    encoder, as in `nearest_names`. The first finds what looks alike, the second what is said of it and may look like nothing else
    ("dynamite" for an explosion).
    """
    if concept.kind == "style" or not count:
        return []
    asked = asked_for(concept, vocabulary)
    hidden = {word for name in concept.unlisted for word in name.split()}
    tags = {tag for entry in vocabulary.objects.values() for tag in entry.tags}
    words = sorted({*whole_words(model.tokenizer), *tags} - {*asked, *vocabulary.styles})
    words = [word for word in words if not hidden & set(word.split())]
    if len(words) > SCANNED:
        words = sorted(nearest_names(model, asked, words, SCANNED))
    if not words:
        return []
    drawn = by_predictions(model, words, asked, seed, batch_size, on_progress)
    read = nearest_names(model, asked, words, len(words))
    return list(dict.fromkeys(word for pair in zip(drawn, read, strict=True) for word in pair))[:count]


def by_predictions(
    model: Model, words: list[str], asked: list[str], seed: int, batch_size: int, on_progress: Callable[[int, int], None]
) -> list[str]:
    """The words in the order of what the network predicts under them on pure noise, nearest to any of `asked` first."""
    texts = [*words, *asked]
    t = round(LEVEL * model.timesteps)
    dot, squares = torch.zeros(len(words), len(asked)), torch.zeros(len(texts))
    for state in range(STATES):
        z_t = torch.randn((1, *model.latent_shape), generator=generator(seed, "near words", state)).to(model.device)
        there = []
        for start in range(0, len(texts), batch_size):
            there.append(_directions(model, z_t, t, texts[start : start + batch_size]))
            on_progress(state * len(texts) + min(start + batch_size, len(texts)), STATES * len(texts))
        found = torch.cat(there)
        found -= found[: len(words)].mean(0)
        dot += found[: len(words)] @ found[len(words) :].T
        squares += found.square().sum(1)
    cosine = dot / (squares[: len(words), None] * squares[None, len(words) :]).sqrt().clamp(min=1e-12)
    order = torch.argsort(cosine.amax(1), descending=True, stable=True)
    return [words[i] for i in order.tolist()]


@torch.no_grad()
def _directions(model: Model, z_t: Tensor, t: int, texts: list[str]) -> Tensor:
    """eps(z_t, t, text), flat (B, D) on the CPU; the prediction for the empty prompt would fall out with the mean."""
    c = encode_prompts(model, texts)
    return predict_noise(model, z_t.expand(len(c), -1, -1, -1), torch.full((len(c),), t), c).flatten(1).float().cpu()
