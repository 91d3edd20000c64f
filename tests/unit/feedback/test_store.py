"""The store's file: foreign, damaged, newer and read-only ones are told apart; whole judgements only."""

from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest
from sqlalchemy import event, text

from hfi.config import Label
from hfi.errors import HFIError
from hfi.feedback import database
from hfi.feedback import store as store_module
from hfi.feedback.judgements import Judgement
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.feedback.tables import SCHEMA_VERSION

sqlite_only = pytest.mark.skipif("HFI_TEST_POSTGRES" in os.environ, reason="is about SQLite's file")


@pytest.fixture
def store(tmp_path):
    with Store(os.environ.get("HFI_DATABASE_URL") or tmp_path / "feedback.sqlite") as store:
        store.add_images([(f"im{i}", f"{i}.png") for i in range(6)])
        yield store


@sqlite_only
def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database " * 500)
    with sqlite3.connect(tmp_path / "foreign.sqlite") as raw:
        raw.execute("CREATE TABLE mine (x)")
    raw.close()
    for name, words in [("text.sqlite", "not a whole feedback store"), ("foreign.sqlite", "not a feedback store")]:
        before = (tmp_path / name).read_bytes()
        with pytest.raises(HFIError, match=rf"{name}: .*{words}") as caught:
            Store(tmp_path / name)
        assert "\n" not in str(caught.value) and (tmp_path / name).read_bytes() == before


@sqlite_only
def test_a_store_of_another_layout_is_refused(store):
    with sqlite3.connect(store.path) as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(HFIError, match="another version of hfi"):
        Store(store.path)


@sqlite_only
def test_a_cut_store_is_named(store):
    store.record_many(Judgement((f"im{i}",), f"a{k}", value="present") for i in range(6) for k in range(200))
    store.close()
    with sqlite3.connect(store.path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    data = store.path.read_bytes()
    store.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(HFIError, match="not a whole feedback store"), Store(store.path) as cut:
        list(cut.judgements())
        cut.record(Judgement(("im0",), "b", value="present"))


@pytest.mark.parametrize(
    "bad",
    [
        Judgement(("im0",), "", value="present"),
        Judgement(("im0",), "a" * 65, value="present"),
        Judgement(("im0",), "two\nlines", value="present"),
        Judgement(("im0",), "ann", value="ranked"),
        Judgement(("im0",), "ann", "ghost", "present"),
        Judgement(("im0",), "ann", value="present", seconds=float("nan")),
        Judgement((), "ann", value="present"),
        Judgement(("im0", "im0"), "ann", ranking=("im0", "im0")),
        Judgement(("im0", "im1"), "ann", ranking=("im0",)),
        Judgement(tuple(f"im{i}" for i in range(10)), "ann", ranking=tuple(f"im{i}" for i in range(10))),
        Judgement(("elsewhere",), "ann", value="present"),
    ],
)
def test_a_judgement_that_is_not_whole_is_refused_with_its_whole_batch(store, bad):
    with pytest.raises(HFIError, match="judgement"):
        store.record_many([Judgement(("im1",), "ann", value="present"), bad])
    assert store.last() == 0


def test_a_pseudonym_belongs_to_one_kind(store):
    store.record(Judgement(("im0",), "ann", "human", "present"))
    with pytest.raises(HFIError, match="'ann' is known as human, not simulated"):
        store.record(Judgement(("im0",), "ann", "simulated", "present"))


def test_guidelines_are_versioned(store):
    assert [store.add_guideline(words) for words in ("first", "first", "second", "first")] == [1, 1, 2, 3]
    store.record(Judgement(("im0",), "ann", value="present"))
    assert next(store.judgements()).guideline == 3


def test_assignments_stay_open_until_they_are_judged(store):
    store.add_annotator("ann")
    store.assign("ann", [("im0",), ("im1",), ("im3", "im2")])
    store.assign("ann", [("im0",)])
    assert store.open_assignments("ann") == [("im0",), ("im1",), ("im3", "im2")]
    store.record(Judgement(("im0",), "ann", value="skip"))
    store.record(Judgement(("im2", "im3"), "ann", ranking=("im2",), excluded=("im3",)))
    assert store.open_assignments("ann") == [("im1",)]
    with pytest.raises(HFIError, match="no such annotator"):
        store.assign("bob", [("im0",)])


def test_counts_leave_superseded_judgements_out(store):
    for value in ("present", "absent", "skip"):
        store.record(Judgement(("im0",), "ann", value=value))
    store.record(Judgement(("im1", "im2"), "sim", "simulated", ranking=("im1", "im2")))
    assert store.counts() == {"judgements": 2, "judged": 2, "images": 6, "annotators": {"human": 1, "simulated": 1}}
    assert store.counts(["human"])["judged"] == 0


def test_an_image_id_must_be_safe_to_name(store):
    with pytest.raises(HFIError, match="cannot be an image id"):
        store.add_images([("two words", "x.png")])


@sqlite_only
def test_a_full_disk_loses_nothing_that_was_recorded(store):
    store.record(Judgement(("im0",), "ann", value="present"))
    store.close()

    def nearly_full(connection, _):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then answers as on a full disk

    event.listen(store.engine, "connect", nearly_full)
    with pytest.raises(HFIError, match="the disk is full.*free some space"):
        store.record_many(Judgement((f"im{i}",), f"a{k}", value="present") for i in range(6) for k in range(500))
    assert [j.annotator for j in store.judgements()] == ["ann"]


@sqlite_only
def test_a_store_that_another_process_holds_is_named(store, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.1)
    with Store(store.path) as impatient:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HFIError, match=r"busy for over 0\.1 s.*another process"):
            impatient.record(Judgement(("im0",), "ann", value="present"))
        other.execute("ROLLBACK")
        other.close()
        impatient.record(Judgement(("im0",), "ann", value="present"))


