"""A round's judgements as arrays in memory, brought up to date by reading only the rows that are new.

Judgements are append-only and their numbers grow in the order of their commits, so what was read once stays true: after the
first look (two seconds for a million) a reviewer's page costs milliseconds and takes nothing from those who are judging.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy import ndarray
from sqlalchemy import text

from hfi.feedback.store import Store
from hfi.feedback.tables import LABEL_ROUND, PURPOSES, RANKED, WITHDRAWN

VALUES = ("present", "absent", "unsure", "skip", RANKED)
PRESENT, ABSENT, UNSURE, SKIP, RANKING = range(len(VALUES))
ADJUDICATION, REPEAT = PURPOSES.index("adjudication"), PURPOSES.index("repeat")
ROWS = text("""SELECT id, annotator, target, value, purpose, seconds, withdraws FROM judgement
               WHERE id > :last AND round = :round ORDER BY id""")
BATCH = 20_000
DTYPES = {"id": numpy.int64, "annotator": numpy.int32, "target": numpy.int32, "value": numpy.int8, "purpose": numpy.int8,
          "seconds": numpy.float32}  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """Answers that count, row by row (n,): the last one of each annotator on each target, undone ones left out."""

    annotator: ndarray  # index into names
    target: ndarray  # index into targets
    value: ndarray  # index into VALUES
    purpose: ndarray  # index into PURPOSES
    seconds: ndarray  # nan where not known
    repeats: ndarray  # (k, 2) rows of `said`: an answer and the same annotator's answer when the picture came again
    said: ndarray  # values of all rows that were not undone, superseded ones too
    by: ndarray  # annotators of those
    names: tuple[str, ...]  # pseudonyms
    kinds: tuple[str, ...]  # human, simulated or machine
    targets: Sequence[str]  # image ids, or several with spaces between (rankings)

    def of(self, kinds: Sequence[str]) -> ndarray:
        """(n,) whether an answer was given by these kinds of annotators, and is no reviewer's decision."""
        chosen = numpy.array([kind in kinds for kind in self.kinds], dtype=bool)
        return chosen[self.annotator] & (self.purpose != ADJUDICATION) if len(chosen) else numpy.zeros(0, dtype=bool)

    def votes(self, value: int, rows: ndarray) -> ndarray:
        """(targets,) how many of these rows say `value` of each target."""
        return numpy.bincount(self.target[rows & (self.value == value)], minlength=len(self.targets))

    def adjudicated(self) -> ndarray:
        """(targets,) what a reviewer decided, as an index into VALUES; -1: nobody has."""
        found = numpy.full(len(self.targets), -1)
        rows = self.purpose == ADJUDICATION
        found[self.target[rows]] = self.value[rows]
        return found


class Ledger:
    """One round of one store. Safe to share between threads."""

    def __init__(self, round: str = LABEL_ROUND):
        self.round, self.last = round, 0
        self._rows = {name: numpy.zeros(0, kind) for name, kind in DTYPES.items()}
        self._alive = numpy.zeros(0, dtype=bool)
        self._targets: dict[str, int] = {}
        self._standing: Standing | None = None
        self._lock = threading.Lock()

    def standing(self, store: Store) -> Standing:
        """The answers that count now."""
        with self._lock:
            fresh = self._read(store)
            if fresh or self._standing is None:
                with store.reading() as connection:
                    people = {row[0]: (row[1], row[2]) for row in connection.execute(text("SELECT id, pseudonym, kind FROM annotator"))}
                self._standing = self._sort_out(people)
            return self._standing

    def _read(self, store: Store) -> int:
        """Take in the rows that are new; returns how many."""
        parts: dict[str, list] = {name: [] for name in DTYPES}
        undone: list[int] = []
        value, purpose = ({name: i for i, name in enumerate(names)} for names in (VALUES, PURPOSES))
        with store.reading() as connection:
            result = connection.execution_options(yield_per=BATCH).execute(ROWS, {"last": self.last, "round": self.round})
            for batch in result.partitions(BATCH):
                for row in batch:
                    if row[3] == WITHDRAWN:
                        undone.append(row[6])
                kept = [row for row in batch if row[3] != WITHDRAWN]
                columns = list(zip(*kept, strict=True)) if kept else [[]] * 7
                places = [self._targets.setdefault(target, len(self._targets)) for target in columns[2]]
                cells = (columns[0], columns[1], places, [value[v] for v in columns[3]], [purpose[p] for p in columns[4]],
                         [numpy.nan if s is None else s for s in columns[5]])  # fmt: skip
                for (name, kind), cell in zip(DTYPES.items(), cells, strict=True):
                    parts[name].append(numpy.array(cell, dtype=kind))
                self.last = batch[-1][0]
        if not parts["id"]:
            return 0
        count = sum(len(part) for part in parts["id"])
        for name in DTYPES:
            self._rows[name] = numpy.concatenate([self._rows[name], *parts[name]])
        self._alive = numpy.concatenate([self._alive, numpy.ones(count, dtype=bool)])
        if undone and len(self._alive):
            place = numpy.minimum(numpy.searchsorted(self._rows["id"], undone), len(self._alive) - 1)
            self._alive[place[self._rows["id"][place] == undone]] = False
        return count + len(undone)

    def _sort_out(self, people: dict[int, tuple[str, str]]) -> Standing:
        """Which rows stand: of each (annotator, target) the last that was not undone. Adjudications stand beside one's own answer."""
        alive = numpy.flatnonzero(self._alive)
        rows = {name: column[alive] for name, column in self._rows.items()}
        numbers = sorted(people)
        place = numpy.searchsorted(numbers, rows["annotator"]) if numbers else rows["annotator"]
        decided = rows["purpose"] == ADJUDICATION
        key = (place.astype(numpy.int64) * 2 + decided) * max(len(self._targets), 1) + rows["target"]
        order = numpy.argsort(key, kind="stable")  # stable: rows of one key stay in the order in which they came
        same = key[order[1:]] == key[order[:-1]]
        last = numpy.sort(order[numpy.append(~same, True)]) if len(order) else order
        again = same & (rows["purpose"][order[1:]] == REPEAT)
        repeats = numpy.stack([order[:-1][again], order[1:][again]], axis=1) if len(order) else numpy.zeros((0, 2), dtype=int)
        return Standing(
            place[last], rows["target"][last], rows["value"][last], rows["purpose"][last], rows["seconds"][last],
            repeats, rows["value"], place,
            tuple(people[n][0] for n in numbers), tuple(people[n][1] for n in numbers), list(self._targets),
        )  # fmt: skip


_ledgers: weakref.WeakKeyDictionary[Store, dict[str, Ledger]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def standing(store: Store, round: str = LABEL_ROUND) -> Standing:
    """The answers of a round that count now; what an open store has read before is not read again."""
    with _making:
        ledger = _ledgers.setdefault(store, {}).setdefault(round, Ledger(round))
    return ledger.standing(store)
