"""What all requests share: the study, its store, queue and accounts, the guideline's present version, and who is asking."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import select

from hfi.errors import HFIError
from hfi.feedback import events, tables
from hfi.feedback.accounts import Account, Accounts
from hfi.feedback.events import Unknown
from hfi.feedback.guideline import Guideline, pictures_of, read_guideline, signature
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.feedback.tables import LABEL_ROUND
from hfi.feedback.web.desk import Desk
from hfi.workspace import Workspace, write_bytes

LOCAL = "local"  # the pseudonym of the one annotator of a study without accounts
FRESH_SECONDS = 5.0  # how old a reviewer's numbers may be
MOST_EVENTS = 120  # refused requests kept in a minute
PATIENCE_SECONDS = 0.1  # how long a page waits for numbers before it says that they are being counted


@dataclass(frozen=True, slots=True)
class Person:
    """Who is asking."""

    pseudonym: str
    role: str  # annotator, reviewer or admin
    name: str | None  # login name; None: the local annotator
    csrf: str  # the token that this person's forms and fetches must carry

    def may(self, role: str) -> bool:
        """Whether this role includes `role`."""
        return Account(self.name or LOCAL, self.pseudonym, self.role, "", True).may(role)


class State:
    """One study being served."""

    def __init__(self, study: Workspace):
        self.study, self.loopback = study, True
        self.store = Store.of(study)
        self.queue = Queue.of(study, self.store)
        self.accounts = Accounts.of(study)
        self.secret = _secret(study)
        self.id = hashlib.sha256(b"study" + self.secret).hexdigest()[:12]  # tells this study's cookies and outbox from another's
        self.cookie = f"hfi_{self.id}"
        self.fresh, self.desk = Fresh(), Desk(self.store.writing)
        self._queues: dict[str, Queue] = {}
        self._rounds: tuple[float, list[str]] = (-FRESH_SECONDS - 1, [])
        self._guideline: tuple[tuple, Guideline, int] | None = None
        self._lock = threading.Lock()
        self._logged = [0, 0]  # minute, events in it

    def close(self) -> None:
        self.desk.close()
        self.store.close()
        self.accounts.close()

    def has_pictures(self) -> bool:
        with self.store.reading() as connection:
            return connection.scalar(select(tables.image.c.id).limit(1)) is not None

    def queue_of(self, round: str) -> Queue:
        """The queue of the label round or of an evaluation round. Raises Unknown (404) when there is no such round."""
        if round == LABEL_ROUND:
            return self.queue
        if round not in self._queues:
            if round not in self.rounds():
                raise Unknown(f"there is no round {round!r}")
            self._queues[round] = Queue.of(self.study, self.store, round)
        return self._queues[round]

    def rounds(self) -> list[str]:
        """The rounds that have pictures, the label round first; looked up every five seconds."""
        found = self._rounds
        if time.monotonic() - found[0] > FRESH_SECONDS:
            names = sorted(self.store.rounds(), key=lambda name: (name != LABEL_ROUND, name))
            found = self._rounds = (time.monotonic(), names)
        return found[1]

    def of_round(self, round: str, images: Iterable[str]) -> set[str]:
        """Which of these pictures belong to a round."""
        columns = tables.image.c
        with self.store.reading() as connection:
            return set(connection.scalars(select(columns.id).where(columns.id.in_(list(images)), columns.round == round)))

    def guideline(self, round: str = LABEL_ROUND) -> tuple[Guideline, int]:
        """The guideline as it stands on disk, and its version; a change on disk makes a new version at the next page.

        An evaluation round has the question that it was built with, and the artist's real pictures beside it.
        """
        if round != LABEL_ROUND:
            kept = self.store.guideline(round=round)
            question, _, text = (kept.text if kept else "").partition("\n")
            references = pictures_of(self.study.path("human", "references"), self.study.root) if round.endswith("hand") else ()
            return Guideline(question.strip(), text.strip(), (), (), references), kept.version if kept else 1
        with self._lock:
            seen = signature(self.study)
            if self._guideline is None or self._guideline[0] != seen:
                found = read_guideline(self.study)
                self._guideline = seen, found, self.store.add_guideline(found.words)
            return self._guideline[1:]

    # --- what was refused -------------------------------------------------------------------------------------------------

    def log(self, kind: str, status: int, pseudonym: str | None, route: str, detail: str) -> None:
        """Keep a refused request in the event table; at most MOST_EVENTS a minute, so that a flood of them fills no disk."""
        minute = int(time.time() // 60)
        with self._lock:
            if self._logged[0] != minute:
                self._logged = [minute, 0]
            self._logged[1] += 1
            if self._logged[1] > MOST_EVENTS:
                return
        with contextlib.suppress(HFIError):  # a refusal is answered even when it cannot be written down
            events.record(self.store, kind, status, route, detail, pseudonym)

    # --- who is asking ----------------------------------------------------------------------------------------------------

    def person(self, token: str | None) -> Person | None:
        """Who holds this session; None when a login is needed. Without accounts, on loopback, it is the local annotator."""
        if self.accounts.exist():
            session = self.accounts.session(token) if token else None
            if session is None:
                return None
            account = session.account
            return Person(account.pseudonym, account.role, account.name, self.csrf(token))
        return Person(LOCAL, "admin", None, self.csrf(token or "")) if self.loopback else None

    def person_by_memory(self, token: str) -> Person | None:
        """The same without the database; None where it has to be asked."""
        there = self.accounts.exist_by_memory()
        known = there is False or there is True and self.accounts.session_by_memory(token) is not None
        return self.person(token) if known else None

    def csrf(self, token: str) -> str:
        """The token that proves that a form came from a page of this session."""
        return hmac.new(self.secret, f"csrf:{token}".encode(), "sha256").hexdigest()


class Fresh:
    """Costly numbers, counted in the background and kept for five seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[object, tuple[float, object]] = {}
        self._running: dict[object, threading.Event] = {}

    def get(self, key: object, compute: Callable[[], object], patience: float = PATIENCE_SECONDS) -> tuple[object, float] | None:
        """(value, its age in seconds), or None while it is being counted. A failure of `compute` is raised at the next call."""
        with self._lock:
            found = self._done.get(key)
            if found and time.monotonic() - found[0] <= FRESH_SECONDS:
                return self._value(key, found)
            event = self._running.get(key)
            if event is None:
                event = self._running[key] = threading.Event()
                threading.Thread(target=self._work, args=(key, compute, event), daemon=True).start()
        if not event.wait(patience):
            return None
        with self._lock:
            found = self._done.get(key)
            return self._value(key, found) if found else None

    def forget(self) -> None:
        """After a change that a reviewer made, so that the next page shows it."""
        with self._lock:
            self._done.clear()

    def _value(self, key: object, found: tuple[float, object]) -> tuple[object, float]:
        if isinstance(found[1], Exception):
            self._done.pop(key, None)
            raise found[1]
        return found[1], time.monotonic() - found[0]

    def _work(self, key: object, compute: Callable[[], object], event: threading.Event) -> None:
        try:
            value = compute()
        except Exception as error:  # handed to whoever asks next
            value = error
        with self._lock:
            old = time.monotonic() - FRESH_SECONDS
            self._done = {name: found for name, found in self._done.items() if found[0] > old} | {key: (time.monotonic(), value)}
            self._running.pop(key, None)
        event.set()


def new_token() -> str:
    """A session token that nobody can guess."""
    return secrets.token_urlsafe(32)


def _secret(study: Workspace) -> bytes:
    """The key of this study's form tokens; kept, so that pages that are open outlive a restart of the server."""
    path = study.path(".web-secret")
    with contextlib.suppress(OSError):
        if len(found := path.read_bytes()) == 32:
            return found
    write_bytes(path, secrets.token_bytes(32))
    os.chmod(path, 0o600)
    return path.read_bytes()