def test_the_database_itself_refuses_to_change_or_drop_judgements(store):
    store.record(Judgement(("im0",), "ann", value="present"))
    for order in ("UPDATE judgement SET value = 'absent'", "DELETE FROM judgement"):
        with pytest.raises(HFIError, match="append-only"), store.writing() as connection:
            connection.exec_driver_sql(order)
    assert store.label_counts() == {"im0": {"present": 1, "absent": 0}}


def test_what_a_batch_is_refused_undoes_the_whole_transaction(store):
    """Statements of a batch may be sent together; an error of any of them is one line, and nothing of the transaction is left."""
    with pytest.raises(HFIError) as caught, store.writing() as connection:
        connection.execute(text("INSERT INTO study (name, concept, created) VALUES ('second', 'x', 'now')"))
        with database.batch(connection):
            connection.execute(text("INSERT INTO preference (annotator, choices, changed) VALUES (999, '{}', 'now')"))
            connection.execute(text("UPDATE item SET done = 1"))
    assert "\n" not in str(caught.value) and str(caught.value).count(str(store.path)) == 1
    with store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM study")) == 1
    store.record(Judgement(("im0",), "ann", value="present"))


@pytest.mark.skipif("HFI_TEST_POSTGRES" not in os.environ, reason="SQLite has no server")
@pytest.mark.parametrize("batch", [database.batch, contextlib.nullcontext], ids=["batch", "statement"])
def test_a_server_that_drops_the_connection_within_a_transaction_is_said_and_asked_again(store, batch):
    with pytest.raises(HFIError, match="does not answer"), store.writing() as connection:
        number = connection.scalar(text("SELECT pg_backend_pid()"))
        with store.reading() as other:
            other.execute(text("SELECT pg_terminate_backend(:number, 2000)"), {"number": number})
        with batch(connection):
            connection.execute(text("UPDATE item SET done = 1"))
    store.record(Judgement(("im0",), "ann", value="present"))
    assert store.counts()["judgements"] == 1


def test_rounds_are_kept_apart(store):
    store.add_images([("before1", "evaluate/before/1.png")], round="human-1")
    version = store.add_guideline("Is it here?", round="human-1")
    store.record(Judgement(("before1",), "ann", value="present", round="human-1"))
    store.record(Judgement(("im0",), "ann", value="absent"))
    assert store.rounds() == []
    for round in ("label", "human-1", "human-2"):
        Queue(store, Label(), round=round).add_items([("im0",)])
    assert store.rounds() == ["human-1", "human-2", "label"], "those in which something is asked"
    assert store.images("human-1") == {"before1"} and "before1" not in store.images()
    assert [(j.images, j.guideline) for j in store.judgements(round="human-1")] == [(("before1",), version)]
    assert store.counts()["judgements"] == 1 and store.counts(round=None)["judgements"] == 2
    assert store.label_counts() == {"im0": {"present": 0, "absent": 1}}
    with pytest.raises(HFIError, match="cannot name a round"):
        store.add_images([("x", "x.png")], round="../x")


def test_a_database_of_another_study_is_refused(monkeypatch, tmp_path):
    url = os.environ.get("HFI_DATABASE_URL") or f"sqlite:///{tmp_path / 'shared.sqlite'}"
    Store(url, "one", "weapon").close()
    Store(url, "one", "weapon").close()
    with pytest.raises(HFIError, match="another study .'one', concept 'weapon'"):
        Store(url, "two", "weapon")


@pytest.mark.parametrize("url", ["nonsense", "mysql://somewhere/db", "postgresql://host"])
def test_a_url_that_cannot_be_used_is_named_without_its_password(url):
    with pytest.raises(HFIError, match="HFI_DATABASE_URL") as caught:
        Store(url if "://" in url else f"{url}://", "s")
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg")
    with pytest.raises(HFIError, match="does not answer") as caught:
        Store("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
