"""Who may log in: names, password hashes, roles, invite links and sessions, in a database of their own beside the judgements.

STUDY/accounts.sqlite (on PostgreSQL the schema `hfi_accounts`). Judgements know an account's pseudonym only. Passwords are
hashed (Argon2id), tokens of invites and sessions are kept as SHA-256. Refusals are `hfi.feedback.events.Refused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfi.workspace import Workspace

ROLES = ("annotator", "reviewer", "admin")  # each may do what those before it may


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
        """Open the accounts at a path or database URL; made when first written to."""
        raise NotImplementedError

    @classmethod
    def of(cls, study: Workspace) -> Accounts:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def exist(self) -> bool:
        """Whether any account was ever added: then the server asks for a login, also on loopback."""
        raise NotImplementedError

    def list(self) -> list[Account]:
        """All accounts, by name."""
        raise NotImplementedError

    def invite(self, name: str, role: str = "annotator", hours: float = 72.0) -> Invite:
        """Add an account without a password (or invite an existing one again, which ends its sessions and its password)."""
        raise NotImplementedError

    def invited(self, token: str) -> Invite:
        """What an invite link is for. Raises Unknown (404) when it is forged, used or too old."""
        raise NotImplementedError

    def accept(self, token: str, password: str) -> Session:
        """Set the password of an invited account and log in. Raises Unknown (404), Invalid (422: the password is too weak)."""
        raise NotImplementedError

    def add(self, name: str, password: str, role: str = "annotator") -> Account:
        """Add an account with a password. Raises Invalid (422) for a bad or taken name, an unknown role or a weak password."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Forget an account, its sessions and invites; its judgements stay under the pseudonym. Raises Unknown (404)."""
        raise NotImplementedError

    def log_in(self, name: str, password: str, source: str = "") -> Session:
        """Raises NotLoggedIn (401: wrong, without saying which), TooMany (429) after five failures of a name or 20 of a source in 15 min.

        Args:
            source: where the request comes from (the peer's address); kept hashed for 15 minutes, to count failures.
        """
        raise NotImplementedError

    def session(self, token: str) -> Session | None:
        """The session of a cookie, None when it is unknown or has ended. Sessions last 12 h from their last use."""
        raise NotImplementedError

    def log_out(self, token: str) -> None:
        """End a session; nothing happens when there is none."""
        raise NotImplementedError
