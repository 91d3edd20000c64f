"""Engines, URLs and layouts of the study's databases: the only file that tells SQLite from PostgreSQL.

Either way there is one writer at a time (SQLite: BEGIN IMMEDIATE; PostgreSQL: an advisory lock for the transaction), so that
what one transaction reads is true until it commits, and numbers of judgements grow in the order of their commits.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Dialect, Engine, MetaData, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.pool import QueuePool

from hfi.errors import HFIError
from hfi.feedback import tables
from hfi.workspace import Workspace

URL_VARIABLE = "HFI_DATABASE_URL"
BUSY_SECONDS = 30
CONNECTIONS = 8  # of one process; more threads than that wait their turn
TRUSTED_SECONDS = 2.0  # PostgreSQL: how long a connection may lie idle before it is asked whether its server is there
MANY = 1000  # rows that came at once
ACCOUNTS_SCHEMA = "hfi_accounts"  # PostgreSQL: keeps names and passwords apart from judgements

APPEND_ONLY = "judgements are append-only: record a later one instead"
SQLITE_TRIGGERS = (
    f"""CREATE TRIGGER IF NOT EXISTS judgement_never_changes BEFORE UPDATE ON judgement
        BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER IF NOT EXISTS judgement_never_goes BEFORE DELETE ON judgement
        BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END""",
    # INSERT OR REPLACE would delete the old row without asking the trigger above
    f"""CREATE TRIGGER IF NOT EXISTS judgement_never_replaced BEFORE INSERT ON judgement
        WHEN EXISTS (SELECT 1 FROM judgement WHERE id = NEW.id)
        BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END""",
)
POSTGRESQL_TRIGGERS = (
    f"""CREATE OR REPLACE FUNCTION judgement_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION '{APPEND_ONLY}'; END $$""",
    "DROP TRIGGER IF EXISTS judgement_never_changes ON judgement",
    "DROP TRIGGER IF EXISTS judgement_never_goes ON judgement",
    """CREATE TRIGGER judgement_never_changes BEFORE UPDATE OR DELETE ON judgement
       FOR EACH ROW EXECUTE FUNCTION judgement_append_only()""",
    """CREATE TRIGGER judgement_never_goes BEFORE TRUNCATE ON judgement
       FOR EACH STATEMENT EXECUTE FUNCTION judgement_append_only()""",
)
# A fresh store is made by the tables' own definition, and noted as Alembic would: importing that takes longer than all the rest.
NEWEST = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
    f"INSERT INTO alembic_version VALUES ('{tables.SCHEMA_VERSION:04d}')",
)


# --- where a study's judgements are ------------------------------------------------------------------------------------------


def place(study: Workspace) -> Path | str:
    """The study's database: the URL of HFI_DATABASE_URL where it is set, else STUDY/feedback.sqlite."""
    return os.environ.get(URL_VARIABLE) or study.store_path


def is_there(where: Path | str) -> bool:
    """Whether the database was made (a URL: taken as yes)."""
    return not isinstance(where, Path) or where.exists()


