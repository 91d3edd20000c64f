"""Who may log in: names, password hashes, roles, invite links and sessions, in a database of their own beside the judgements.

STUDY/accounts.sqlite (on PostgreSQL the schema `hfi_accounts`). Judgements know an account's pseudonym only. Passwords are
hashed (Argon2id), tokens of invites and sessions are kept as SHA-256. Refusals are `hfi.feedback.events.Refused`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, Float, ForeignKey, Index, Integer, MetaData, Row, String, Table, Text, insert

from hfi.errors import disk_errors
from hfi.feedback import database
from hfi.feedback.events import Invalid, NotLoggedIn, TooMany, Unknown
from hfi.feedback.judgements import now
from hfi.workspace import Workspace

ROLES = ("annotator", "reviewer", "admin")  # each may do what those before it may
FILE = "accounts.sqlite"
APPLICATION_ID = 0x48464941  # "HFIA"
BUSY_SECONDS = 30
SESSION_SECONDS = 12 * 3600.0  # from the last use
TOUCH_SECONDS = 300.0  # a session's use is noted no more often than this
REMEMBERED_SECONDS = 1.5  # so long may a session live on that another process has ended
MOST_REMEMBERED = 1000  # sessions
ATTEMPT_SECONDS = 15 * 60.0
ATTEMPTS_OF_NAME, ATTEMPTS_OF_SOURCE = 5, 20
SHORTEST, LONGEST = 10, 200  # characters of a password
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

metadata = MetaData()
account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),  # lower case
    Column("pseudonym", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", Text),  # a hash; null until the invite is accepted
    Column("created", String(32), nullable=False),
)
invite = Table(
    "invite",
    metadata,
    Column("token", String(64), primary_key=True),  # SHA-256
    Column("account", ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("until", Float, nullable=False),  # seconds since 1970
)
session = Table(
    "session",
    metadata,
    Column("token", String(64), primary_key=True),  # SHA-256
    Column("account", ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("until", Float, nullable=False),
)
attempt = Table(  # failed logins of the last quarter of an hour
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("what", String(64), nullable=False),  # SHA-256 of a name or an address
    Column("moment", Float, nullable=False),
)
Index("attempt_by_what", attempt.c.what, attempt.c.moment)


@dataclass(frozen=True, slots=True)
class Account:
    name: str  # the login name
    pseudonym: str  # what judgements know, e.g. "annotator-3f9a"; random, never made from the name
    role: str
    created: str
    active: bool  # False: invited, no password yet

    def may(self, role: str) -> bool:
        """Whether this account's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class Session:
    token: str  # for the cookie; the database holds its hash only
    account: Account
    expires: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Invite:
    token: str  # goes into the link; the database holds its hash only, and it works once
    name: str
    role: str
    expires: str  # ISO 8601, UTC


