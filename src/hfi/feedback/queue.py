"""What each annotator is asked next, and what becomes of the answer: the one door between the labelling page and the store.

A client never learns which items are gold or repeats: an item's id is a random token of one annotator's lease. Refusals are
`hfi.feedback.events.Refused` with an HTTP status.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Row, bindparam, insert, text

from hfi.config import Label
from hfi.feedback import database, items, standing, tables
from hfi.feedback.choosing import Chooser
from hfi.feedback.events import Answered, Expired, Invalid, NotYours, Unknown
from hfi.feedback.exchanged import Answer, Entry, Gold, Item, Lesson, Preferences, Progress, Receipt, Score
from hfi.feedback.judgements import Judgement, now
from hfi.feedback.store import Store, annotator_ids, latest_guideline
from hfi.feedback.tables import LABEL_ROUND, RANKED, WITHDRAWN
from hfi.workspace import Workspace

MOST = 32  # items handed out at once
SUBMISSION = re.compile(r"[A-Za-z0-9._-]{8,64}")

LEASED = """l.number, l.token, l.item, l.annotator, l.turn, l.until, l.answered, i.round, i.task, i.target, i.images, i.gold, i.wanted,
            i.imported"""
LEASE = f"SELECT {LEASED} FROM lease AS l JOIN item AS i ON i.id = l.item"
# All that an answer hangs on, in one statement: one row, with or without a lease. Each further statement is a message to PostgreSQL and
# back, and the next answer waits for it.
ANSWERING = text(f"""SELECT asked.known, {LEASED},
    EXISTS (SELECT 1 FROM guideline AS g WHERE g.version = :version) AS version_known,
    (SELECT max(g.version) FROM guideline AS g WHERE g.round = i.round) AS newest_version,
    EXISTS (SELECT 1 FROM gold AS g WHERE g.image = i.target AND g.quiz = 1) AS quiz,
    EXISTS (SELECT 1 FROM judgement AS j WHERE j.image = i.target AND j.value = 'present' AND j.annotator != :who) AS flagged_by_others
    FROM (SELECT EXISTS (SELECT 1 FROM judgement AS j WHERE j.submission = :submission) AS known) AS asked
    LEFT JOIN lease AS l ON l.token = :token LEFT JOIN item AS i ON i.id = l.item""")
BY_TOKEN = text(f"{LEASE} WHERE l.token = :token")
MINE = text(f"""{LEASE} WHERE l.annotator = :who AND l.answered = 0 AND l.until > :moment AND i.round = :round
                AND NOT EXISTS (SELECT 1 FROM gold AS g WHERE i.gold = 1 AND g.image = i.target AND g.quiz = 1)
                ORDER BY l.number LIMIT :count""")
MINE_OF_ITEMS = text(f"{LEASE} WHERE l.annotator = :who AND l.item IN :items").bindparams(bindparam("items", expanding=True))
HAND_OUT = text("""INSERT INTO lease (token, item, annotator, turn, until, answered) VALUES (:token, :item, :who, :turn, :until, 0)
                   ON CONFLICT (item, annotator, turn) DO UPDATE SET until = excluded.until""")
RENEW = text("UPDATE lease SET until = :until WHERE number IN :numbers").bindparams(bindparam("numbers", expanding=True))
RECORD = insert(tables.judgement).inline()
CLOSE = text("UPDATE lease SET answered = 1 WHERE number = :number")
ASKING = text("""SELECT (SELECT choices FROM preference WHERE annotator = :who) AS choices,
                 (SELECT count(*) FROM lease WHERE annotator = :who) AS leased,
                 (SELECT coalesce(sum(answers), 0) FROM tally WHERE annotator = :who AND day = :day) AS today""")
TAKEN = text("""SELECT count(*) FROM lease WHERE item = :item AND annotator != :who AND turn = 0
                AND (answered = 1 OR until > :moment)""")
ROW = """SELECT j.id, j.annotator, j.task, j.target, j.image, j.value, j.ranking, j.excluded, j.seconds, j.guideline, j.created, j.round,
         j.purpose, j.lease, j.submission, l.token, i.images,
         EXISTS (SELECT 1 FROM judgement AS undo WHERE undo.withdraws = j.id) AS undone,
         EXISTS (SELECT 1 FROM judgement AS later WHERE later.annotator = j.annotator AND later.task = j.task AND later.target = j.target
                 AND later.id > j.id AND later.value != 'withdrawn'
                 AND NOT EXISTS (SELECT 1 FROM judgement AS undo WHERE undo.withdraws = later.id)) AS superseded
         FROM judgement AS j LEFT JOIN lease AS l ON l.number = j.lease LEFT JOIN item AS i ON i.id = l.item"""
BY_SUBMISSION = text(f"{ROW} WHERE j.submission = :submission")
STANDING = text(f"""{ROW} WHERE j.lease = :lease AND j.value != 'withdrawn'
                    AND NOT EXISTS (SELECT 1 FROM judgement AS undo WHERE undo.withdraws = j.id) ORDER BY j.id DESC LIMIT 1""")
HISTORY = text(f"{ROW} WHERE j.annotator = :who AND j.value != 'withdrawn' AND j.id < :before ORDER BY j.id DESC LIMIT :count")


class Queue:
    """The queue of one round. Safe to share between threads; several server processes may use the same store."""

    def __init__(self, store: Store, settings: Label, seed: int = 0, folder: Path | None = None, round: str = LABEL_ROUND):
        """
        Args:
            store: the study's judgements.
            settings: the study's `label` section; `settings.queue` has overlap, shares, lease and cap.
            seed: the study's seed; orders, gold and repeats follow from it.
            folder: the study's folder, where active choice finds the reward's scores; None: random order.
            round: "label", or an evaluation round whose pictures `store.add_images(..., round)` made known.
        """
        self.store, self.settings, self.seed, self.round = store, settings, seed, round
        self.chooser = Chooser(settings.queue, seed, round, folder)
        self.standing = standing.Standing(settings.queue, round)
        self._numbers: dict[str, int] = {}  # of people by pseudonym, as read transactions found them; a number never changes
        with store.writing() as connection:
            items.bring_up_to_date(connection, settings, seed, round)

    @classmethod
    def of(cls, study: Workspace, store: Store, round: str = LABEL_ROUND) -> Queue:
        """The queue of a study, with an item for every picture that is to be judged."""
        return cls(store, study.config.label, study.config.seed, study.root, round)

    # --- for annotators ---------------------------------------------------------------------------------------------------

    def next(self, annotator: str, count: int = 8) -> list[Item]:
        """Up to `count` items: the annotator's own unanswered leases first (renewed), then new ones.

        Empty when nothing is left, the daily cap is reached or the annotator opted out; `progress` says which. Quiz items come from
        `quiz` only.
        """
        with self.store.writing() as connection:
            return self._next(connection, self._annotator(connection, annotator), annotator, count)

    def ask(self, annotator: str, count: int = 8) -> tuple[list[Item], Progress]:
        """What the labelling page needs: `next`, but nothing before the annotator's consent, and `progress`; in one transaction."""
        with self.store.writing() as connection:
            who = self._annotator(connection, annotator)
            return self._next(connection, who, annotator, count, consented=True), Progress(**self.standing.of(connection, who))

    def quiz(self, annotator: str) -> list[Item]:
        """The quiz items not answered yet, leased; empty when there is no quiz or it is done. Answer them by `submit`."""
        moment = time.time()
        with self.store.writing() as connection:
            who = self._annotator(connection, annotator)
            new = [(number, 0) for number in self.chooser.quiz(connection, who, moment)]
            mine = text(f"""{LEASE} JOIN gold AS g ON g.image = i.target WHERE l.annotator = :who AND l.answered = 0 AND l.until > :moment
                            AND i.round = :round AND i.gold = 1 AND g.quiz = 1 ORDER BY l.number""")
            held = list(connection.execute(mine, {"who": who, "moment": moment, "round": self.round}))
            return self._lease(connection, who, held, new, moment)

    def submit(self, annotator: str, item_id: str, answer: Answer, submission: str) -> Receipt:
        """Record an answer; it is on disk when this returns.

        Args:
            submission: the client's UUID for this answer; a replay returns the first receipt and stores nothing.

        Raises Unknown (404), NotYours (403), Answered (409: say which submission it revises), Expired (409: late, and somebody else
        took the place; a late answer is taken when the place is still free), Invalid (422: does not fit the item, or the
        submission's UUID was used for another answer). All that before anything is written: see `hfi.feedback.web.desk`.
        """
        _check_submission(submission)
        moment = time.time()
        with self.store.writing() as connection:
            who = self._annotator(connection, annotator)
            where = {"who": who, "submission": submission, "token": _token(item_id), "version": answer.guideline}
            lease = connection.execute(ANSWERING, where).one()
            if lease.known:
                return self._replayed(connection, self._row(connection, who, submission), item_id, answer)
            _own(lease, who)
            if answer.guideline is not None and not lease.version_known:
                remedy = "load the page again"
                raise Invalid(f"{answer.guideline!r:.20} is no version of the guideline", field="guideline", remedy=remedy)
            judgement = _judgement(lease, annotator, answer)
            before = connection.execute(STANDING, {"lease": lease.number}).first() if lease.answered else None
            if before is not None and answer.revises != before.submission:
                raise Answered("is answered already", field="item", remedy="name the submission that this one revises, or undo it first")
            late = before is None and lease.until <= moment and not lease.gold and not lease.turn
            if late and lease.imported + self._taken(connection, lease, moment) >= lease.wanted:
                raise Expired("was asked too long ago, and others have judged it since", field="item", remedy="go on with the next one")
            version = answer.guideline or lease.newest_version or latest_guideline(connection, lease.round)
            judgement = replace(judgement, purpose=_purpose(lease))
            with database.batch(connection):
                receipt = self._record(connection, who, judgement, version, submission, lease)
                if before is None:
                    connection.execute(CLOSE, {"number": lease.number})
                    if not lease.gold and not lease.turn:
                        items.settle(connection, lease.item)
                standing.count(connection, who, judgement, before, bool(lease.flagged_by_others))
            return replace(receipt, lesson=self._lesson(connection, judgement.purpose, judgement.target, judgement.value))

    def undo(self, annotator: str, submission: str) -> Receipt:
        """Withdraw an answer by a new row. An answer that it had revised counts again; without one the item is asked again, first.

        Undoing twice is undoing once. Raises Unknown (404), NotYours (403), Answered (409: a later answer revised it; undo that one).
        """
        _check_submission(submission)
        with self.store.writing() as connection:
            who = self._annotator(connection, annotator)
            row = self._row(connection, who, submission)
            if row is None:
                raise Unknown("no such answer", field="submission", remedy="undo an answer that was acknowledged")
            if row.undone:
                return replace(self._receipt(connection, row), withdrawn=True)
            last = connection.execute(STANDING, {"lease": row.lease}).first() if row.lease else None
            if last is not None and last.id != row.id:
                raise Answered("was revised by a later answer", field="submission", remedy="undo the later one first")
            undo = {name: getattr(row, name) for name in ("annotator", "guideline", "task", "target", "image", "round", "purpose", "lease")}
            connection.execute(insert(tables.judgement), {**undo, "value": WITHDRAWN, "withdraws": row.id, "created": now()})
            if row.lease and connection.execute(STANDING, {"lease": row.lease}).first() is None:
                until = time.time() + self.settings.queue.lease_seconds
                change = text("UPDATE lease SET answered = 0, until = :until WHERE number = :number")
                connection.execute(change, {"until": until, "number": row.lease})
                items.settle(connection, connection.scalar(text("SELECT item FROM lease WHERE number = :number"), {"number": row.lease}))
                standing.uncount(connection, who, row)
            return replace(self._receipt(connection, row), withdrawn=True)

    def history(self, annotator: str, before: int | None = None, count: int = 50) -> list[Entry]:
        """The annotator's own answers, newest first; undo rows themselves are left out."""
        with self.store.reading() as connection:
            who = self._number(connection, annotator)
            where = {"who": who, "before": before if before is not None else 1 << 31, "count": max(1, min(int(count), 500))}
            return [_entry(row) for row in connection.execute(HISTORY, where)]

    def item(self, annotator: str, item_id: str) -> Item:
        """One's own item by id, answered or not (to go back to it). Raises Unknown (404), NotYours (403)."""
        with self.store.reading() as connection:
            return _item(self._held(connection, self._number(connection, annotator), item_id))

    def progress(self, annotator: str) -> Progress:
        """Where the annotator stands; counts over the whole study may be some seconds old."""
        with self.store.reading() as connection:
            return Progress(**self.standing.of(connection, self._number(connection, annotator)))

    def preferences(self, annotator: str) -> Preferences:
        """What the annotator chose, or the defaults."""
        with self.store.reading() as connection:
            chosen = standing.preferences(connection, self._number(connection, annotator))
        chosen["keys"] = tuple((action, key) for action, key in chosen.get("keys", ()))
        return Preferences(**chosen)

    def save_preferences(self, annotator: str, preferences: Preferences) -> None:
        """Keep what the annotator chose."""
        with self.store.writing() as connection:
            standing.save_preferences(connection, self._annotator(connection, annotator), asdict(preferences))

    def quiz_score(self, annotator: str) -> Score:
        """How the quiz stands."""
        return self._score(annotator, quiz=True)

    def gold_score(self, annotator: str) -> Score:
        """How the gold items mixed into the work went so far; for reviewers."""
        return self._score(annotator, quiz=False)

    # --- for reviewers and whoever sets a study up -------------------------------------------------------------------------

    def add_items(self, tasks: list[tuple[str, ...]], wanted: int | None = None) -> int:
        """Ask for judgements: one image id for a binary task, several for a ranking; known ones stay. Returns how many were new.

        Args:
            wanted: judgements per item; None: label.queue.overlap.
        """
        with self.store.writing() as connection:
            return items.add(connection, tasks, wanted or self.settings.queue.overlap, self.seed, self.round)

    def set_gold(self, image: str, value: str, note: str = "", quiz: bool = False) -> None:
        """Say the known answer of a picture: it leaves the work items and is mixed in among them, once per annotator.

        Raises Unknown (404) for no picture of the study, Invalid (422) for another answer than present or absent.
        """
        with self.store.writing() as connection:
            items.set_gold(connection, image, value, note, quiz, self.seed, self.round)

    def drop_gold(self, image: str) -> None:
        """Make a gold picture an ordinary one again. Raises Unknown (404)."""
        with self.store.writing() as connection:
            items.drop_gold(connection, image, self.settings.queue.overlap, self.round)

    def gold(self) -> list[Gold]:
        """All gold pictures, by image id."""
        with self.store.reading() as connection:
            rows = connection.execute(text("SELECT image, value, note, quiz FROM gold ORDER BY image"))
            return [Gold(row.image, row.value, row.note, bool(row.quiz)) for row in rows]

    def adjudicate(self, reviewer: str, image: str, value: str, submission: str, seconds: float | None = None) -> Receipt:
        """A reviewer's final word on a picture: a judgement of purpose "adjudication", which aggregation takes as decided.

        Raises Unknown (404), Invalid (422); a replay returns the first receipt. `undo` takes it back.
        """
        _check_submission(submission)
        with self.store.writing() as connection:
            who = self._annotator(connection, reviewer)
            if (first := self._row(connection, who, submission)) is not None:
                if (first.target, first.value, first.purpose) != (image, value, "adjudication"):
                    raise Invalid("was used for another answer", field="submission", remedy="make a new UUID for each answer")
                return self._receipt(connection, first)
            if connection.scalar(text("SELECT 1 FROM image WHERE id = :image"), {"image": image}) is None:
                raise Unknown("no such picture", field=f"{image!r:.80}", remedy="choose a picture of this study")
            judgement = _checked(Judgement((image,), reviewer, value=value, seconds=seconds, round=self.round, purpose="adjudication"))
            return self._record(connection, who, judgement, latest_guideline(connection, self.round), submission)

    def people(self) -> dict[str, Progress]:
        """The progress of every human annotator, by pseudonym."""
        with self.store.reading() as connection:
            names = list(connection.scalars(text("SELECT pseudonym FROM annotator WHERE kind = 'human' ORDER BY pseudonym")))
        return {name: self.progress(name) for name in names}

    # --- within a transaction -----------------------------------------------------------------------------------------------

    def _annotator(self, connection: Connection, pseudonym: str) -> int:
        """The number of a person, made known where it is new. What this transaction finds is not remembered: it may yet be undone."""
        known = self._numbers.get(pseudonym)
        return annotator_ids(connection, {pseudonym: "human"}, self.store.path)[pseudonym] if known is None else known

    def _number(self, connection: Connection, pseudonym: str) -> int:
        """The number of an annotator, in a read transaction; -1 for one who has not been asked anything yet."""
        if (known := self._numbers.get(pseudonym)) is None:
            known, kind = standing.number(connection, pseudonym)
            if kind == "human":
                self._numbers[pseudonym] = known
        return known

    def _next(self, connection: Connection, who: int, annotator: str, count: int, consented: bool = False) -> list[Item]:
        count, moment = max(1, min(int(count), MOST)), time.time()
        known = connection.execute(ASKING, {"who": who, "day": now()[:10]}).one()
        choices = json.loads(known.choices) if known.choices else {}
        if choices.get("opted_out") or (consented and not choices.get("consented")):
            return []
        mine = list(connection.execute(MINE, {"who": who, "moment": moment, "round": self.round, "count": count}))
        room = count - len(mine)
        if cap := self.settings.queue.daily_cap:
            room = min(room, cap - int(known.today) - len(mine))
        chosen = self.chooser.choose(connection, who, annotator, known.leased, room, moment) if room > 0 else []
        return self._lease(connection, who, mine, chosen, moment)

    def _lease(self, connection: Connection, who: int, mine: list[Row], chosen: list[tuple[int, int]], moment: float) -> list[Item]:
        """Renew what the annotator holds and hand out what was chosen."""
        until = moment + self.settings.queue.lease_seconds
        with database.batch(connection):
            if mine:
                connection.execute(RENEW, {"until": until, "numbers": [row.number for row in mine]})
            if chosen:
                new = [{"token": secrets.token_hex(12), "who": who, "item": item, "turn": turn, "until": until} for item, turn in chosen]
                connection.execute(HAND_OUT, new)
        found = list(mine)
        if chosen:
            held = connection.execute(MINE_OF_ITEMS, {"who": who, "items": [item for item, _ in chosen]})
            by_choice = {(row.item, row.turn): row for row in held}
            found += [by_choice[choice] for choice in chosen]
        return [replace(_item(row), lease_until=_iso(until)) for row in found]

    def _held(self, connection: Connection, who: int, item_id: str) -> Row:
        return _own(connection.execute(BY_TOKEN, {"token": _token(item_id)}).first(), who)

    def _taken(self, connection: Connection, lease: Row, moment: float) -> int:
        return connection.scalar(TAKEN, {"item": lease.item, "who": lease.annotator, "moment": moment})

    def _row(self, connection: Connection, who: int, submission: str) -> Row | None:
        """The judgement that a submission made; raises NotYours when it is another annotator's."""
        row = connection.execute(BY_SUBMISSION, {"submission": submission}).first()
        if row is not None and row.annotator != who:
            raise NotYours("is another annotator's", field="submission", remedy="make a new UUID for each answer")
        return row

    def _replayed(self, connection: Connection, first: Row, item_id: str, answer: Answer) -> Receipt:
        same = (first.value, tuple(json.loads(first.ranking or "[]")), tuple(json.loads(first.excluded or "[]")))
        if first.token != item_id or same != (answer.value, tuple(answer.ranking), tuple(sorted(answer.excluded))):
            raise Invalid("was used for another answer", field="submission", remedy="make a new UUID for each answer")
        return self._receipt(connection, first)

    def _record(
        self, connection: Connection, who: int, judgement: Judgement, version: int, submission: str, lease: Row | None = None
    ) -> Receipt:
        """Write a judgement down; the receipt has no lesson yet."""
        ranked, created = judgement.value == RANKED, now()
        connection.execute(RECORD, {
            "annotator": who, "guideline": version, "task": judgement.task, "target": judgement.target,
            "image": judgement.images[0] if judgement.task == "binary" else None, "value": judgement.value,
            "ranking": json.dumps(judgement.ranking) if ranked else None,
            "excluded": json.dumps(sorted(judgement.excluded)) if ranked else None,
            "seconds": judgement.seconds, "created": created, "round": judgement.round, "purpose": judgement.purpose,
            "lease": lease.number if lease is not None else None, "submission": submission,
        })  # fmt: skip
        said = Answer(judgement.value, judgement.ranking, tuple(sorted(judgement.excluded)), judgement.seconds, version)
        return Receipt(submission, "" if lease is None else lease.token, said, created)

    def _receipt(self, connection: Connection, row: Row) -> Receipt:
        lesson = self._lesson(connection, row.purpose, row.target, row.value)
        return Receipt(row.submission, row.token or "", _answer(row), row.created, bool(row.undone), lesson)

    def _lesson(self, connection: Connection, purpose: str, target: str, value: str) -> Lesson | None:
        if purpose != "quiz":
            return None
        known = connection.execute(text("SELECT value, note FROM gold WHERE image = :image"), {"image": target}).first()
        return None if known is None else Lesson(value == known.value, known.value, known.note)

    def _score(self, annotator: str, quiz: bool) -> Score:
        query = text("""SELECT g.image, g.value, (SELECT j.value FROM judgement AS j WHERE j.annotator = :who AND j.task = 'binary'
                            AND j.target = g.image AND j.value != 'withdrawn'
                            AND NOT EXISTS (SELECT 1 FROM judgement AS undo WHERE undo.withdraws = j.id)
                            ORDER BY j.id DESC LIMIT 1) AS said FROM gold AS g WHERE g.quiz = :quiz""")
        with self.store.reading() as connection:
            rows = connection.execute(query, {"who": self._number(connection, annotator), "quiz": int(quiz)}).all()
        answered = [row for row in rows if row.said is not None]
        return Score(sum(row.said == row.value for row in answered), len(answered), len(rows))


