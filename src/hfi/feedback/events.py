"""Refused requests: errors that carry an HTTP status, and the table that keeps them. Nothing personal is kept, no address either."""

from __future__ import annotations

from hfi.errors import HFIError


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
