"""What the queue hands out and takes back: items, answers, receipts, and where an annotator stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One question to one annotator."""

    id: str  # random; says nothing
    task: str  # binary or ranking
    images: tuple[str, ...]  # image ids in the order to show
    lease_until: str  # ISO 8601, UTC; asking `next` again renews it
    round: str = "label"  # "label", or the name of an evaluation round


@dataclass(frozen=True, slots=True)
class Answer:
    """What an annotator says of an item."""

    value: str  # binary: present, absent, unsure, skip; ranking: ranked, unsure, skip
    ranking: tuple[str, ...] = ()  # image ids, the concept strongest first
    excluded: tuple[str, ...] = ()  # image ids marked "X"
    seconds: float | None = None  # from the picture's showing to the key
    guideline: int | None = None  # the version that was on screen; None: the latest
    revises: str | None = None  # the submission that this one changes; without it an answered item is refused (409)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a quiz item teaches after it is answered."""

    right: bool
    expected: str
    note: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer is on disk. A replay of the same submission returns an equal receipt."""

    submission: str
    item_id: str
    answer: Answer
    created: str  # ISO 8601, UTC
    withdrawn: bool = False  # an undo's receipt
    lesson: Lesson | None = None  # quiz items only


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an annotator's own history; withdrawn and superseded answers stay in it, marked."""

    position: int  # give the smallest as `before` to page on
    submission: str  # "" when the answer came by a file
    item_id: str  # "" likewise
    task: str
    images: tuple[str, ...]
    answer: Answer
    created: str
    counts: bool  # False: withdrawn, or a later answer superseded it


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an annotator stands."""

    done: int  # items answered
    left: int  # items that could still be asked of this annotator
    pace_per_minute: float  # over the last ten minutes of work
    today: int  # answers since midnight UTC
    flagged_seen_today: int  # pictures seen today that were flagged, by this annotator or by another one before
    daily_cap: int  # answers a day after which `next` gives nothing; 0: none
    capped: bool
    break_due: bool  # a multiple of label.queue.break_every answers was just reached
    opted_out: bool


@dataclass(frozen=True, slots=True)
class Gold:
    """A picture whose answer is known."""

    image: str
    value: str  # present or absent
    note: str  # why; shown after a quiz item, never otherwise
    quiz: bool  # asked in the first-run quiz (and then not again)


@dataclass(frozen=True, slots=True)
class Score:
    """How a quiz, or all gold items of an annotator, went."""

    right: int
    answered: int
    asked: int


@dataclass(frozen=True, slots=True)
class Preferences:
    """What one annotator chose; kept under the pseudonym."""

    consented: str | None = None  # when the consent page was accepted (ISO 8601), or None
    opted_out: bool = False  # does not want to see this study's concept: `next` gives nothing
    blur: bool = True  # blurred and greyed until held
    keys: tuple[tuple[str, str], ...] = ()  # (action, key) pairs that differ from the default
    quiz_done: bool = False
