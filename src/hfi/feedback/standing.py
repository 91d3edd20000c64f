"""Where annotators stand: answers by day, pace, what is left, and what each one chose (preferences)."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Row, insert, text

from hfi.config import QueueSettings
from hfi.feedback import tables
from hfi.feedback.judgements import Judgement, now

FRESH_SECONDS = 5.0  # how old the counts of open items may be
MANY, MANY_SECONDS = 20_000, 60.0  # where there are that many open items, or own answers: counting takes longer
PACE_SECONDS = 600.0
PACE_ANSWERS = 5  # fewer tell no pace

NUMBER = text("SELECT id, kind FROM annotator WHERE pseudonym = :pseudonym")
CHOICES = text("SELECT choices FROM preference WHERE annotator = :who")
COUNT = text("""INSERT INTO tally (annotator, round, day, answers, flagged) VALUES (:who, :round, :day, :answers, :flagged)
                ON CONFLICT (annotator, round, day)
                DO UPDATE SET answers = tally.answers + excluded.answers, flagged = tally.flagged + excluded.flagged""")
OPEN = text("SELECT count(*) FROM item WHERE round = :round AND gold = 0 AND done = 0")
# a count for each lease: as a join, PostgreSQL without statistics walks over all items for each of them
OWN_OPEN = text("""SELECT count(*) FROM lease AS l WHERE l.annotator = :who AND l.answered = 1 AND l.turn = 0
                   AND (SELECT count(*) FROM item AS i WHERE i.id = l.item AND i.round = :round AND i.gold = 0 AND i.done = 0) = 1""")
TALLIES = text("SELECT round, day, answers, flagged FROM tally WHERE annotator = :who")
RECENT = text("""SELECT created FROM judgement WHERE annotator = :who AND lease IS NOT NULL AND value != 'withdrawn'
                 ORDER BY id DESC LIMIT 200""")


def number(connection: Connection, pseudonym: str) -> tuple[int, str]:
    """The annotator's number and kind; -1 for one who has not been asked anything yet."""
    found = connection.execute(NUMBER, {"pseudonym": pseudonym}).first()
    return (-1, "") if found is None else tuple(found)


def preferences(connection: Connection, who: int) -> dict:
    """What the annotator chose, as plain data; empty for the defaults."""
    found = connection.scalar(CHOICES, {"who": who})
    return json.loads(found) if found else {}


def save_preferences(connection: Connection, who: int, choices: dict) -> None:
    connection.execute(text("DELETE FROM preference WHERE annotator = :who"), {"who": who})
    connection.execute(insert(tables.preference), {"annotator": who, "choices": json.dumps(choices), "changed": now()})


def count(connection: Connection, who: int, judgement: Judgement, before: Row | None, flagged_by_others: bool) -> None:
    """Add an answer to the day's tally; a revision (`before` is what it revises) counts only where it newly flags a picture."""
    flagged = 0
    if judgement.task == "binary":
        present = judgement.value == "present"
        newly = before is None or (present and before.value != "present" and not flagged_by_others)
        flagged = int(newly and (present or flagged_by_others))
    _add(connection, who, judgement.round, now()[:10], int(before is None), flagged)


def uncount(connection: Connection, who: int, row: Row) -> None:
    """An undone answer leaves its day's tally; a flagged picture stays seen."""
    _add(connection, who, row.round, row.created[:10], -1, 0)


def _add(connection: Connection, who: int, round: str, day: str, answers: int, flagged: int) -> None:
    connection.execute(COUNT, {"who": who, "round": round, "day": day, "answers": answers, "flagged": flagged})


class Standing:
    """Progress in one round; remembers for some seconds the counts that cost a walk over many items."""

    def __init__(self, settings: QueueSettings, round: str):
        self.settings, self.round = settings, round
        self._lock = threading.Lock()
        self._opened: tuple[float, int] = (0.0, 0)
        self._counted: dict[int, tuple[float, int, int]] = {}  # annotator -> (when, items left, answers at that time)

    def of(self, connection: Connection, who: int) -> dict:
        """The fields of `queue.Progress`."""
        tallies, day = connection.execute(TALLIES, {"who": who}).all(), now()[:10]
        done = sum(row.answers for row in tallies if row.round == self.round)
        answers, flagged = (sum(getattr(row, name) for row in tallies if row.day == day) for name in ("answers", "flagged"))
        cap, pause = self.settings.daily_cap, self.settings.break_every
        return {
            "done": done,
            "left": self._left(connection, who, done),
            "pace_per_minute": _pace(list(connection.scalars(RECENT, {"who": who}))),
            "today": answers,
            "flagged_seen_today": flagged,
            "daily_cap": cap,
            "capped": bool(cap) and answers >= cap,
            "break_due": bool(pause) and answers > 0 and answers % pause == 0,
            "opted_out": bool(preferences(connection, who).get("opted_out")),
        }

    def _left(self, connection: Connection, who: int, done: int) -> int:
        """Open items that the annotator has not answered: counted now and then, carried forward by the answers since."""
        with self._lock:
            known = self._counted.get(who)
        if known is None or time.monotonic() - known[0] > (MANY_SECONDS if done > MANY else FRESH_SECONDS):
            where = {"who": who, "round": self.round}
            known = time.monotonic(), self._still_open(connection) - connection.scalar(OWN_OPEN, where), done
            with self._lock:
                self._counted[who] = known
        return max(0, known[1] - (done - known[2]))

    def _still_open(self, connection: Connection) -> int:
        """Open items of the round; for large studies counted for all annotators together."""
        when, number = self._opened
        if number < MANY or time.monotonic() - when > MANY_SECONDS:
            self._opened = time.monotonic(), connection.scalar(OPEN, {"round": self.round})
        return self._opened[1]


def _pace(moments: list[str]) -> float:
    """Answers a minute over the last ten minutes of work; 0 while there are too few to tell.

    Args:
        moments: when answers came (ISO 8601), the newest first.
    """
    if not moments:
        return 0.0
    # all are written by `judgements.now`, so they sort as they stand; reading 200 dates costs more than the rest of the progress
    start = (datetime.fromisoformat(moments[0]) - timedelta(seconds=PACE_SECONDS)).astimezone(UTC).isoformat(timespec="milliseconds")
    recent = [moment for moment in moments if moment >= start.replace("+00:00", "Z")]
    span = (datetime.fromisoformat(recent[0]) - datetime.fromisoformat(recent[-1])).total_seconds()
    return round(60.0 * (len(recent) - 1) / span, 2) if span > 0 and len(recent) >= PACE_ANSWERS else 0.0
