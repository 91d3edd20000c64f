"""Which items an annotator gets next: mostly work, now and then a picture whose answer is known or one seen before.

Work comes up in the study's random order (or the active one), from a window at its front, within which each annotator goes an order of
their own: pictures get their overlap early, and no two annotators see the same sequence. All draws follow from the study's seed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from sqlalchemy import Connection, text

from hfi.config import QueueSettings
from hfi.errors import HFIError
from hfi.feedback import active
from hfi.feedback.tables import LABEL_ROUND
from hfi.seeds import derive

WINDOW = 64  # work items at the front of the order that one choice looks at
REPEAT_GAP = 30  # answers between an item and its repeat, at least

# What is in reach of an annotator: not in their hands (that counts as all places taken), with a place that nobody else has, and not
# judged by them by a file. Counts instead of NOT EXISTS, so that PostgreSQL looks each item up in an index and makes no joins of them,
# which it chooses badly as long as it has no statistics of a young study.
IN_REACH = """i.imported + (SELECT coalesce(sum(CASE WHEN l.annotator = :who THEN 1000000 ELSE 1 END), 0) FROM lease AS l
                  WHERE l.item = i.id AND l.turn = 0 AND (l.answered = 1 OR l.until > :moment)) < i.wanted
    AND (SELECT count(*) FROM judgement AS j WHERE j.annotator = :who AND j.task = i.task AND j.target = i.target
         AND j.lease IS NULL AND j.value != 'withdrawn') = 0"""
WORK = text(f"""SELECT i.id, i.position FROM item AS i WHERE i.round = :round AND i.gold = 0 AND i.done = 0 AND i.position > :cursor
                AND {IN_REACH} ORDER BY i.position LIMIT :window""")
BY_NAME = """SELECT i.id, i.target FROM item AS i WHERE i.round = :round AND i.task = 'binary' AND i.target IN ({names}) AND i.gold = 0
             AND i.done = 0 AND """ + IN_REACH
GOLD = text("""SELECT i.id FROM item AS i JOIN gold AS g ON g.image = i.target WHERE i.round = :round AND i.gold = 1 AND g.quiz = :quiz
               AND NOT EXISTS (SELECT 1 FROM lease AS mine WHERE mine.item = i.id AND mine.annotator = :who
                               AND (mine.answered = 1 OR mine.until > :moment)) ORDER BY i.position LIMIT 200""")
REPEAT = text("""SELECT l.item FROM lease AS l JOIN item AS i ON i.id = l.item
                 WHERE l.annotator = :who AND l.answered = 1 AND l.turn = 0 AND i.gold = 0 AND i.round = :round
                 AND NOT EXISTS (SELECT 1 FROM lease AS again WHERE again.item = l.item AND again.annotator = :who AND again.turn = 1)
                 ORDER BY l.number LIMIT 1 OFFSET :offset""")
ANSWERED = text("SELECT count(*) FROM lease WHERE annotator = :who AND answered = 1")
OPEN_NAMES = text("SELECT target FROM item WHERE round = :round AND task = 'binary' AND gold = 0 AND done = 0 ORDER BY position")


class Chooser:
    """Chooses for all annotators of one round; keeps in memory only what a fresh start finds again."""

    def __init__(self, settings: QueueSettings, seed: int, round: str, folder: Path | None):
        self.settings, self.seed, self.round = settings, seed, round
        self.folder = folder if settings.order == "active" and round == LABEL_ROUND else None
        # how far each annotator's items are known to be out of reach, and until when that is taken for true
        self._cursors: dict[int, tuple[int, float]] = {}
        self._active: list[str] = []
        self._active_cursors: dict[int, tuple[int, float]] = {}
        self._scores: tuple[Path, int] | None = None  # the file of scores that was ordered by, and when it was written
        self._ordering = threading.Lock()

    def choose(self, connection: Connection, who: int, pseudonym: str, drawn: int, count: int, moment: float) -> list[tuple[int, int]]:
        """Up to `count` items as (item's number, turn): turn 1 is a repeat.

        Args:
            drawn: how many items the annotator was ever given.
        """
        where = {"round": self.round, "who": who, "moment": moment}
        gold: list[int] | None = None
        chosen: list[tuple[int, int]] = []
        for place in range(drawn, drawn + count):
            draw = derive(self.seed, "mix", self.round, pseudonym, place) / 2**63
            if draw < self.settings.gold_share:
                if gold is None:
                    gold = self._own_order(pseudonym, list(connection.scalars(GOLD, {**where, "quiz": 0})))
                if gold:
                    chosen.append((gold.pop(), 0))
            elif draw < self.settings.gold_share + self.settings.repeat_share:
                again = self._repeat(connection, where, pseudonym, place)
                if again is not None and (again, 1) not in chosen:
                    chosen.append((again, 1))
        missing = count - len(chosen)
        work = [(number, 0) for number in self._work(connection, where, pseudonym, missing)]
        if missing and not work:  # nothing to mix them into: who is done is not kept with repeats
            return []
        return self._mixed(work, chosen, pseudonym, drawn)

    def quiz(self, connection: Connection, who: int, moment: float) -> list[int]:
        """Quiz items that this annotator has not answered or in hand, in the order of the study."""
        return list(connection.scalars(GOLD, {"round": self.round, "who": who, "moment": moment, "quiz": 1}))

    def _own_order(self, pseudonym: str, numbers: list[int]) -> list[int]:
        return sorted(numbers, key=lambda number: derive(self.seed, "blind", pseudonym, number))

    def _mixed(self, work: list, others: list, pseudonym: str, drawn: int) -> list[tuple[int, int]]:
        """Others at random places among the work."""
        mixed = list(work)
        for k, choice in enumerate(others):
            mixed.insert(derive(self.seed, "place", pseudonym, drawn, k) % (len(mixed) + 1), choice)
        return mixed

    def _repeat(self, connection: Connection, where: dict, pseudonym: str, place: int) -> int | None:
        eligible = connection.scalar(ANSWERED, where) - REPEAT_GAP
        if eligible <= 0:
            return None
        offset = derive(self.seed, "repeat", pseudonym, place) % eligible
        return connection.scalar(REPEAT, {**where, "offset": offset})

    def _work(self, connection: Connection, where: dict, pseudonym: str, count: int) -> list[int]:
        if count <= 0:
            return []
        found = self._by_teaching(connection, where, count) if self.folder is not None else []
        if len(found) < count:
            rest = [number for number in self._by_position(connection, where, count) if number not in found]
            found += self._own_order(pseudonym, rest)[: count - len(found)]
        return self._own_order(pseudonym, found)[:count]

    def _by_position(self, connection: Connection, where: dict, count: int) -> list[int]:
        """The window at the front of the random order; what lies before the cursor is out of this annotator's reach for now."""
        who = where["who"]
        cursor, good_until = self._cursors.get(who, (-1, 0.0))
        if time.monotonic() > good_until:  # leases that ran out meanwhile have freed places further back
            cursor, good_until = -1, time.monotonic() + self.settings.lease_seconds
        rows = connection.execute(WORK, {**where, "cursor": cursor, "window": max(WINDOW, count)}).all()
        if len(rows) < count and cursor >= 0:
            cursor = -1
            rows = connection.execute(WORK, {**where, "cursor": cursor, "window": max(WINDOW, count)}).all()
        self._cursors[who] = (rows[0].position - 1 if rows else cursor, good_until)
        return [row.id for row in rows]

    # --- active choice ------------------------------------------------------------------------------------------------------

    def _by_teaching(self, connection: Connection, where: dict, count: int) -> list[int]:
        """The first items in reach by what they would teach the reward; empty until there are scores."""
        self._look_for_scores(connection)
        names, who = self._active, where["who"]
        start, good_until = self._active_cursors.get(who, (0, 0.0))
        if time.monotonic() > good_until:
            start, good_until = 0, time.monotonic() + self.settings.lease_seconds
        found: list[int] = []
        first, enough = None, max(count, WINDOW // 4)
        for begin in range(start, len(names), 200):
            part = names[begin : begin + 200]
            keys = {f"n{k}": name for k, name in enumerate(part)}
            query = text(BY_NAME.format(names=", ".join(f":{key}" for key in keys)))
            numbers = {row.target: row.id for row in connection.execute(query, {**where, **keys})}
            found += [numbers[name] for name in part if name in numbers]
            if numbers and first is None:
                first = begin
            if len(found) >= enough:
                break
        self._active_cursors[who] = (start if first is None else first, good_until)
        return found[:enough]

    def _look_for_scores(self, connection: Connection) -> None:
        """Order anew, beside the work, when there are new scores (the reward's, or a machine's before it)."""
        with contextlib.suppress(OSError):
            path = active.score_file(self.folder)
            changed = (path, path.stat().st_mtime_ns) if path is not None else None
            if changed != self._scores and self._ordering.acquire(blocking=False):
                self._scores = changed
                names = list(connection.scalars(OPEN_NAMES, {"round": self.round}))
                threading.Thread(target=self._order, args=(names,), daemon=True).start()

    def _order(self, names: list[str]) -> None:
        try:
            with contextlib.suppress(HFIError):  # scores that cannot be read: the order goes on as it was
                self._active = list(active.order(self.folder, names))
                self._active_cursors.clear()
        finally:
            self._ordering.release()
