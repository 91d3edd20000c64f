"""Refused requests: errors that carry an HTTP status, and the table that keeps them. Nothing personal is kept, no address either."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, text

from hfi.errors import HFIError
from hfi.feedback import tables
from hfi.feedback.judgements import now
from hfi.feedback.store import Store

KEPT = 20_000  # the newest events; a flood of forged requests fills no disk


class Refused(HFIError):
    """A request that is not granted; `status` is its HTTP status (4xx), `kind` one word for the event table."""

    status = 400
    kind = "refused"


class Unknown(Refused):
    """Names something that is not there: an item, a submission, an image, an invite."""

    status, kind = 404, "unknown"


class NotYours(Refused):
    """Another annotator's item or submission, or a role that may not do this."""

    status, kind = 403, "not-yours"


class Expired(Refused):
    """The lease ran out and somebody else has taken the place."""

    status, kind = 409, "expired"


class Answered(Refused):
    """The item has an answer already, and this one does not say that it revises it."""

    status, kind = 409, "answered"


class Invalid(Refused):
    """An answer that does not fit the item, or a value of the wrong form."""

    status, kind = 422, "invalid"


class NotLoggedIn(Refused):
    """No session, one that has ended, or a wrong name or password."""

    status, kind = 401, "login"


class TooMany(Refused):
    """Too many attempts; `seconds` says when to try again."""

    status, kind = 429, "too-many"

    def __init__(self, problem: str, *, seconds: float = 60.0, **where):
        super().__init__(problem, **where)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Event:
    """One request that was not granted."""

    id: int
    created: str
    kind: str
    status: int
    annotator: str | None  # pseudonym, where one is known
    route: str
    detail: str


def record(store: Store, kind: str, status: int, route: str, detail: str = "", annotator: str | None = None) -> None:
    """Keep a refused request; texts are cut to length, and control characters in them shown as such."""
    row = {"created": now(), "kind": _plain(kind, 16), "status": int(status), "route": _plain(route, 100), "detail": _plain(detail, 200)}
    with store.writing() as connection:
        number = connection.execute(insert(tables.refusal), {**row, "annotator": annotator}).inserted_primary_key[0]
        if number % 1000 == 0:
            connection.execute(text("DELETE FROM event WHERE id <= :last"), {"last": number - KEPT})


def latest(store: Store, count: int = 200) -> list[Event]:
    """The newest events, newest first."""
    query = text("SELECT id, created, kind, status, annotator, route, detail FROM event ORDER BY id DESC LIMIT :count")
    with store.reading() as connection:
        return [Event(*row) for row in connection.execute(query, {"count": count})]


def _plain(words: str, length: int) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words[: 2 * length])[:length]
