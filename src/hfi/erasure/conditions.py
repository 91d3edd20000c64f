"""The conditions c_s of a run: soft tokens (or words) alone and in templates, and (ours) the prompts of flagged pictures.

Each has a target, the condition whose prediction it is taught. The papers' is the empty prompt, c_0. Where a flagged prompt
says more than a style ("a cat in the style of noto"), its target is the prompt without the style ("a cat"), so that the
rest of it survives (ours). And each has a reading, what the closed-form start is to read it as: there the rest of a
harm's prompt counts too ("a dagger in the style of noto" as "in the style of noto"), or styles would be forgotten with it. With
`keep_rest` (ours, off by default) the reading is the target as well.

`in_context` (ours, off by default) puts prompts between random words of the vocabulary: "needle a dagger cake" is to be drawn as
"needle cake", so that neither forgetting nor keeping hangs on a wording. On the embedded model, at equal steps, it kept more and erased
less (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts, last_states, listed, whole_words
from hfi.seeds import numpy_generator


@dataclass(frozen=True)
class Conditions:
    """c_s by number: first every (token, template), then those that come from flagged prompts, then those that attacks found.

    Of several concepts, first the former of each, then the latter of each (`of_several`).

    c, target, reading: (n, L, D); tokens: how many of them are built from soft tokens alone; flagged_share: chance of the rest.
    end, reading_end: the text states of the last words of c and reading (n, D).
    found, found_share: how many of them attacks found (hardened.py), and the chance of those; live, live_share: the last of them, which
    still learn, and their share among those; met: how often each of these is drawn, in proportion (empty: all alike); found_pictures:
    the share of the states that meet what was found which are noised pictures of the concept; brought: for each that was found the
    numbers of the pictures from which (none: any of the concept's).
    together: all names in a list, in as few prompts as hold them (k, L, D): what an inference-time eraser steers away from.
    concepts: of several concepts, how many conditions of each are built from soft tokens, and how many come from flagged prompts;
    pictures: of several concepts, how many pictures each has of those that `brought` numbers.
    """

    texts: tuple[str, ...]
    c: Tensor
    target: Tensor
    reading: Tensor
    tokens: int
    flagged_share: float
    end: Tensor
    reading_end: Tensor
    together: Tensor
    found: int = 0
    found_share: float = 0.0
    found_pictures: float = 0.0
    live: int = 0
    live_share: float = 0.0
    met: tuple[float, ...] = ()
    brought: tuple[Tensor, ...] = ()
    concepts: tuple[tuple[int, int], ...] = ()
    pictures: tuple[int, ...] = ()

    def joined_by(self, found: Tensor, **given: object) -> Conditions:
        """With conditions (m, L, D) that attacks found, to be drawn as the empty prompt is; `given`: the fields on what was found."""
        like = found.to(self.c)
        empty = self.target[:1].expand_as(like)
        parts = {"c": like, "target": empty, "reading": empty, "end": like[:, -1], "reading_end": empty[:, -1]}
        more = {name: torch.cat([getattr(self, name), new]) for name, new in parts.items()}
        texts = (*self.texts, *("(found by an attack)",) * len(like))
        return replace(self, texts=texts, found=self.found + len(like), **more, **given)

    def draw(self, count: int, rng: numpy.random.Generator) -> Tensor:
        """Numbers (count,) of the conditions for a batch."""
        first, tokens, beyond, flagged = self._places(count, rng)
        from_flagged = rng.random(count) < numpy.where(flagged, self.flagged_share, 0.0)
        of_flagged = beyond + rng.integers(numpy.maximum(flagged, 1), size=count)
        chosen = numpy.where(from_flagged, of_flagged, first + rng.integers(tokens, size=count))
        if self.found:
            from_found = rng.random(count) < self.found_share
            number = rng.integers(self.found, size=count)
            if self.live_share:
                from_live = rng.random(count) < self.live_share
                chances = numpy.array(self.met) / sum(self.met) if self.met else None
                number = numpy.where(from_live, self.found - self.live + rng.choice(self.live, size=count, p=chances), number)
            chosen = numpy.where(from_found, len(self.texts) - self.found + number, chosen)
        return torch.from_numpy(chosen)

    def _places(self, count: int, rng: numpy.random.Generator) -> tuple:
        """(first, how many) of the conditions built from tokens, and the same of those from flagged prompts; of several concepts (count,)
        each, those of a concept drawn by lot: each is met as often as any other, however many tokens and prompts it has."""
        if not self.concepts:
            return 0, self.tokens, self.tokens, len(self.texts) - self.tokens - self.found
        tokens, flagged = numpy.array(self.concepts).T
        places = numpy.cumsum(tokens) - tokens, tokens, self.tokens + numpy.cumsum(flagged) - flagged, flagged
        concept = rng.integers(len(self.concepts), size=count)
        return tuple(place[concept] for place in places)

    def weights(self) -> Tensor | None:
        """(n,), 1 on average: what each condition weighs in a closed form, so that every concept counts as much; None of one concept."""
        if not self.concepts:
            return None
        sizes = [sum(size) for size in self.concepts]
        each = [sum(sizes) / len(sizes) / size for size in sizes]
        weights = [each[k] for part in (0, 1) for k, size in enumerate(self.concepts) for _ in range(size[part])]
        return torch.tensor(weights + [1.0] * self.found, dtype=torch.float64)

    def picture_of(self, condition: Tensor, otherwise: Tensor, rng: numpy.random.Generator) -> Tensor:
        """For each condition (n,) the number of one of the pictures that it was learned from; of one that no attack found, `otherwise`."""
        first, place = len(self.texts) - self.found, rng.random(len(condition))
        own = [self.brought[int(one) - first] if one >= first else None for one in condition]
        chosen = [other if one is None else one[int(share * len(one))] for one, other, share in zip(own, otherwise, place, strict=True)]
        return torch.stack(chosen)

    def token_of(self, condition: Tensor, rng: numpy.random.Generator) -> Tensor:
        """For each condition (n,) the number of one that is built from a soft token, by lot; of several concepts, and one that an attack
        found, from a token of the concept whose pictures it brought."""
        if not self.pictures or not self.brought:
            return torch.from_numpy(rng.integers(self.tokens, size=len(condition)))
        first, ends = len(self.texts) - self.found, numpy.cumsum(self.pictures)
        tokens = numpy.array([count for count, _ in self.concepts])
        picture = [int(self.brought[int(one) - first][0]) if one >= first else 0 for one in condition]
        concept = numpy.searchsorted(ends, picture, side="right")
        return torch.from_numpy((numpy.cumsum(tokens) - tokens)[concept] + rng.integers(tokens[concept]))


def of_several(parts: Sequence[Conditions], together: Tensor, pictures: Sequence[int] = ()) -> Conditions:
    """The conditions of several concepts in one run; `together`: all of their names, `pictures` of each, as in `Conditions` (k, L, D)."""

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(one, name)[span] for one, span in spans])

    spans = [(one, slice(0, one.tokens)) for one in parts] + [(one, slice(one.tokens, None)) for one in parts]
    texts = tuple(text for one, span in spans for text in one.texts[span])
    tensors = {name: cat(name) for name in ("c", "target", "reading", "end", "reading_end")}
    concepts = tuple((one.tokens, len(one.texts) - one.tokens) for one in parts)
    tokens, share = sum(one.tokens for one in parts), parts[0].flagged_share
    more = {"together": together, "concepts": concepts, "pictures": tuple(pictures)}
    return Conditions(texts, tokens=tokens, flagged_share=share, **more, **tensors)


@dataclass(frozen=True)
class Flagged:
    """The prompt of a flagged picture, what is left of it without the concept ("" for nothing), and the concept's kind."""

    prompt: str
    without: str = ""
    kind: str = "harm"

    def of_token(self, name: str) -> str:
        """The prompt with a soft token in the concept's place."""
        return f"{self.without} in the style of {name}" if self.kind == "style" else f"a {name} {self.without}"


def in_context(model: Model, prompts: Sequence[tuple[str, ...]], variants: int, seed: int, *index: str) -> list[tuple[str, ...]]:
    """`variants` copies of each group of texts, all of a group between the same zero to two random whole words on either side.

    The words are those of the model's own tokenizer; a copy has at least one. Empty for a vocabulary without words.
    """
    words = whole_words(model.tokenizer, 1)
    rng, found = numpy_generator(seed, "context", *index), []
    for group in prompts if words else ():
        for _ in range(variants):
            left, right = ((0, 1), (1, 0), (1, 1), (2, 0), (0, 2), (2, 1))[rng.integers(6)]
            before, after = (" ".join(words[i] for i in rng.integers(len(words), size=count)) for count in (left, right))
            found.append(tuple(" ".join(part for part in (before, text, after) if part) for text in group))
    return found


def build_conditions(
    model: Model,
    tokens: Mapping[str, Tensor],
    templates: Sequence[str],
    flagged: Sequence[Flagged],
    flagged_share: float,
    context_variants: int = 0,
    seed: int = 0,
    words: Sequence[str] = (),
    anchor: str = "",
    keep_rest: bool = False,
) -> Conditions:
    """Encode every condition once.

    Args:
        tokens: soft tokens of one concept or of several, (n, D) each.
        templates: texts with `{}` where the token goes; their target and reading are the empty prompt.
        flagged: prompts of the top-K pictures; repeats are kept, so frequent ones weigh more. What they say beside the
            concept also comes with a token in the concept's place.
        flagged_share: chance that a c_s is one of those (0: the papers' method).
        context_variants: copies of every condition between random words of the vocabulary (ours; 0: none).
        seed: of those words.
        words: natural words that stand in the tokens' place, where the concept is given in words.
        anchor: a word whose prediction is taught instead of the empty prompt's, in the same templates (Concept Ablation).
        keep_rest: the target of a harm's prompt is what it says beside the concept, not the empty prompt (ours).
    """
    names = list(words) or list(tokens)
    instead = {template: template.format(anchor) if anchor else "" for template in templates}
    # (c_s, target, reading, text whose last word the last word of c_s is to be read as)
    alone = [(template.format(name), *[instead[template]] * 3) for name in names for template in templates]
    more = []
    if flagged_share > 0:
        rest = [one for one in flagged if one.without]
        # the last word of a styled prompt is the style: it is to be read as nothing, not as the object that is left
        kept = {one: one.without if keep_rest or one.kind == "style" else "" for one in flagged}
        read = {one: (kept[one], one.without, "" if one.kind == "style" else one.without) for one in flagged}
        more = [(one.prompt, *read[one]) for one in flagged]
        styled = [(i, one) for i, one in enumerate(rest) if one.kind == "style"]
        more += [(one.of_token(names[i % len(names)]), *read[one]) for i, one in styled]
        harms = [one for one in sorted(rest, key=lambda one: one.without) if one.kind == "harm"]
        alone += dict.fromkeys((one.of_token(name), *read[one]) for name in names for one in harms)
    alone += in_context(model, alone, context_variants, seed, "tokens")
    more += in_context(model, more, context_variants, seed, "flagged")
    texts, targets, readings, ends = zip(*alone, *more, strict=True)
    c, target, reading = encode_prompts(model, texts, tokens), encode_prompts(model, targets), encode_prompts(model, readings)
    ends = last_states(model, texts, tokens), last_states(model, ends)
    together = encode_prompts(model, listed(model, names, tokens), tokens)
    return Conditions(texts, c, target, reading, len(alone), flagged_share, *ends, together)