class Accounts:
    """The accounts of one study. Safe to share between threads."""

    def __init__(self, where: str | Path):
        """Open the accounts at a path or database URL; a file is made when the first account is added."""
        self.where = where if isinstance(where, str) and "://" in where else Path(where)
        self.path = database.name_of(self.where)
        self._engine: Engine | None = None
        self._turn = threading.Lock()
        self._there, self._looked = False, float("-inf")  # whether there is any account; when there was none
        # hash of a token -> (when it was read, until when it lasts, whose it is); all are read at once, a query takes longer than its rows.
        # Whatever is written puts a new dict in the place of this one, and a read that began before that ends in the old one, which nobody
        # asks any more
        self._sessions: dict[str, tuple[float, float, Account]] = {}
        self._asking, self._all_read = threading.Lock(), float("-inf")

    @classmethod
    def of(cls, study: Workspace) -> Accounts:
        """The accounts of a study: in its folder, or in the database of HFI_DATABASE_URL."""
        judgements = database.place(study)
        beside = database.name_of(judgements)
        return cls(beside.with_name(FILE) if isinstance(beside, Path) else judgements)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def exist(self) -> bool:
        """Whether there is any account: then the server asks for a login, also on loopback."""
        if (known := self.exist_by_memory()) is not None:
            return known
        looked = time.monotonic()
        with self._reading() as connection:
            there = connection.execute(account.select().limit(1)).first() is not None
        # only that there were none is noted with its time: another thread that reads both in between must not take one for the other
        if there:
            self._there = True
        else:
            self._looked = looked
        return there

    def exist_by_memory(self) -> bool | None:
        """The same without the database; None where it has to be asked."""
        if self._there:
            return True
        absent = isinstance(self.where, Path) and not self.where.exists()
        return False if absent or time.monotonic() - self._looked < REMEMBERED_SECONDS else None

    def list(self) -> list[Account]:
        """All accounts, by name."""
        if not self.exist():
            return []
        with self._reading() as connection:
            return [_account(row) for row in connection.execute(account.select().order_by(account.c.name))]

    def invite(self, name: str, role: str = "annotator", hours: float = 72.0) -> Invite:
        """Add an account without a password (or invite an existing one again, which ends its sessions and its password)."""
        token, until = secrets.token_urlsafe(32), time.time() + hours * 3600
        with self._writing() as connection:
            number = self._number(connection, name)
            if number is None:
                number = _add(connection, name, role, None)
            else:
                connection.execute(account.update().where(account.c.id == number), {"password": None, "role": _checked_role(role)})
                _end(connection, number)
            connection.execute(insert(invite), {"token": _hash(token), "account": number, "until": until})
        self._there = True
        return Invite(token, _plain(name), role, _iso(until))

    def invited(self, token: str) -> Invite:
        """What an invite link is for. Raises Unknown (404) when it is forged, used or too old."""
        if not self.exist():
            raise _no_invite()
        with self._reading() as connection:
            row, until = self._invited(connection, token)
            return Invite(token, row.name, row.role, _iso(until))

    def accept(self, token: str, password: str) -> Session:
        """Set the password of an invited account and log in. Raises Unknown (404), Invalid (422: the password is too weak)."""
        if not self.exist():
            raise _no_invite()
        with self._reading() as connection:
            name = self._invited(connection, token)[0].name
        hashed = _hasher().hash(_checked_password(password, name))  # slow on purpose, so outside the transaction
        with self._writing() as connection:
            row, _ = self._invited(connection, token)
            connection.execute(account.update().where(account.c.id == row.id), {"password": hashed})
            _end(connection, row.id)
            return _open_session(connection, connection.execute(account.select().where(account.c.id == row.id)).one())

    def add(self, name: str, password: str, role: str = "annotator") -> Account:
        """Add an account with a password. Raises Invalid (422) for a bad or taken name, an unknown role or a weak password."""
        _checked_role(role)
        hashed = _hasher().hash(_checked_password(password, name))
        with self._writing() as connection:
            if self._number(connection, name) is not None:
                raise Invalid("is taken", field=f"name {name!r:.80}", remedy="choose another one, or invite that account again")
            number = _add(connection, name, role, hashed)
            found = _account(connection.execute(account.select().where(account.c.id == number)).one())
        self._there = True
        return found

    def remove(self, name: str) -> None:
        """Forget an account, its sessions and invites; its judgements stay under the pseudonym. Raises Unknown (404).

        Raises Invalid (422) for the last admin while there are others: nobody could then invite or remove.
        """
        if not self.exist():
            raise Unknown("no such account", field=f"name {name!r:.80}", remedy="'hfi label users list' shows them all")
        with self._writing() as connection:
            rows = connection.execute(account.select()).all()
            found = [row for row in rows if row.name == _plain(name)]
            if not found:
                raise Unknown("no such account", field=f"name {name!r:.80}", remedy="'hfi label users list' shows them all")
            if found[0].role == "admin" and len(rows) > 1 and sum(row.role == "admin" for row in rows) == 1:
                raise Invalid("is the last admin", field=f"name {found[0].name!r}", remedy="make another admin first")
            _end(connection, found[0].id)
            connection.execute(account.delete().where(account.c.id == found[0].id))
        self._there = len(rows) > 1

    def log_in(self, name: str, password: str, source: str = "") -> Session:
        """Raises NotLoggedIn (401: wrong, without saying which), TooMany (429) after five failures of a name or 20 of a source in 15 min.

        Args:
            source: where the request comes from (the peer's address); kept hashed for 15 minutes, to count failures.
        """
        wrong = NotLoggedIn("name or password is wrong", remedy="try again, or ask an admin for a new invite link")
        if not self.exist() or not isinstance(name, str) or not isinstance(password, str) or len(password) > LONGEST:
            raise wrong
        keys = {_hash(f"name {_plain(name)}"): ATTEMPTS_OF_NAME, _hash(f"source {source}"): ATTEMPTS_OF_SOURCE}
        with self._writing() as connection:  # an attempt counts before its password is looked at, so that many at once gain nothing
            moment = time.time()
            connection.execute(attempt.delete().where(attempt.c.moment < moment - ATTEMPT_SECONDS))
            for key, most in keys.items():
                moments = sorted(connection.scalars(attempt.select().with_only_columns(attempt.c.moment).where(attempt.c.what == key)))
                if len(moments) >= most:
                    wait = moments[-most] + ATTEMPT_SECONDS - moment
                    raise TooMany("too many failed logins", seconds=wait, remedy=f"try again in {wait / 60:.0f} minutes")
            connection.execute(insert(attempt), [{"what": key, "moment": moment} for key in keys])
            row = connection.execute(account.select().where(account.c.name == _plain(name))).first()
        known = row is not None and row.password is not None
        # a name that is not there takes as long as a wrong password
        if not _hasher().verify(password, row.password if known else _nobodys_hash()) or not known:
            raise wrong
        with self._writing() as connection:
            again = connection.execute(account.select().where(account.c.id == row.id)).first()
            if again is None or again.password != row.password:
                raise wrong
            for key in keys:
                connection.execute(attempt.delete().where(attempt.c.what == key, attempt.c.moment == moment))
            connection.execute(attempt.delete().where(attempt.c.what == _hash(f"name {_plain(name)}")))
            return _open_session(connection, again)

    def session(self, token: str) -> Session | None:
        """The session of a cookie, None when it is unknown or has ended. Sessions last 12 h from their last use.

        What this process ends is ended at once, what another one ends after REMEMBERED_SECONDS.
        """
        if not token or not isinstance(token, str) or not self.exist():
            return None
        with self._asking:  # whoever asks first brings the answer for all
            if (known := self.session_by_memory(token)) is not None:
                return known
            moment, looked, key, sessions = time.time(), time.monotonic(), _hash(token), self._sessions
            lasting = session.join(account).select().with_only_columns(*account.c, session.c.token, session.c.until)
            lasting = lasting.where(session.c.until > moment)
            with self._reading() as connection:
                row = connection.execute(lasting.where(session.c.token == key)).first()
                rows = [row] if row is not None else []
                if rows and looked - self._all_read > REMEMBERED_SECONDS:
                    rows += connection.execute(lasting.order_by(session.c.until.desc()).limit(MOST_REMEMBERED))
                    self._all_read = looked
            if row is None:
                return None
            if _use_is_due(row.until):
                with self._writing() as connection:
                    connection.execute(session.update().where(session.c.token == key), {"until": moment + SESSION_SECONDS})
                return Session(token, _account(row), _iso(moment + SESSION_SECONDS))
            if len(sessions) >= MOST_REMEMBERED:
                sessions.clear()
            sessions.update({row.token: (looked, row.until, _account(row)) for row in rows})
            return Session(token, _account(row), _iso(row.until))

    def session_by_memory(self, token: str) -> Session | None:
        """The same without the database; None where it has to be asked."""
        looked, until, found = self._sessions.get(_hash(token), (float("-inf"), 0.0, None))
        fresh = time.monotonic() - looked < REMEMBERED_SECONDS and time.time() < until and not _use_is_due(until)
        return Session(token, found, _iso(until)) if fresh else None

    def log_out(self, token: str) -> None:
        """End a session; nothing happens when there is none."""
        if token and self.exist():
            with self._writing() as connection:
                connection.execute(session.delete().where(session.c.token == _hash(token)))

    # --- within the database ------------------------------------------------------------------------------------------------

    def _open(self) -> Engine:
        with self._turn:
            if self._engine is None:
                if isinstance(self.where, Path):
                    with disk_errors(self.where):
                        self.where.parent.mkdir(parents=True, exist_ok=True)
                        self.where.touch(mode=0o600)  # for its owner only
                engine = database.open_engine(self.where, BUSY_SECONDS, APPLICATION_ID)
                with database.plain_errors(self.path, BUSY_SECONDS):
                    self._engine = database.prepare_accounts(engine, self.path, metadata, APPLICATION_ID)
            return self._engine

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        connecting, plain = self._open().connect(), database.plain_errors(self.path, BUSY_SECONDS)
        try:
            with self._turn, plain, connecting.execution_options(writes=True) as connection, connection.begin():
                yield connection
        finally:
            self._sessions, self._looked, self._all_read = {}, float("-inf"), float("-inf")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with database.plain_errors(self.path, BUSY_SECONDS), self._open().connect() as connection:
            yield connection

    def _number(self, connection: Connection, name: str) -> int | None:
        return connection.scalar(account.select().with_only_columns(account.c.id).where(account.c.name == _plain(name)))

    def _invited(self, connection: Connection, token: str) -> tuple[Row, float]:
        query = invite.join(account).select().with_only_columns(*account.c, invite.c.until)
        query = query.where(invite.c.token == _hash(token), invite.c.until > time.time())
        row = connection.execute(query).first()
        if row is None:
            raise _no_invite()
        return row, row.until


