"""Layouts: an older store comes up to date when it is opened, whole or not at all; a fresh one is what the migrations make."""

from __future__ import annotations

import os
import sqlite3

import pytest
from sqlalchemy import inspect, text

from hfi.errors import HFIError
from hfi.feedback import database, tables
from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store

sqlite_only = pytest.mark.skipif("HFI_TEST_POSTGRES" in os.environ, reason="layout 1 was SQLite only")


@pytest.fixture
def where(tmp_path):
    return os.environ.get("HFI_DATABASE_URL") or tmp_path / "feedback.sqlite"


def make(where, to: str) -> None:
    """A database brought to a layout by its migrations alone."""
    engine = database.open_engine(where, 30, tables.APPLICATION_ID)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        database.migrate(connection, to=to)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {int(to)}")
    engine.dispose()


def make_old(path) -> None:
    """A store of layout 1 with two judgements, as earlier versions of hfi left it (Alembic was not there)."""
    make(path, "0001")
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE alembic_version")
        raw.execute("INSERT INTO study VALUES (1, 'study', '', '2026-01-01T00:00:00.000Z')")
        raw.execute("INSERT INTO image VALUES ('im0', '0.png', '2026-01-01T00:00:00.000Z')")
        raw.execute("INSERT INTO annotator VALUES (7, 'ann', 'human', '2026-01-01T00:00:00.000Z')")
        raw.execute("INSERT INTO guideline VALUES (1, 'Is it?', '2026-01-01T00:00:00.000Z')")
        raw.execute("INSERT INTO assignment VALUES (1, 7, 'binary', 'im0', '[\"im0\"]', '2026-01-01T00:00:00.000Z')")
        for number, value in ((4, "present"), (9, "absent")):
            raw.execute("INSERT INTO judgement VALUES (?, 7, 1, 'binary', 'im0', 'im0', ?, NULL, NULL, 1.5, ?)",
                        (number, value, f"2026-01-0{number}T00:00:00.000Z"))  # fmt: skip
    raw.close()


@sqlite_only
def test_an_older_store_comes_up_to_date_with_every_judgement(where):
    make_old(where)
    with Store(where) as store:
        assert [(j.value, j.seconds, j.round, j.purpose) for j in store.judgements(history=True)] == [
            ("present", 1.5, "label", "work"), ("absent", 1.5, "label", "work")]  # fmt: skip
        assert store.last() == 9 and store.label_counts() == {"im0": {"present": 0, "absent": 1}} and store.open_assignments("ann") == []
        store.record(Judgement(("im0",), "ann", value="unsure"))
        assert store.last() == 10
        with pytest.raises(HFIError, match="append-only"), store.writing() as connection:
            connection.execute(text("DELETE FROM judgement"))
    with Store(where) as store:
        assert store.last() == 10


@sqlite_only
def test_an_upgrade_that_fails_leaves_the_older_store_as_it_was(where, monkeypatch):
    make_old(where)
    monkeypatch.setattr(database, "_note_layout", lambda connection: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Store(where)
    monkeypatch.undo()
    with sqlite3.connect(where) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
        assert raw.execute("SELECT count(*) FROM judgement").fetchone() == (2,)
        assert not raw.execute("SELECT 1 FROM sqlite_master WHERE name IN ('lease', 'alembic_version')").fetchall()
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute("DELETE FROM judgement")
    raw.close()
    with Store(where) as store:
        assert store.last() == 9


def test_migrations_make_what_a_fresh_store_has(where):
    """Tables, columns, indexes and constraints by both ways, as the database itself reports them."""
    make(where, f"{tables.SCHEMA_VERSION:04d}")
    engine = database.open_engine(where, 30, tables.APPLICATION_ID)
    migrated = layout(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        database.unprotect(connection)
        for table in reversed(tables.metadata.sorted_tables):
            table.drop(connection)
        tables.metadata.create_all(connection)
    fresh = layout(engine)
    engine.dispose()
    assert migrated == fresh


def layout(engine) -> dict:
    found = {}
    with engine.connect() as connection:
        inspector = inspect(connection)
        for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
            found[table] = {
                "columns": sorted((c["name"], str(c["type"]), c["nullable"], _default(c)) for c in inspector.get_columns(table)),
                "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
                "foreign keys": sorted((f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(table)),
                "indexes": sorted((i["column_names"], bool(i["unique"])) for i in inspector.get_indexes(table)),
                "unique": sorted(u["column_names"] for u in inspector.get_unique_constraints(table)),
                "checks": sorted(str(c["sqltext"]) for c in inspector.get_check_constraints(table)),
            }
    return found


def _default(column: dict) -> str:
    """PostgreSQL's sequences are told apart by their names alone."""
    return "a sequence" if "nextval" in str(column["default"]) else str(column["default"])


def test_alembic_finds_nothing_to_change_in_a_fresh_store(where):
    """And the newest migration is the layout that the store asks for."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with Store(where) as store, store.reading() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == f"{tables.SCHEMA_VERSION:04d}"
        assert compare_metadata(context, tables.metadata) == []