def name_of(where: Path | str) -> Path | str:
    """What messages call the database: the file, or the URL without its password."""
    if isinstance(where, Path):
        return where
    url = _url(where)
    return Path(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _url(where: str):
    try:
        url = make_url(where)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
        raise HFIError(
            "is no URL of a database that can be used", field=URL_VARIABLE, remedy="write postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url


# --- engines -----------------------------------------------------------------------------------------------------------------


def open_engine(where: Path | str, busy_seconds: float, application_id: int) -> Engine:
    """An engine whose transactions begin as this file's first words say; `application_id` tells our SQLite files from others."""
    url = make_url(f"sqlite:///{where}") if isinstance(where, Path) else _url(where)
    if url.get_backend_name() == "sqlite":
        settings = {"timeout": busy_seconds, "check_same_thread": False}
        engine = create_engine(url, poolclass=QueuePool, pool_size=CONNECTIONS, max_overflow=0, connect_args=settings)
        event.listen(engine, "connect", lambda raw, _: _prepare_sqlite(raw, busy_seconds, application_id))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=0, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError:
        raise HFIError("PostgreSQL needs the package psycopg", field=URL_VARIABLE, remedy="pip install 'hfi[postgres]'") from None
    event.listen(engine, "connect", lambda raw, _: _prepare_postgresql(raw, busy_seconds))
    event.listen(engine, "checkout", lambda connection, record, _: _still_there(engine.dialect, connection, record))
    event.listen(engine, "checkin", lambda _, record: record.info.update(idle_since=time.monotonic()))
    event.listen(engine, "begin", lambda connection: _begin_postgresql(connection, application_id))
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, busy_seconds: float, application_id: int) -> None:
    """Settings of every connection; the transaction is ours to begin (BEGIN IMMEDIATE), not the driver's."""
    connection.isolation_level = None
    for pragma in (f"busy_timeout = {int(busy_seconds * 1000)}", "foreign_keys = ON", "recursive_triggers = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    # a foreign file is told apart before anything is written to it
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty or connection.execute("PRAGMA application_id").fetchone()[0] == application_id:
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection, key: int) -> None:
    raw, writes = connection.connection.driver_connection, connection.get_execution_options().get("writes", False)
    driver = connection.dialect.loaded_dbapi
    with _database_errors(connection):
        # the driver begins the transaction with the first statement, and says these along with it
        raw.isolation_level, raw.read_only = (None, None) if writes else (driver.IsolationLevel.REPEATABLE_READ, True)
        if writes:
            with raw.pipeline():
                raw.execute(f"SELECT pg_advisory_xact_lock({key})")


def _prepare_postgresql(connection, busy_seconds: float) -> None:
    """No machine code for queries that take a millisecond: making it takes PostgreSQL almost a second."""
    connection.execute(f"SET jit = off; SET lock_timeout = '{int(busy_seconds * 1000)}ms'")
    connection.commit()


@contextlib.contextmanager
def batch(connection: Connection) -> Iterator[None]:
    """Around statements whose results nobody reads: they go to PostgreSQL as one message, and what it refuses is raised at the end."""
    if connection.dialect.name == "sqlite":
        yield
        return
    with _database_errors(connection), connection.connection.driver_connection.pipeline():
        yield


@contextlib.contextmanager
def _database_errors(connection: Connection) -> Iterator[None]:
    """What the driver itself raises, as SQLAlchemy's."""
    try:
        yield
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(None, None, error, connection.dialect.loaded_dbapi.Error, dialect=connection.dialect) from error


def _still_there(dialect: Dialect, connection, record) -> None:
    """A connection that lay idle may have lost its server; one that was used just now is not asked, for that costs as much as a query."""
    if time.monotonic() - record.info.get("idle_since", time.monotonic()) > TRUSTED_SECONDS:
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool opens another one in its place


@contextlib.contextmanager
def plain_errors(file: Path | str, busy_seconds: float) -> Iterator[None]:
    """What the database refuses, as one line for people."""
    try:
        yield
    except DBAPIError as error:
        problem, remedy = str(error.orig), ""
        if "locked" in problem or "lock timeout" in problem:
            problem, remedy = f"busy for over {busy_seconds:g} s", "another process is writing to it; try again when that is done"
        elif "full" in problem or "No space left" in problem:
            problem, remedy = "the disk is full", "free some space and run the same command again; recorded judgements are safe"
        elif "readonly" in problem or "unable to open" in problem:
            problem, remedy = "this place cannot be written to", "choose another study folder or change its permissions"
        elif "malformed" in problem or "not a database" in problem or "disk I/O" in problem:
            problem, remedy = (
                f"not a whole feedback store ({problem})",
                "restore a copy, or import label/judgements.jsonl into a fresh one",
            )
        elif error.connection_invalidated or "connection" in problem:
            problem, remedy = f"the database does not answer ({problem[:160]})", f"check {URL_VARIABLE} and that its server runs"
        raise HFIError(problem, file=file, remedy=remedy) from error


def insert_missing(connection: Connection, table: Table, rows: list[dict]) -> int:
    """Insert rows, leaving out those that are there already; returns how many were new."""
    if not rows:
        return 0
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert
    before = connection.execute(text(f"SELECT count(*) FROM {table.name}")).scalar()
    connection.execute(insert(table).on_conflict_do_nothing(), rows)
    if len(rows) >= MANY and connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"ANALYZE {table.name}")  # else PostgreSQL takes a table that has just been filled for an empty one
    return connection.execute(text(f"SELECT count(*) FROM {table.name}")).scalar() - before


# --- layouts -----------------------------------------------------------------------------------------------------------------


