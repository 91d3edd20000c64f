"""Simulated annotators: several, each with an error rate and biases of its own, played by one judge network.

They stand in for people where nobody can be asked (tests, the demo). Everything they say is marked `simulated`. The judge
gives p, its probability that the concept is in the picture (harm: summed over the concept's member objects; style: that
style). An annotator says "present" where p is above a threshold of its own, errs now and then, and is at times unsure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy
from numpy.random import Generator

from hfi.config import Label
from hfi.feedback.judgements import Judgement
from hfi.seeds import numpy_generator

SPREAD = 0.6  # error rates lie evenly within +-60 % of the study's mean
THRESHOLDS = (0.5, 0.35, 0.65)  # even-handed, lenient, strict; in turn
STYLE_BIAS = 0.2  # how much lower the threshold lies for pictures in the style that an annotator is biased against
UNSURE_WITHIN, UNSURE_RATE = 0.08, 0.5  # so near the threshold, this share of answers is "unsure"
SKIP_RATE = 0.01
EXCLUDE_ABOVE = 0.5  # rankings: a picture is marked "X" where the judge is surer than this that it shows nothing


@dataclass(frozen=True)
class Annotator:
    """One simulated annotator."""

    pseudonym: str
    error_rate: float  # chance that an answer is turned round; in rankings, that two neighbours change places
    threshold: float  # p above which it says "present"
    biased_style: str | None  # it sees the concept more readily in this style


@dataclass(frozen=True)
class Seen:
    """What the judge saw in one picture."""

    concept: float  # p, in [0, 1]
    garbage: float  # probability of `neither`
    style: str | None


def annotators(config: Label, styles: Sequence[str], seed: int, basis: str = "") -> list[Annotator]:
    """The study's simulated annotators.

    Their pseudonyms change with the settings that make them and with `basis` (judge, concept), so that old answers of other
    annotators are never taken for theirs.
    """
    made, count = [], config.annotators
    for i in range(count):
        rng = numpy_generator(seed, "simulated annotator", i)
        lean = (2 * i / (count - 1) - 1) if count > 1 else 0.0
        error_rate = min(0.5, config.error_rate * (1 + SPREAD * lean))
        threshold = THRESHOLDS[i % len(THRESHOLDS)]
        style = str(rng.choice(list(styles))) if i == 1 and len(styles) > 1 else None
        words = f"{seed}|{error_rate}|{threshold}|{style}|{config.simulated_judge}|{basis}"
        pseudonym = f"simulated-{i + 1}-{hashlib.sha256(words.encode()).hexdigest()[:6]}"
        made.append(Annotator(pseudonym, error_rate, threshold, style))
    return made


def binary_plan(people: Sequence[Annotator], image_ids: Sequence[str], seed: int) -> list[tuple[str, tuple[Annotator, ...]]]:
    """Everybody in the order in which they are asked about each picture: whoever is asked first, evenly; all see pictures of all kinds."""
    rng = numpy_generator(seed, "simulated plan")
    order = rng.permutation(len(image_ids))
    place = {int(image): turn for turn, image in enumerate(order)}
    return [(name, tuple(people[(place[i] + j) % len(people)] for j in range(len(people)))) for i, name in enumerate(image_ids)]


def ranking_plan(
    people: Sequence[Annotator], image_ids: Sequence[str], config: Label, seed: int
) -> list[tuple[tuple[str, ...], tuple[Annotator, ...]]]:
    """Sets of M pictures and who orders each: every picture comes up equally often, every set goes to `overlap` annotators."""
    size, shared = min(config.ranking_size, len(image_ids)), min(config.overlap, len(people))
    sets, turn = [], 0
    total = math.ceil(config.rankings * len(people) / shared)
    while len(sets) < total:
        order = numpy_generator(seed, "simulated sets", turn).permutation(len(image_ids))
        sets += [tuple(image_ids[i] for i in order[start : start + size]) for start in range(0, len(order) - size + 1, size)]
        turn += 1
    return [(names, tuple(people[(i + j) % len(people)] for j in range(shared))) for i, names in enumerate(sets[:total])]


def judge_binary(person: Annotator, image_id: str, seen: Seen, seed: int) -> Judgement:
    """The annotator's answer on one picture; the same whenever and in whatever order it is asked."""
    rng = numpy_generator(seed, "simulated binary", person.pseudonym, image_id)
    return Judgement((image_id,), person.pseudonym, "simulated", _binary_value(person, seen, rng))


def judge_ranking(person: Annotator, image_ids: tuple[str, ...], seen: Sequence[Seen], seed: int) -> Judgement:
    """The annotator's order of several pictures, the concept strongest first; garbage is excluded ("X")."""
    rng = numpy_generator(seed, "simulated ranking", person.pseudonym, *sorted(image_ids))
    names = tuple(sorted(image_ids))
    by_name = dict(zip(image_ids, seen, strict=True))
    if rng.random() < SKIP_RATE:
        return Judgement(names, person.pseudonym, "simulated", "skip")
    kept = [name for name in names if by_name[name].garbage <= EXCLUDE_ABOVE]
    if len(kept) < 2:
        return Judgement(names, person.pseudonym, "simulated", "unsure")
    order = sorted(kept, key=lambda name: (-_strength(person, by_name[name]), name))
    for i in range(len(order) - 1):
        if rng.random() < person.error_rate:
            order[i], order[i + 1] = order[i + 1], order[i]
    return Judgement(names, person.pseudonym, "simulated", ranking=tuple(order), excluded=tuple(name for name in names if name not in kept))


def profile(people: Sequence[Annotator]) -> list[dict]:
    """The annotators as plain data, for the manifest."""
    return [asdict(person) for person in people]


def _strength(person: Annotator, seen: Seen) -> float:
    return seen.concept + (STYLE_BIAS if person.biased_style is not None and seen.style == person.biased_style else 0.0)


def _binary_value(person: Annotator, seen: Seen, rng: Generator) -> str:
    skips, hesitates, errs = rng.random(3) < (SKIP_RATE, UNSURE_RATE, person.error_rate)
    distance = _strength(person, seen) - person.threshold
    if skips:
        return "skip"
    if abs(distance) < UNSURE_WITHIN and hesitates:
        return "unsure"
    return "present" if (distance > 0) != errs else "absent"


def concept_probability(object_probs: numpy.ndarray, style_probs: numpy.ndarray, columns: Sequence[int], kind: str) -> numpy.ndarray:
    """p (B,) from a judge's probabilities: over the members' columns (harm) or the style's column (style)."""
    return (style_probs if kind == "style" else object_probs)[:, list(columns)].sum(1).clip(0, 1)