def _check_submission(submission: str) -> None:
    if not isinstance(submission, str) or not SUBMISSION.fullmatch(submission):
        raise Invalid("must be a UUID", field="submission", remedy="make one for each answer, e.g. by crypto.randomUUID()")


def _token(item_id: object) -> str:
    """An item's id as the database can be asked for it; "" is nobody's."""
    return item_id if isinstance(item_id, str) and "\0" not in item_id else ""


def _own(lease: Row | None, who: int) -> Row:
    """The lease, where there is one and it is the annotator's."""
    if lease is None or lease.number is None:
        raise Unknown("no such item", field="item", remedy="ask for the next items")
    if lease.annotator != who:
        raise NotYours("was given to another annotator", field="item", remedy="ask for your own next items")
    return lease


def _purpose(lease: Row) -> str:
    if lease.gold:
        return "quiz" if lease.quiz else "gold"
    return "repeat" if lease.turn else "work"


def _checked(judgement: Judgement) -> Judgement:
    if problem := judgement.check():
        field, _, words = problem.partition(": ")
        raise Invalid(words, field=field, remedy="send an answer that fits the item")
    return judgement


def _judgement(lease: Row, annotator: str, answer: Answer) -> Judgement:
    """The answer as a judgement of the item's pictures; raises Invalid when it does not fit."""
    images = tuple(json.loads(lease.images))
    if lease.task == "binary" and (answer.ranking or answer.excluded):
        raise Invalid("a single picture is not ranked", field="ranking", remedy="send a value alone")
    if answer.seconds is not None and (isinstance(answer.seconds, bool) or not isinstance(answer.seconds, (int, float))):
        raise Invalid(f"{answer.seconds!r:.20} is no number", field="seconds", remedy="send seconds, or leave them out")
    if answer.value != RANKED and (answer.ranking or answer.excluded):
        raise Invalid(f"a ranking is given, but the value is {answer.value!r:.20}", field="value", remedy="send the value 'ranked'")
    judgement = Judgement(
        images, annotator, value=answer.value, ranking=tuple(answer.ranking), excluded=tuple(answer.excluded), seconds=answer.seconds,
        round=lease.round,
    )  # fmt: skip
    return _checked(judgement)


def _answer(row: Row) -> Answer:
    ranking, excluded = (tuple(json.loads(names or "[]")) for names in (row.ranking, row.excluded))
    return Answer(row.value, ranking, excluded, row.seconds, row.guideline)


def _entry(row: Row) -> Entry:
    images = tuple(json.loads(row.images)) if row.images else tuple(row.target.split(" "))
    counts = not row.undone and not row.superseded
    return Entry(row.id, row.submission or "", row.token or "", row.task, images, _answer(row), row.created, counts)


def _item(lease: Row) -> Item:
    return Item(lease.token, lease.task, tuple(json.loads(lease.images)), _iso(lease.until), lease.round)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
