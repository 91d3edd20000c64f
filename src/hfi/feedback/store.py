"""The feedback store: one SQLite file that several processes may write to, and in which no judgement is ever lost.

Every `record` is one transaction, on disk before it returns (WAL with synchronous=FULL): kill -9 costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from hfi.errors import HFIError, disk_errors
from hfi.feedback import tables
from hfi.feedback.judgements import Judgement, now
from hfi.feedback.tables import CURRENT
from hfi.workspace import Workspace

BUSY_SECONDS = 30
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Store:
    """The judgements of one study. Use as a context manager, or call `close`."""

    def __init__(self, path: str | Path, name: str = "study", concept: str = "", create: bool = True):
        """Open the store; with `create` make it when it is not there. Raises HFIError when the file is something else."""
        self.path = Path(path)
        if not create and not self.path.exists():
            raise HFIError("there are no judgements yet", file=self.path, remedy="run 'hfi label' on the study first")
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        self.engine = create_engine(f"sqlite:///{self.path}", poolclass=QueuePool, connect_args=settings)
        event.listen(self.engine, "connect", _prepare)
        event.listen(self.engine, "begin", _begin)
        with self.writing() as connection:
            _check_or_create(connection, self.path, name, concept)

    @classmethod
    def of(cls, study: Workspace, create: bool = True) -> Store:
        """The store of a study, knowing every picture that the study has drawn."""
        store = cls(study.store_path, study.config.name, study.config.concept.name, create)
        store.add_images(drawn_images(study))
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction (BEGIN IMMEDIATE): committed and on disk at the end, undone when an error passes through."""
        with self.plain_errors(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction: a consistent view, never blocked by writers."""
        with self.plain_errors(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def plain_errors(self) -> Iterator[None]:
        """What SQLite refuses, as one line for people."""
        try:
            yield
        except DBAPIError as error:
            problem, remedy = str(error.orig), ""
            if "locked" in problem:
                problem, remedy = f"busy for over {BUSY_SECONDS:g} s", "another process is writing to it; try again when that is done"
            elif "full" in problem:
                problem, remedy = "the disk is full", "free some space and run the same command again; recorded judgements are safe"
            elif "readonly" in problem or "unable to open" in problem:
                problem, remedy = "this place cannot be written to", "choose another study folder or change its permissions"
            elif "malformed" in problem or "not a database" in problem or "disk I/O" in problem:
                problem, remedy = (
                    f"not a whole feedback store ({problem})",
                    "restore a copy, or import label/judgements.jsonl into a fresh one",
                )
            raise HFIError(problem, file=self.path, remedy=remedy) from error

    # --- what is judged, by whom, by which words -------------------------------------------------------------------------

    def add_images(self, images: Iterable[tuple[str, str]]) -> None:
        """Make pictures known, as (id, file relative to the study); ones that are known already are left alone."""
        rows = [{"id": name, "file": file, "added": now()} for name, file in images]
        for row in rows:
            if not IMAGE_ID.fullmatch(row["id"]):
                raise HFIError(
                    f"{row['id']!r} cannot be an image id", file=row["file"], remedy="use letters, digits, '.', '_' and '-', at most 64"
                )
        if not rows:
            return
        with self.reading() as connection:
            known = set(connection.scalars(select(tables.image.c.id)))
        if fresh := [row for row in rows if row["id"] not in known]:
            with self.writing() as connection:
                connection.execute(insert(tables.image).prefix_with("OR IGNORE"), fresh)

    def images(self) -> set[str]:
        """Ids of all pictures that can be judged."""
        with self.reading() as connection:
            return set(connection.scalars(select(tables.image.c.id)))

    def add_guideline(self, words: str) -> int:
        """The version of the guideline with these words; a new version when they differ from the latest."""
        with self.writing() as connection:
            latest = connection.execute(text("SELECT version, text FROM guideline ORDER BY version DESC LIMIT 1")).first()
            if latest is not None and latest.text == words:
                return latest.version
            version = 1 if latest is None else latest.version + 1
            connection.execute(insert(tables.guideline), {"version": version, "text": words, "created": now()})
            return version

    def add_annotator(self, pseudonym: str, kind: str = "human") -> None:
        """Make an annotator known; raises HFIError when that pseudonym is taken by another kind."""
        with self.writing() as connection:
            annotator_ids(connection, {pseudonym: kind}, self.path)

    def assign(self, pseudonym: str, tasks: Iterable[tuple[str, ...]]) -> None:
        """Ask an annotator to judge: one id for a binary judgement, several for a ranking. Known assignments stay as they are."""
        with self.writing() as connection:
            number = connection.scalar(select(tables.annotator.c.id).where(tables.annotator.c.pseudonym == pseudonym))
            if number is None:
                raise HFIError("no such annotator", file=self.path, field=pseudonym, remedy="add the annotator first")
            rows = [
                {
                    "annotator": number,
                    "task": "binary" if len(names) == 1 else "ranking",
                    "target": " ".join(sorted(names)),
                    "images": json.dumps(names),
                    "created": now(),
                }
                for names in tasks
            ]
            if rows:
                connection.execute(insert(tables.assignment).prefix_with("OR IGNORE"), rows)

    def open_assignments(self, pseudonym: str) -> list[tuple[str, ...]]:
        """What the annotator was asked and has not judged yet, oldest first; each a tuple of image ids in the order to show."""
        query = text("""SELECT s.images FROM assignment AS s JOIN annotator AS a ON a.id = s.annotator WHERE a.pseudonym = :pseudonym
                        AND NOT EXISTS (SELECT 1 FROM judgement AS j WHERE j.annotator = s.annotator AND j.task = s.task
                        AND j.target = s.target) ORDER BY s.id""")
        with self.reading() as connection:
            return [tuple(json.loads(images)) for images in connection.scalars(query, {"pseudonym": pseudonym})]

    # --- judgements ------------------------------------------------------------------------------------------------------

    def record(self, judgement: Judgement) -> None:
        """Record one judgement; it is on disk when this returns."""
        self.record_many([judgement])

    def record_many(self, judgements: Iterable[Judgement]) -> int:
        """Record judgements in one transaction, all or none; returns how many. Raises HFIError for an unknown image."""
        judgements = [judgement.require() for judgement in judgements]
        if not judgements:
            return 0
        with self.writing() as connection:
            numbers = annotator_ids(connection, {j.annotator: j.kind for j in judgements}, self.path, judgements)
            version = latest_guideline(connection)
            names = {name for judgement in judgements for name in judgement.images}
            if unknown := names - _known(connection, names):
                raise HFIError(
                    f"unknown image {min(unknown)!r}",
                    file=self.path,
                    field="judgement image",
                    remedy="judge pictures that this study has drawn",
                )
            connection.execute(insert(tables.judgement), [_row(j, numbers[j.annotator], version) for j in judgements])
        return len(judgements)

    def judgements(self, kinds: Iterable[str] = tables.KINDS, history: bool = False) -> Iterator[Judgement]:
        """Judgements in a fixed order (task, target, annotator), streamed.

        Args:
            kinds: whose; any of human, simulated, machine.
            history: also those that a later judgement supersedes.
        """
        everything = CURRENT.split("WHERE")[0] + "WHERE 1" if history else CURRENT
        chosen = ", ".join(f"'{kind}'" for kind in kinds if kind in tables.KINDS)
        query = text(f"{everything} AND a.kind IN ({chosen}) ORDER BY j.task, j.target, a.pseudonym, j.id")
        with self.reading() as connection:
            for row in connection.execution_options(yield_per=5000).execute(query):
                yield _judgement(row)

    def counts(self, kinds: Iterable[str] = tables.KINDS) -> dict:
        """{"judgements", "judged" pictures, "images", "annotators": {kind: n}}; superseded judgements do not count."""
        chosen = ", ".join(f"'{kind}'" for kind in kinds)
        current = f"({CURRENT} AND a.kind IN ({chosen}))"
        annotators = f"SELECT kind, count(*) FROM (SELECT DISTINCT kind, annotator FROM {current}) GROUP BY kind"
        with self.reading() as connection:
            judged = set(connection.scalars(text(f"SELECT DISTINCT target FROM {current} WHERE task = 'binary' AND value != 'skip'")))
            for target in connection.scalars(text(f"SELECT DISTINCT target FROM {current} WHERE value = 'ranked'")):
                judged.update(target.split())
            return {
                "judgements": connection.scalar(text(f"SELECT count(*) FROM {current}")),
                "judged": len(judged),
                "images": connection.scalar(text("SELECT count(*) FROM image")),
                "annotators": {kind: number for kind, number in connection.execute(text(annotators))},  # noqa: C416 - rows
            }

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Current binary judgements: {image id: {"present": n, "absent": n}}."""
        found: dict[str, dict[str, int]] = {}
        query = text(f"""SELECT target, value, count(*) FROM ({CURRENT})
                         WHERE task = 'binary' AND value IN ('present', 'absent') GROUP BY 1, 2""")
        with self.reading() as connection:
            for target, value, number in connection.execute(query):
                found.setdefault(target, {"present": 0, "absent": 0})[value] = number
        return found

    def last(self) -> int:
        """The number of the newest judgement: it changes whenever one is recorded, and only then."""
        with self.reading() as connection:
            return connection.scalar(text("SELECT coalesce(max(id), 0) FROM judgement"))


def newest_judgement(path: Path) -> int | None:
    """The number of a store's newest judgement, read without leaving a trace in its folder; None when it is no store.

    A store that nobody writes to is opened as immutable, for SQLite would else put its WAL files beside it.
    """
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as connection:
            return connection.execute("SELECT coalesce(max(id), 0) FROM judgement").fetchone()[0]
    except sqlite3.DatabaseError:
        return None


def drawn_images(study: Workspace) -> list[tuple[str, str]]:
    """(id, file relative to the study) of the pictures of stage 1; empty when it is not done. Reads no tensors."""
    path = study.path("generate", "images.jsonl")
    if not study.path("generate", "manifest.json").exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(row["id"], f"generate/{row['file']}") for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise HFIError("half-written or damaged", file=path, remedy="delete the folder and run 'hfi generate' again") from None


def annotator_ids(connection: Connection, kinds: Mapping[str, str], file: Path, rows: Iterable[Judgement] = ()) -> dict[str, int]:
    """Numbers of annotators, made known where they are new; raises HFIError when a pseudonym is of another kind."""
    for row in rows:
        if row.kind != kinds[row.annotator]:
            raise HFIError(
                f"{row.annotator!r} is both {row.kind} and {kinds[row.annotator]}",
                file=file,
                field="kind",
                remedy="give each kind of annotator a pseudonym of its own",
            )
    found = {}
    for pseudonym, kind in kinds.items():
        columns = tables.annotator.c
        known = connection.execute(select(columns.id, columns.kind).where(columns.pseudonym == pseudonym)).first()
        if known is None:
            result = connection.execute(insert(tables.annotator), {"pseudonym": pseudonym, "kind": kind, "created": now()})
            found[pseudonym] = result.inserted_primary_key[0]
        elif known.kind != kind:
            raise HFIError(
                f"{pseudonym!r} is known as {known.kind}, not {kind}",
                file=file,
                field="kind",
                remedy="give each kind of annotator a pseudonym of its own",
            )
        else:
            found[pseudonym] = known.id
    return found


def latest_guideline(connection: Connection) -> int:
    """The newest guideline's version; an empty first one is made when there is none."""
    version = connection.scalar(text("SELECT max(version) FROM guideline"))
    if version is None:
        connection.execute(insert(tables.guideline), {"version": 1, "text": "", "created": now()})
    return version or 1


def _known(connection: Connection, names: Iterable[str]) -> set[str]:
    ordered, found = list(names), set()
    for start in range(0, len(ordered), 500):
        found.update(connection.scalars(select(tables.image.c.id).where(tables.image.c.id.in_(ordered[start : start + 500]))))
    return found


def _row(judgement: Judgement, annotator: int, version: int) -> dict:
    binary, ranked = judgement.task == "binary", judgement.value == tables.RANKED
    return {
        "annotator": annotator,
        "guideline": judgement.guideline or version,
        "task": judgement.task,
        "target": judgement.target,
        "image": judgement.images[0] if binary else None,
        "value": judgement.value,
        "ranking": json.dumps(judgement.ranking) if ranked else None,
        "excluded": json.dumps(sorted(judgement.excluded)) if ranked else None,
        "seconds": judgement.seconds,
        "created": judgement.created or now(),
    }


def _judgement(row) -> Judgement:
    return Judgement(
        images=tuple(row.target.split(" ")),
        annotator=row.pseudonym,
        kind=row.kind,
        value=row.value,
        ranking=tuple(json.loads(row.ranking)) if row.ranking else (),
        excluded=tuple(json.loads(row.excluded)) if row.excluded else (),
        seconds=row.seconds,
        guideline=row.guideline,
        created=row.created,
    )


def _prepare(connection: sqlite3.Connection, _) -> None:
    """Settings of every connection; the transaction is ours to begin (BEGIN IMMEDIATE), not the driver's."""
    connection.isolation_level = None
    for pragma in (f"busy_timeout = {int(BUSY_SECONDS * 1000)}", "foreign_keys = ON", "recursive_triggers = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    # a foreign file is told apart before anything is written to it
    if connection.execute("PRAGMA application_id").fetchone()[0] == tables.APPLICATION_ID or not _has_tables(connection):
        connection.execute("PRAGMA journal_mode = WAL")


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_or_create(connection: Connection, path: Path, name: str, concept: str) -> None:
    application, version = (connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in ("application_id", "user_version"))
    if application == tables.APPLICATION_ID:
        if version != tables.SCHEMA_VERSION:
            raise HFIError(
                f"written by another version of hfi (layout {version}, this one reads {tables.SCHEMA_VERSION})",
                file=path,
                remedy="export the judgements with that version and import them here",
            )
        return
    if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar():
        raise HFIError("an SQLite file, but not a feedback store", file=path, remedy="move it away and run the command again")
    tables.metadata.create_all(connection)
    for trigger in tables.TRIGGERS:
        connection.exec_driver_sql(trigger)
    connection.execute(insert(tables.study), {"name": name, "concept": concept, "created": now()})
    connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")
