"""A judgement as a value: what one annotator said of one picture (binary) or of several (ranking)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hfi.errors import HFIError
from hfi.feedback.tables import KINDS, LABEL_ROUND, LABELS, RANKED

MAX_RANKED = 9


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement; `images` has one id for a binary one, 2 to 9 for a ranking.

    A ranking lists ids with the concept strongest first; `excluded` are those marked "X" (no fair comparison). `ranking` and
    `excluded` together are exactly `images`, unless the value is "skip" or "unsure".
    """

    images: tuple[str, ...]
    annotator: str  # pseudonym
    kind: str = "human"  # human, simulated or machine
    value: str = RANKED  # present, absent, unsure, skip; for rankings ranked, unsure, skip
    ranking: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    seconds: float | None = None
    guideline: int | None = None  # version; None: the latest
    created: str | None = field(default=None, compare=False)  # ISO 8601, UTC; None: now, when it is recorded
    round: str = field(default=LABEL_ROUND, compare=False)  # "label", or the name of an evaluation round
    purpose: str = field(default="work", compare=False)  # why it was asked for: work, gold, quiz, repeat or adjudication

    @property
    def task(self) -> str:
        return "binary" if len(self.images) == 1 else "ranking"

    @property
    def target(self) -> str:
        """What is judged, whatever the order shown: a later judgement of the same target supersedes an earlier."""
        return " ".join(sorted(self.images))

    def said(self) -> tuple:
        """The answer itself, without when and how fast it was given."""
        return self.value, self.ranking, tuple(sorted(self.excluded))

    def check(self) -> str | None:
        """None when the judgement is whole, else (field, problem) in words, as 'field: problem'."""
        if not self.images or not all(isinstance(name, str) and name and not name.isspace() for name in self.images):
            return "image: an image id is missing"
        if len(set(self.images)) != len(self.images):
            return "images: the same image stands there twice"
        if len(self.images) > MAX_RANKED:
            return f"images: {len(self.images)} pictures in one ranking, at most {MAX_RANKED} are allowed"
        name = self.annotator
        if not isinstance(name, str) or not name.strip() or len(name) > 64 or not name.isprintable():
            return "annotator: a pseudonym of 1 to 64 printable characters is needed"
        if self.kind not in KINDS:
            return f"kind: {self.kind!r} is none of {', '.join(KINDS)}"
        if self.task == "binary":
            if self.value not in LABELS:
                return f"label: {self.value!r} is none of {', '.join(LABELS)}"
        elif self.value == RANKED:
            if len(set(self.ranking)) != len(self.ranking) or len(set(self.excluded)) != len(self.excluded):
                return "ranking: the same image stands there twice"
            if sorted((*self.ranking, *self.excluded)) != sorted(self.images):
                return "ranking: ranking and excluded together must name each of the images once"
        elif self.value not in ("unsure", "skip"):
            return f"label: {self.value!r} does not fit a ranking (give an order, or unsure, or skip)"
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            return "seconds: must be a number from 0 up"
        return None

    def require(self) -> Judgement:
        """The judgement itself; raises HFIError when it is not whole."""
        if problem := self.check():
            field_name, _, words = problem.partition(": ")
            raise HFIError(words, field=f"judgement {field_name}", remedy="see docs/formats.md")
        return self


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
