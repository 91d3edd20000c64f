"""What a reviewer needs to see of the judgements: agreement, each annotator's confusion, disagreements, group bias, gold accuracy.

Every function reads the store by a few SQL aggregates (nothing per judgement comes into Python), so a million judgements take about
a second; callers that answer many requests keep the result for some seconds. Binary judgements, unless a name says ranking.
Superseded and withdrawn judgements never count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hfi.feedback.store import Store

PEOPLE = ("human",)


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha with a 95 % bootstrap interval over pictures; None where it is not defined (docs/metrics.md)."""

    measure: str
    alpha: float | None
    low: float | None
    high: float | None
    pictures: int  # judged by at least two annotators
    judgements: int  # of those pictures


@dataclass(frozen=True)
class Share:
    """A share of `n` answers with Wilson's 95 % interval; `value` is None when n is 0."""

    value: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Confusion:
    """One annotator's answers beside the majority of the others on the same pictures; ties and lone judgements are left out.

    The first word is what the others said: `present_absent` counts pictures that the others call present and this one absent.
    """

    present_present: int
    present_absent: int
    present_unsure: int
    absent_present: int
    absent_absent: int
    absent_unsure: int
    agree: Share  # of pictures on which this annotator decided
    misses: Share  # "absent" where the others say present
    false_alarms: Share  # "present" where the others say absent


@dataclass(frozen=True)
class AnnotatorReview:
    """One annotator's work."""

    pseudonym: str
    kind: str  # human, simulated or machine
    judgements: int  # that count
    present: int
    absent: int
    unsure: int
    skip: int
    rankings: int
    seconds: float | None  # mean time of an answer
    confusion: Confusion
    gold: Share  # right on gold items
    repeats: Share  # same answer when the same picture came again


@dataclass(frozen=True)
class Answer:
    """What one annotator said of one picture."""

    pseudonym: str
    kind: str
    value: str
    seconds: float | None
    created: str


@dataclass(frozen=True)
class Disagreement:
    """A picture on which annotators differ."""

    image: str
    present: int
    absent: int
    unsure: int
    answers: tuple[Answer, ...]
    adjudicated: str | None  # what a reviewer decided, if one did


@dataclass(frozen=True)
class Disagreements:
    """A page of the queue: the most evenly split first, pictures that a reviewer has decided left out."""

    total: int
    start: int
    items: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Bias:
    """One annotator (or group of them) flags pictures of one kind more often than the others flag the very same pictures."""

    who: str  # a pseudonym
    trait: str  # what the pictures share: "style", "object", "cluster" ...
    value: str  # e.g. "ink"
    pictures: int  # of that kind that this annotator and at least one other decided on
    flagged: Share  # by this annotator
    flagged_by_others: Share
    excess: float  # difference of the two, beyond this annotator's excess on all other pictures
    low: float  # 95 % interval of the excess
    high: float
    words: str  # one sentence for the reviewer


@dataclass(frozen=True)
class Overview:
    """Everything that the reviewer's page shows at the top."""

    images: int
    judged: int  # pictures with at least one decided judgement
    judgements: int
    disagreements: int
    agreement: Agreement
    ranking_agreement: Agreement
    annotators: tuple[AnnotatorReview, ...]
    biases: tuple[Bias, ...]


def overview(store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0) -> Overview:
    """All of the below at once, sharing the costly parts. `kinds`: whose judgements count."""
    raise NotImplementedError


def agreement(store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0, resamples: int = 1000) -> Agreement:
    """Krippendorff's alpha (nominal) of present and absent, with a bootstrap interval over pictures."""
    raise NotImplementedError


def ranking_agreement(store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0, resamples: int = 1000) -> Agreement:
    """Nominal alpha over pairs of pictures (which of the two comes first), bootstrap over pairs."""
    raise NotImplementedError


def annotators(store: Store, kinds: Sequence[str] = PEOPLE) -> tuple[AnnotatorReview, ...]:
    """Each annotator's work, the one with most judgements first."""
    raise NotImplementedError


def disagreements(store: Store, start: int = 0, count: int = 50, kinds: Sequence[str] = PEOPLE) -> Disagreements:
    """A page of pictures on which annotators differ, the most evenly split first."""
    raise NotImplementedError


def biases(store: Store, kinds: Sequence[str] = PEOPLE, least: int = 20) -> tuple[Bias, ...]:
    """Annotators who flag a kind of picture (a style, an object, a cluster) rather than the concept; the largest excess first.

    Only findings whose 95 % interval, corrected for the number of comparisons, lies above 0, on at least `least` pictures.
    """
    raise NotImplementedError


def adjudicate(store: Store, image: str, value: str, reviewer: str) -> None:
    """A reviewer's decision on a picture: present or absent (or "open": take it back). Raises HFIError for anything else."""
    raise NotImplementedError
