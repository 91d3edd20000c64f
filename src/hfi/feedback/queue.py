"""What each annotator is asked next, and what becomes of the answer: the one door between the labelling page and the store.

A client never learns which items are gold or repeats: an item's id is a random token of one annotator's lease. Refusals are
`hfi.feedback.events.Refused` with an HTTP status.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfi.config import Label
from hfi.feedback.store import Store
from hfi.workspace import Workspace

MOST = 32  # items handed out at once


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
    flagged_seen_today: int  # pictures seen today that were flagged: by this annotator, or by most who judged them
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


class Queue:
    """The queue of one round. Safe to share between threads; several server processes may use the same store."""

    def __init__(self, store: Store, settings: Label, seed: int = 0, folder: Path | None = None, round: str = "label"):
        """
        Args:
            store: the study's judgements.
            settings: the study's `label` section; `settings.queue` has overlap, shares, lease and cap.
            seed: the study's seed; orders, gold and repeats follow from it.
            folder: the study's folder, where active choice finds the reward's scores; None: random order.
            round: "label", or an evaluation round made by `add_round`.
        """
        raise NotImplementedError

    @classmethod
    def of(cls, study: Workspace, store: Store, round: str = "label") -> Queue:
        """The queue of a study, with an item for every picture that is to be judged."""
        raise NotImplementedError

    # --- for annotators ---------------------------------------------------------------------------------------------------

    def next(self, annotator: str, count: int = 8) -> list[Item]:
        """Up to `count` items: the annotator's own unanswered leases first (renewed), then new ones.

        Empty when nothing is left, the daily cap is reached or the annotator opted out; `progress` says which.
        """
        raise NotImplementedError

    def submit(self, annotator: str, item_id: str, answer: Answer, submission: str) -> Receipt:
        """Record an answer; it is on disk when this returns.

        Args:
            submission: the client's UUID for this answer; a replay returns the first receipt and stores nothing.

        Raises Unknown (404), NotYours (403), Answered (409: say which submission it revises), Expired (409: late, and somebody else
        took the place; a late answer is taken when the place is still free), Invalid (422: does not fit the item, or the
        submission's UUID was used for another answer).
        """
        raise NotImplementedError

    def undo(self, annotator: str, submission: str) -> Receipt:
        """Withdraw an answer by a new row. An answer that it had revised counts again; without one the item is asked again, first.

        Undoing twice is undoing once. Raises Unknown (404), NotYours (403), Answered (409: a later answer revised it; undo that one).
        """
        raise NotImplementedError

    def history(self, annotator: str, before: int | None = None, count: int = 50) -> list[Entry]:
        """The annotator's own answers, newest first; undo rows themselves are left out."""
        raise NotImplementedError

    def item(self, annotator: str, item_id: str) -> Item:
        """One's own item by id, answered or not (to go back to it). Raises Unknown (404), NotYours (403)."""
        raise NotImplementedError

    def progress(self, annotator: str) -> Progress:
        """Where the annotator stands; counts over the whole study are at most 5 s old."""
        raise NotImplementedError

    def preferences(self, annotator: str) -> Preferences:
        """What the annotator chose, or the defaults."""
        raise NotImplementedError

    def save_preferences(self, annotator: str, preferences: Preferences) -> None:
        """Keep what the annotator chose."""
        raise NotImplementedError

    def quiz(self, annotator: str) -> list[Item]:
        """The quiz items not answered yet, leased; empty when there is no quiz or it is done. Answer them by `submit`."""
        raise NotImplementedError

    def quiz_score(self, annotator: str) -> Score:
        """How the quiz stands."""
        raise NotImplementedError

    # --- for reviewers and whoever sets a study up -------------------------------------------------------------------------

    def add_items(self, tasks: list[tuple[str, ...]], wanted: int | None = None) -> int:
        """Ask for judgements: one image id for a binary task, several for a ranking; known ones stay. Returns how many were new.

        Args:
            wanted: judgements per item; None: label.queue.overlap.
        """
        raise NotImplementedError

    def set_gold(self, image: str, value: str, note: str = "", quiz: bool = False) -> None:
        """Say the known answer of a picture: it leaves the work items and is mixed in among them, once per annotator."""
        raise NotImplementedError

    def gold(self) -> list[Gold]:
        """All gold pictures, by image id."""
        raise NotImplementedError

    def adjudicate(self, reviewer: str, image: str, value: str, submission: str, seconds: float | None = None) -> Receipt:
        """A reviewer's final word on a picture: a judgement of purpose "adjudication", which aggregation takes as decided."""
        raise NotImplementedError

    def people(self) -> dict[str, Progress]:
        """The progress of every human annotator, by pseudonym."""
        raise NotImplementedError
