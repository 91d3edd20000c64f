"""The judgements of a study as one soft label per picture, with how much the answers tell and how far each annotator is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy

from hfi.errors import HFIError
from hfi.feedback.aggregation.answers import Answers
from hfi.feedback.aggregation.dawid_skene import dawid_skene
from hfi.feedback.aggregation.mace import mace
from hfi.feedback.aggregation.majority import majority
from hfi.feedback.aggregation.rankings import crowd_bradley_terry, pairs_of
from hfi.feedback.judgements import Judgement
from hfi.feedback.tables import RANKED

METHODS = ("majority", "dawid_skene", "mace")


@dataclass(frozen=True)
class Label:
    """One picture's label."""

    present: float  # majority: share of "present"; else the probability that the concept is there
    weight: float  # from 0 up, what the picture counts when the reward learns; majority: number of answers
    answers: int


@dataclass(frozen=True)
class Reliability:
    """How far one annotator's labels are right, by what the others said."""

    annotator: str
    kind: str
    answers: int
    sensitivity: float  # says present where it is
    specificity: float  # says absent where it is not

    @property
    def balanced(self) -> float:
        """Mean of the two rates: 1 is always right, 1/2 tells nothing."""
        return (self.sensitivity + self.specificity) / 2


@dataclass(frozen=True)
class Aggregate:
    """All labels of a study."""

    method: str
    labels: dict[str, Label]  # by image id
    annotators: tuple[Reliability, ...]
    prevalence: float | None  # share of pictures that show the concept; None where nobody decided anything


def aggregate(rows: Iterable[Judgement], method: str = "dawid_skene") -> Aggregate:
    """Labels from binary judgements (unsure, skip, withdrawn and rankings are left out).

    With "dawid_skene" and "mace" a picture's weight is tanh(s / 2)^2, s the log-odds of its answers: 1 where they settle the
    label, 0 where they tell nothing (a tie between equals, or only annotators who answer at random). Where a reviewer decided, the
    label is that decision, of weight 1 or of as many answers as there are and one more.
    Raises HFIError for an unknown method.
    """
    if method not in METHODS:
        raise HFIError(f"unknown method {method!r}", field="reward.aggregation", remedy=f"use {', '.join(METHODS)}")
    answers = Answers.of(rows)
    if not answers.images:
        return Aggregate(method, {}, (), None)
    _, total = answers.votes()
    if method == "majority":
        present, weight = majority(answers), total + ~numpy.isnan(answers.known)
        prevalence = float(present.mean())
        sensitivity, specificity = _against(answers, present)
    else:
        found = (dawid_skene if method == "dawid_skene" else mace)(answers)
        present, sensitivity, specificity = found.present, found.sensitivity, found.specificity
        told = numpy.tanh(answers.log_odds(sensitivity, specificity) / 2) ** 2
        weight = numpy.where(numpy.isnan(answers.known), told, 1.0)
        prevalence = float(getattr(found, "prevalence", present.mean()))
    given = answers.per_annotator(numpy.ones_like(answers.present))
    return Aggregate(
        method,
        {name: Label(float(p), float(w), int(n)) for name, p, w, n in zip(answers.images, present, weight, total, strict=True)},
        tuple(
            Reliability(name, kind, int(n), float(a), float(b))
            for name, kind, n, a, b in zip(answers.annotators, answers.kinds, given, sensitivity, specificity, strict=True)
        ),
        prevalence,
    )


def order_weights(rows: Sequence[Judgement], method: str = "dawid_skene") -> list[tuple[tuple[str, ...], float]]:
    """Given rankings without excluded pictures (the concept strongest first), each with what it counts, in [0, 1].

    "majority": all count 1. Otherwise 2 eta - 1 of its annotator (from 0 up), eta being the chance that the annotator
    reports a pair as seen: somebody who orders at random counts nothing.
    """
    given = [row for row in rows if row.value == RANKED and len(row.ranking) > 1]
    if method == "majority" or not given:
        return [(row.ranking, 1.0) for row in given]
    eta = ranking_reliability(given)
    return [(row.ranking, max(0.0, 2 * eta[row.annotator] - 1)) for row in given]


def ranking_reliability(rows: Sequence[Judgement]) -> dict[str, float]:
    """{annotator: eta}, the chance that the annotator reports a pair of pictures as seen, by what the others said."""
    names = sorted({name for row in rows for name in row.ranking})
    people = sorted({row.annotator for row in rows})
    place, number = {name: i for i, name in enumerate(names)}, {name: i for i, name in enumerate(people)}
    pairs, who = [], []
    for row in rows:
        found = pairs_of([place[name] for name in row.ranking])
        pairs += found
        who += [number[row.annotator]] * len(found)
    _, eta = crowd_bradley_terry(numpy.array(pairs), numpy.array(who), len(names), len(people))
    return {name: float(eta[number[name]]) for name in people}


def _against(answers: Answers, present: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Rates (a,) at which annotators agree with the shares, those split evenly counting half on either side."""
    true = numpy.where(present == 0.5, 0.5, present > 0.5)[answers.image]
    said = answers.present
    with numpy.errstate(invalid="ignore"):
        sensitivity = answers.per_annotator(true * said) / answers.per_annotator(true)
        specificity = answers.per_annotator((1 - true) * (1 - said)) / answers.per_annotator(1 - true)
    return numpy.nan_to_num(sensitivity, nan=0.5), numpy.nan_to_num(specificity, nan=0.5)
