"""Accounts: who may log in, invite links that work once, sessions that end, guessing that is slowed down; nothing in clear on disk."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import pytest

from hfi.errors import HFIError
from hfi.feedback import accounts as module
from hfi.feedback import database
from hfi.feedback.accounts import Accounts
from hfi.feedback.events import Invalid, NotLoggedIn, TooMany, Unknown
from hfi.feedback.store import Store

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _fast_hashes(monkeypatch):
    """Argon2id with the smallest cost: these tests are not about how slow it is."""
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    monkeypatch.setattr(module, "_hasher", lambda: hasher)
    module._nobodys_hash.cache_clear()


@pytest.fixture
def accounts(tmp_path):
    found = Accounts(os.environ.get("HFI_DATABASE_URL") or tmp_path / "accounts.sqlite")
    yield found
    found.close()


def clock(monkeypatch, seconds: float) -> None:
    """Let that many seconds pass."""
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + seconds)


def test_there_are_none_until_one_is_added(accounts, tmp_path):
    assert not accounts.exist() and accounts.list() == [] and accounts.session("x") is None
    assert not list(tmp_path.iterdir())  # asking makes no file
    accounts.add("Ann", PASSWORD, "admin")
    assert accounts.exist() and [(a.name, a.role, a.active) for a in accounts.list()] == [("ann", "admin", True)]
    assert "ann" not in accounts.list()[0].pseudonym.removeprefix("annotator-")
    if isinstance(accounts.where, os.PathLike):
        assert accounts.where.stat().st_mode & 0o077 == 0


def test_roles_include_those_before_them(accounts):
    found = {role: accounts.add(role, PASSWORD, role) for role in ("annotator", "reviewer", "admin")}
    assert [found["reviewer"].may(role) for role in ("annotator", "reviewer", "admin")] == [True, True, False]
    assert found["admin"].may("admin") and not found["annotator"].may("reviewer")


def test_log_in_and_out(accounts):
    account = accounts.add("ann", PASSWORD)
    session = accounts.log_in(" ANN ", PASSWORD, "1.2.3.4")
    assert accounts.session(session.token) == session and session.account == account
    assert accounts.session(session.token + "x") is None and accounts.session("") is None
    accounts.log_out(session.token)
    accounts.log_out(session.token)
    assert accounts.session(session.token) is None
    for name, password in [("ann", "wrong " * 3), ("bob", PASSWORD), ("ann", ""), ("ann", "x" * 10_000), ("a\0b", PASSWORD), (None, None)]:
        with pytest.raises(NotLoggedIn) as caught:
            accounts.log_in(name, password)
        assert caught.value.status == 401 and "name or password is wrong" in str(caught.value)


def test_sessions_end_half_a_day_after_their_last_use(accounts, monkeypatch):
    accounts.add("ann", PASSWORD)
    token = accounts.log_in("ann", PASSWORD).token
    for _ in range(3):
        clock(monkeypatch, 11 * 3600)
        assert accounts.session(token) is not None
    clock(monkeypatch, 12 * 3600 + 1)
    assert accounts.session(token) is None


def test_one_read_serves_all_sessions_and_each_use_is_noted_all_the_same(accounts, monkeypatch):
    tokens = []
    for name in ("ann", "bob"):
        accounts.add(name, PASSWORD)
        tokens.append(accounts.log_in(name, PASSWORD).token)
    assert accounts.session(tokens[0]) is not None
    assert accounts.session_by_memory(tokens[1]) is not None, "came with the other's"
    clock(monkeypatch, 3600)
    assert all(accounts.session(token) for token in tokens)
    clock(monkeypatch, 12 * 3600 - 60)
    assert all(accounts.session(token) for token in tokens), "each was used an hour after its login"


def test_an_invite_works_once_and_not_for_ever(accounts, monkeypatch):
    invite = accounts.invite("ann", "reviewer", hours=1)
    assert not accounts.list()[0].active and accounts.invited(invite.token).name == "ann"
    with pytest.raises(NotLoggedIn):
        accounts.log_in("ann", "")
    with pytest.raises(Invalid):
        accounts.accept(invite.token, "short")
    session = accounts.accept(invite.token, PASSWORD)
    assert session.account.role == "reviewer" and accounts.log_in("ann", PASSWORD)
    for token in (invite.token, "guess", "", "\0"):
        with pytest.raises(Unknown) as caught:
            accounts.accept(token, PASSWORD)
        assert caught.value.status == 404
    late = accounts.invite("bob", hours=1)
    clock(monkeypatch, 3601)
    with pytest.raises(Unknown):
        accounts.invited(late.token)


def test_a_new_invite_ends_the_old_password_sessions_and_invites(accounts):
    accounts.add("ann", PASSWORD)
    session, pseudonym = accounts.log_in("ann", PASSWORD), accounts.list()[0].pseudonym
    first = accounts.invite("ann")
    second = accounts.invite("ann", "reviewer")
    assert accounts.session(session.token) is None and accounts.list()[0].pseudonym == pseudonym
    with pytest.raises(Unknown):
        accounts.invited(first.token)
    with pytest.raises(NotLoggedIn):
        accounts.log_in("ann", PASSWORD)
    assert accounts.accept(second.token, "another long one").account.role == "reviewer"


@pytest.mark.parametrize("name", ["", " ", "two words", "../x", "<b>", "a" * 65, "=cmd", "a\nb"])
def test_a_bad_name_is_refused(accounts, name):
    with pytest.raises(Invalid, match="login name"):
        accounts.add(name, PASSWORD)
    with pytest.raises(Invalid, match="login name"):
        accounts.invite(name)


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaa", "x" * 201, "tenletters\0", "long-enough-name"])
def test_a_weak_password_is_refused(accounts, password):
    with pytest.raises(Invalid, match="password"):
        accounts.add("long-enough-name", password)
    assert not accounts.exist()


def test_taken_names_unknown_roles_and_the_last_admin(accounts):
    accounts.add("ann", PASSWORD, "admin")
    with pytest.raises(Invalid, match="taken"):
        accounts.add("Ann", PASSWORD)
    with pytest.raises(Invalid, match="none of annotator, reviewer, admin"):
        accounts.add("bob", PASSWORD, "root")
    accounts.add("bob", PASSWORD)
    with pytest.raises(Invalid, match="last admin"):
        accounts.remove("ann")
    accounts.remove("bob")
    with pytest.raises(Unknown):
        accounts.remove("bob")
    accounts.remove("ann")
    assert not accounts.exist()


def test_removing_ends_the_sessions(accounts):
    accounts.add("ann", PASSWORD, "admin")
    accounts.add("bob", PASSWORD)
    token = accounts.log_in("bob", PASSWORD).token
    accounts.remove("bob")
    assert accounts.session(token) is None


def test_guessing_a_name_or_from_a_place_is_slowed_down(accounts, monkeypatch):
    accounts.add("ann", PASSWORD)
    for _ in range(5):
        with pytest.raises(NotLoggedIn):
            accounts.log_in("ann", "wrong wrong", "1.1.1.1")
    with pytest.raises(TooMany) as caught:
        accounts.log_in("ann", PASSWORD, "2.2.2.2")  # also the right one, for a while
    assert caught.value.status == 429 and 0 < caught.value.seconds <= 900
    for k in range(15):
        with pytest.raises(NotLoggedIn):
            accounts.log_in(f"name{k}", "wrong wrong", "1.1.1.1")
    with pytest.raises(TooMany):
        accounts.log_in("somebody", "wrong wrong", "1.1.1.1")
    clock(monkeypatch, 901)
    assert accounts.log_in("ann", PASSWORD, "1.1.1.1")


def test_guessing_many_at_once_gains_nothing(accounts):
    accounts.add("ann", PASSWORD)
    outcomes: list[type] = []

    def guess() -> None:
        try:
            accounts.log_in("ann", "wrong wrong", "9.9.9.9")
        except HFIError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=guess) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert outcomes.count(NotLoggedIn) == 5 and outcomes.count(TooMany) == 11


def test_logging_in_forgives_earlier_slips(accounts):
    accounts.add("ann", PASSWORD)
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(NotLoggedIn):
                accounts.log_in("ann", "wrong wrong", f"{os.urandom(2).hex()}")
        assert accounts.log_in("ann", PASSWORD, "1.1.1.1")


@pytest.mark.skipif("HFI_TEST_POSTGRES" in os.environ, reason="reads SQLite's file")
def test_no_password_token_or_address_is_on_disk_in_clear(accounts, tmp_path):
    accounts.add("ann", PASSWORD)
    tokens = [accounts.invite("bob").token, accounts.log_in("ann", PASSWORD, "203.0.113.77").token]
    with pytest.raises(NotLoggedIn):
        accounts.log_in("ann", "a wrong password", "203.0.113.77")
    accounts.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [word for word in (PASSWORD, *tokens, "203.0.113.77", "a wrong password") if word.encode() in data]


def test_accounts_and_judgements_are_apart(accounts, tmp_path):
    """On PostgreSQL too, where both are in one database: names are in a schema that judgements do not see."""
    accounts.add("ann", PASSWORD)
    with Store(os.environ.get("HFI_DATABASE_URL") or tmp_path / "feedback.sqlite") as store, store.reading() as connection:
        from sqlalchemy import inspect

        assert "account" not in inspect(connection).get_table_names()


@pytest.mark.skipif("HFI_TEST_POSTGRES" in os.environ, reason="is about SQLite's file")
def test_another_programs_file_is_left_alone(tmp_path):
    Store(tmp_path / "feedback.sqlite").close()
    with pytest.raises(HFIError, match="no accounts of hfi"):
        Accounts(tmp_path / "feedback.sqlite").add("ann", PASSWORD)
    assert database.newest_judgement(tmp_path / "feedback.sqlite") == 0


def test_what_this_process_ends_is_ended_at_once_and_what_another_ends_within_two_seconds(accounts):
    """Sessions are remembered for a moment; no change of this process leaves a moment in which an old one works."""
    for name in ("ann", "bob", "cid", "dan"):
        accounts.add(name, PASSWORD, "admin" if name == "ann" else "annotator")
    held = {name: accounts.log_in(name, PASSWORD).token for name in ("ann", "bob", "cid", "dan")}
    assert all(accounts.session(token) for token in held.values())
    assert all(accounts.session_by_memory(token) for token in held.values()), "asked again, the database is left alone"
    accounts.log_out(held["bob"])
    assert accounts.session(held["bob"]) is None and accounts.session(held["cid"]) is not None
    accounts.invite("cid", "reviewer")
    assert accounts.session(held["cid"]) is None, "invited again: the old session ends"
    assert accounts.session(held["dan"]) is not None
    other = Accounts(accounts.where)
    other.remove("dan")
    other.log_out(held["ann"])
    other.close()
    end = time.monotonic() + 2.0
    while time.monotonic() < end and (accounts.session(held["dan"]) or accounts.session(held["ann"])):
        time.sleep(0.05)
    assert accounts.session(held["dan"]) is None and accounts.session(held["ann"]) is None


def test_nobody_is_let_in_while_the_first_requests_find_out_that_there_are_accounts(accounts):
    """Without accounts whoever comes is the local admin: no moment may pass for that when there are some."""
    accounts.add("ann", PASSWORD, "admin")
    interval, wrong = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            fresh = Accounts(accounts.where)
            threads = [threading.Thread(target=lambda: fresh.exist() or wrong.append(1)) for _ in range(8)]  # noqa: B023 - joined below
            for thread in threads:
                thread.start()
            while not fresh._there and any(thread.is_alive() for thread in threads):
                if fresh.exist_by_memory() is False:
                    wrong.append(1)
            for thread in threads:
                thread.join()
            fresh.close()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_a_read_that_began_before_a_log_out_is_not_remembered_after_it(accounts, monkeypatch):
    accounts.add("ann", PASSWORD, "admin")
    token = accounts.log_in("ann", PASSWORD).token
    reading = accounts._reading

    @contextlib.contextmanager
    def slow():
        with reading() as connection:
            yield connection
        monkeypatch.setattr(accounts, "_reading", reading)
        accounts.log_out(token)  # after the row was read, before it is remembered

    monkeypatch.setattr(accounts, "_reading", slow)
    accounts.session(token)
    assert accounts.session(token) is None