def prepare_store(engine: Engine, file: Path | str, create: bool, first_rows) -> None:
    """Make the store's tables, bring an older layout up to date, or refuse what is no store; costs one read when all is well.

    Args:
        first_rows: called with the connection once the tables are new.
    """
    with engine.connect() as connection:
        state = _state(connection, file)
    if state == tables.SCHEMA_VERSION:
        return
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        state = _state(connection, file)  # another process may have been faster
        if state == 0:
            if not create:
                raise HFIError("there are no judgements yet", file=file, remedy="run 'hfi label' on the study first")
            tables.metadata.create_all(connection)
            protect(connection)
            for line in NEWEST:
                connection.exec_driver_sql(line)
            first_rows(connection)
        elif state < tables.SCHEMA_VERSION:
            migrate(connection, since=state)
        _note_layout(connection)


def _state(connection: Connection, file: Path | str) -> int:
    """The layout's number, 0 for an empty database; raises HFIError for another program's database or a newer layout."""
    if connection.dialect.name == "sqlite":
        application = connection.exec_driver_sql("PRAGMA application_id").scalar()
        if application != tables.APPLICATION_ID:
            if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
                raise HFIError("an SQLite file, but not a feedback store", file=file, remedy="move it away and run the command again")
            return 0
        version = connection.exec_driver_sql("PRAGMA user_version").scalar()
    else:
        present = set(inspect(connection).get_table_names())
        if "alembic_version" in present and "judgement" in present:
            version = int(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
        elif present & set(tables.metadata.tables):
            raise HFIError("holds tables of another program", file=file, remedy="give the study a database of its own")
        else:
            return 0
    if version > tables.SCHEMA_VERSION:
        raise HFIError(
            f"written by another version of hfi (layout {version}, this one reads {tables.SCHEMA_VERSION})",
            file=file,
            remedy="export the judgements with that version and import them here",
        )
    return version


def migrate(connection: Connection, since: int = 0, to: str = "head") -> None:
    """Run the migrations of hfi.feedback.migrations on an open transaction.

    Args:
        since: the layout that the tables have now, where Alembic has not noted it (layout 1 knew no Alembic).
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "hfi.feedback:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if since and not inspect(connection).has_table("alembic_version"):
        command.stamp(config, f"{since:04d}")
    command.upgrade(config, to)


def protect(connection: Connection) -> None:
    """Have the database itself refuse to change or delete a judgement."""
    for trigger in SQLITE_TRIGGERS if connection.dialect.name == "sqlite" else POSTGRESQL_TRIGGERS:
        connection.exec_driver_sql(trigger)


def unprotect(connection: Connection) -> None:
    """Lift that, for a migration that lays the table out anew."""
    on = "" if connection.dialect.name == "sqlite" else " ON judgement"
    for name in ("judgement_never_changes", "judgement_never_goes", *(("judgement_never_replaced",) if not on else ())):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{on}")


def _note_layout(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")


def prepare_accounts(engine: Engine, file: Path | str, metadata: MetaData, application_id: int) -> Engine:
    """Make the accounts' tables where they are missing; returns the engine to use (on PostgreSQL it looks into their schema)."""
    if engine.dialect.name != "sqlite":
        engine = engine.execution_options(schema_translate_map={None: ACCOUNTS_SCHEMA})
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "sqlite":
            if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
                if connection.exec_driver_sql("PRAGMA application_id").scalar() != application_id:
                    raise HFIError("an SQLite file, but no accounts of hfi", file=file, remedy="move it away and run the command again")
                return engine
            connection.exec_driver_sql(f"PRAGMA application_id = {application_id}")
        else:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {ACCOUNTS_SCHEMA}")
        metadata.create_all(connection)
    return engine


def newest_judgement(where: Path | str) -> int | None:
    """The number of a store's newest judgement, read without leaving a trace in its folder; None when it is no store.

    A SQLite store that nobody writes to is opened as immutable, for SQLite would else put its WAL files beside it.
    """
    query = "SELECT coalesce(max(id), 0) FROM judgement"
    if not isinstance(where, Path):
        engine = create_engine(_url(where))
        try:
            with plain_errors(name_of(where), BUSY_SECONDS), engine.connect() as connection:
                return connection.execute(text(query)).scalar() if inspect(connection).has_table("judgement") else None
        finally:
            engine.dispose()
    if not where.exists():
        return None
    mode = "mode=ro" if where.with_name(f"{where.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{where.resolve().as_uri()}?{mode}", uri=True)) as connection:
            return connection.execute(query).fetchone()[0]
    except sqlite3.DatabaseError:
        return None