def _add(connection: Connection, name: str, role: str, password: str | None) -> int:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Invalid("cannot be a login name", field=f"name {name!r:.80}", remedy="use letters, digits and . _ @ + -, at most 64")
    row = {"name": _plain(name), "role": _checked_role(role), "password": password, "created": now()}
    row["pseudonym"] = f"annotator-{secrets.token_hex(4)}"
    return connection.execute(insert(account), row).inserted_primary_key[0]


def _end(connection: Connection, number: int) -> None:
    """End an account's sessions and invites."""
    connection.execute(session.delete().where(session.c.account == number))
    connection.execute(invite.delete().where(invite.c.account == number))


def _open_session(connection: Connection, row: Row) -> Session:
    token, moment = secrets.token_urlsafe(32), time.time()
    connection.execute(session.delete().where(session.c.until < moment))
    connection.execute(insert(session), {"token": _hash(token), "account": row.id, "until": moment + SESSION_SECONDS})
    return Session(token, _account(row), _iso(moment + SESSION_SECONDS))


def _use_is_due(until: float) -> bool:
    """Whether it is time to note that a session is in use: it ends twelve hours after that."""
    return time.time() + SESSION_SECONDS - until > TOUCH_SECONDS


def _account(row: Row) -> Account:
    return Account(row.name, row.pseudonym, row.role, row.created, row.password is not None)


def _checked_role(role: str) -> str:
    if role not in ROLES:
        raise Invalid(f"{role!r:.40} is none of {', '.join(ROLES)}", field="role", remedy="choose one of them")
    return role


def _checked_password(password: str, name: str) -> str:
    if not isinstance(password, str) or not SHORTEST <= len(password) <= LONGEST or "\0" in password:
        raise Invalid(f"needs {SHORTEST} to {LONGEST} characters", field="password", remedy="a few words in a row are easy to remember")
    if len(set(password)) < 5 or password.lower() == _plain(name):
        raise Invalid("is too easy to guess", field="password", remedy="a few words in a row are easy to remember")
    return password


def _no_invite() -> Unknown:
    return Unknown("the invite link is used, too old or not whole", field="invite", remedy="ask an admin for a new one")


def _plain(name: object) -> str:
    return str(name).strip().lower()[:64].replace("\0", "")


def _hash(token: object) -> str:
    return hashlib.sha256(str(token).encode("utf-8", "replace")).hexdigest()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@functools.cache
def _hasher():
    from pwdlib import PasswordHash

    return PasswordHash.recommended()


@functools.cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_hex(16))
