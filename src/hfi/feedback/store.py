"""The feedback store: one database that several processes may write to, and in which no judgement is ever lost.

STUDY/feedback.sqlite, or PostgreSQL by HFI_DATABASE_URL. Every `record` is one transaction, on disk before it returns (SQLite: WAL
with synchronous=FULL): kill -9 costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, text

from hfi.errors import HFIError, disk_errors
from hfi.feedback import database, tables
from hfi.feedback.database import newest_judgement as newest_judgement
from hfi.feedback.judgements import Judgement, now
from hfi.feedback.tables import CURRENT, LABEL_ROUND
from hfi.generation.brought import FOLDER as PICTURES
from hfi.generation.brought import brought
from hfi.workspace import Workspace

BUSY_SECONDS = database.BUSY_SECONDS
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROUND = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
# from one to the next by the index: DISTINCT walks over all items
ROUNDS = text("""WITH RECURSIVE found(name) AS (SELECT min(round) FROM item UNION ALL
                 SELECT (SELECT min(round) FROM item WHERE round > found.name) FROM found WHERE found.name IS NOT NULL)
                 SELECT name FROM found WHERE name IS NOT NULL""")
LATEST = text("SELECT max(version) FROM guideline WHERE round = :round")


@dataclass(frozen=True, slots=True)
class Guideline:
    """The words that annotators judge by."""

    version: int
    text: str  # Markdown
    created: str


class Store:
    """The judgements of one study. Use as a context manager, or call `close`. Safe to share between threads."""

    def __init__(self, path: str | Path, name: str = "study", concept: str = "", create: bool = True):
        """Open the store at a path or database URL; with `create` make it when it is not there.

        Raises HFIError when something else lies there. `path` is then what messages call it (no password in it).
        """
        where = path if isinstance(path, str) and "://" in path else Path(path)
        self.path = database.name_of(where)
        if isinstance(self.path, Path):
            if not create and not self.path.exists():
                raise HFIError("there are no judgements yet", file=self.path, remedy="run 'hfi label' on the study first")
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        self.engine = database.open_engine(where, BUSY_SECONDS, tables.APPLICATION_ID)
        self._turn = threading.Lock()  # threads of one process queue up here, for SQLite's own waiting is by naps of up to 0.1 s
        self._mine = threading.local()  # the transaction that this thread is in
        first = {"name": name, "concept": concept, "created": now()}
        try:
            with self.plain_errors():
                database.prepare_store(self.engine, self.path, create, lambda connection: connection.execute(insert(tables.study), first))
            if not isinstance(where, Path):
                self._same_study(name, concept)
        except BaseException:
            self.close()
            raise

    def _same_study(self, name: str, concept: str) -> None:
        """A URL from the environment may have been meant for another study."""
        with self.reading() as connection:
            known = connection.execute(select(tables.study.c.name, tables.study.c.concept)).first()
        if known is not None and tuple(known) != (name, concept):
            raise HFIError(
                f"holds the judgements of another study ({known.name!r}, concept {known.concept!r})",
                file=self.path,
                field=database.URL_VARIABLE,
                remedy="give each study a database of its own, or unset the variable",
            )

    @classmethod
    def of(cls, study: Workspace, create: bool = True) -> Store:
        """The store of a study, knowing every picture that the study has drawn."""
        store = cls(database.place(study), study.config.name, study.config.concept.name, create)
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
        """One write transaction, the only one at its time: on disk at the end, undone when an error passes through.

        Within another one of the same thread it is a part of that: on disk, or undone, with it.
        """
        if (outer := getattr(self._mine, "connection", None)) is not None:
            yield outer
            return
        with self._turn, self.plain_errors(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            self._mine.connection = connection
            try:
                yield connection
            finally:
                self._mine.connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction: a consistent view of what is on disk, never blocked by writers."""
        with self.plain_errors(), self.engine.connect() as connection:
            yield connection

    def plain_errors(self) -> contextlib.AbstractContextManager[None]:
        """What the database refuses, as one line for people."""
        return database.plain_errors(self.path, BUSY_SECONDS)

    # --- what is judged, by whom, by which words -------------------------------------------------------------------------

    def add_images(self, images: Iterable[tuple[str, str]], round: str = LABEL_ROUND) -> None:
        """Make pictures known, as (id, file relative to the study); ones that are known already are left alone."""
        rows = [{"id": name, "file": file, "added": now(), "round": round} for name, file in images]
        for row in rows:
            if not IMAGE_ID.fullmatch(row["id"]):
                raise HFIError(
                    f"{row['id']!r} cannot be an image id", file=row["file"], remedy="use letters, digits, '.', '_' and '-', at most 64"
                )
        if not ROUND.fullmatch(round):
            raise HFIError(f"{round!r:.60} cannot name a round", file=self.path, remedy="use a-z, 0-9 and '-', at most 32 of them")
        if not rows:
            return
        with self.reading() as connection:
            known = set(connection.scalars(select(tables.image.c.id)))
        if fresh := [row for row in rows if row["id"] not in known]:
            with self.writing() as connection:
                database.insert_missing(connection, tables.image, fresh)

    def images(self, round: str = LABEL_ROUND) -> set[str]:
        """Ids of all pictures that can be judged in a round."""
        with self.reading() as connection:
            return set(connection.scalars(select(tables.image.c.id).where(tables.image.c.round == round)))

    def image_file(self, name: str) -> str | None:
        """A picture's file, relative to the study's folder; None when no picture has that id."""
        with self.reading() as connection:
            return connection.scalar(select(tables.image.c.file).where(tables.image.c.id == name))

    def rounds(self) -> list[str]:
        """The rounds in which something is asked: "label" and human evaluations."""
        with self.reading() as connection:
            return list(connection.scalars(ROUNDS))

    def add_guideline(self, words: str, round: str = LABEL_ROUND) -> int:
        """The version of the guideline with these words; a new version when they differ from the round's latest."""
        with self.writing() as connection:
            columns = tables.guideline.c
            query = select(columns.version, columns.text).where(columns.round == round).order_by(columns.version.desc()).limit(1)
            latest = connection.execute(query).first()
            if latest is not None and latest.text == words:
                return latest.version
            version = 1 + (connection.scalar(text("SELECT max(version) FROM guideline")) or 0)
            connection.execute(insert(tables.guideline), {"version": version, "text": words, "created": now(), "round": round})
            return version

    def guideline(self, version: int | None = None, round: str = LABEL_ROUND) -> Guideline | None:
        """A version of the guideline, or a round's latest; None when there is none."""
        columns = tables.guideline.c
        query = select(columns.version, columns.text, columns.created).order_by(columns.version.desc()).limit(1)
        query = query.where(columns.round == round) if version is None else query.where(columns.version == version)
        with self.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else Guideline(*row)

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
            database.insert_missing(connection, tables.assignment, rows)

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
            versions = {name: latest_guideline(connection, name) for name in {judgement.round for judgement in judgements}}
            names = {name for judgement in judgements for name in judgement.images}
            if unknown := names - _known(connection, names):
                raise HFIError(
                    f"unknown image {min(unknown)!r}",
                    file=self.path,
                    field="judgement image",
                    remedy="judge pictures that this study has drawn",
                )
            connection.execute(insert(tables.judgement), [_row(j, numbers[j.annotator], versions[j.round]) for j in judgements])
        return len(judgements)

    def judgements(
        self, kinds: Iterable[str] = tables.KINDS, history: bool = False, round: str | None = LABEL_ROUND
    ) -> Iterator[Judgement]:
        """Judgements in a fixed order (task, target, annotator), streamed.

        Args:
            kinds: whose; any of human, simulated, machine.
            history: also those that were undone or that a later judgement supersedes, and the undo rows ("withdrawn") themselves.
            round: "label", an evaluation round, or None for all of them.
        """
        query = text(f"{_chosen(kinds, round, history)} ORDER BY j.task, j.target, a.pseudonym, j.id")
        with self.reading() as connection:
            for row in connection.execution_options(yield_per=5000).execute(query, {"round": round} if round else {}):
                yield _judgement(row)

    def counts(self, kinds: Iterable[str] = tables.KINDS, round: str | None = LABEL_ROUND) -> dict:
        """{"judgements", "judged" pictures, "images", "annotators": {kind: n}}; superseded and undone judgements do not count."""
        current = f"({_chosen(kinds, round)}) AS counting"
        annotators = f"SELECT kind, count(*) FROM (SELECT DISTINCT kind, annotator FROM {current}) AS who GROUP BY kind"
        binary = f"SELECT DISTINCT target FROM {current} WHERE task = 'binary' AND value != 'skip'"
        where = {"round": round} if round else {}
        with self.reading() as connection:
            judged = set(connection.scalars(text(binary), where))
            for target in connection.scalars(text(f"SELECT DISTINCT target FROM {current} WHERE value = 'ranked'"), where):
                judged.update(target.split())
            images = "SELECT count(*) FROM image" + (" WHERE round = :round" if round else "")
            return {
                "judgements": connection.scalar(text(f"SELECT count(*) FROM {current}"), where),
                "judged": len(judged),
                "images": connection.scalar(text(images), where),
                "annotators": {kind: number for kind, number in connection.execute(text(annotators), where)},  # noqa: C416 - rows
            }

    def label_counts(self, round: str = LABEL_ROUND, kinds: Iterable[str] = tables.KINDS) -> dict[str, dict[str, int]]:
        """Current binary judgements of these kinds of annotators: {image id: {"present": n, "absent": n}}."""
        found: dict[str, dict[str, int]] = {}
        query = text(f"""SELECT target, value, count(*) FROM ({_chosen(kinds, round)}) AS counting
                         WHERE task = 'binary' AND value IN ('present', 'absent') GROUP BY 1, 2""")
        with self.reading() as connection:
            for target, value, number in connection.execute(query, {"round": round}):
                found.setdefault(target, {"present": 0, "absent": 0})[value] = number
        return found

    def last(self) -> int:
        """The number of the newest judgement: it changes whenever one is recorded, and only then."""
        with self.reading() as connection:
            return connection.scalar(text("SELECT coalesce(max(id), 0) FROM judgement"))


def drawn_images(study: Workspace) -> list[tuple[str, str]]:
    """(id, file relative to the study) of the pictures that people brought and of those that stage 1 drew. Reads no tensors."""
    own = {row["id"]: f"{PICTURES}/{row['file']}" for row in brought(study)}
    path = study.path("generate", "images.jsonl")
    if not study.path("generate", "manifest.json").exists():
        return list(own.items())
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return list(({row["id"]: f"generate/{row['file']}" for row in rows} | own).items())
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


def latest_guideline(connection: Connection, round: str = LABEL_ROUND) -> int:
    """The newest version of a round's guideline; an empty one is made when there is none."""
    version = connection.scalar(LATEST, {"round": round})
    if version is None:
        version = 1 + (connection.scalar(text("SELECT max(version) FROM guideline")) or 0)
        connection.execute(insert(tables.guideline), {"version": version, "text": "", "created": now(), "round": round})
    return version


def _chosen(kinds: Iterable[str], round: str | None, history: bool = False) -> str:
    """The judgements of these kinds of annotators in a round (a parameter), as SQL."""
    everything = CURRENT.split("WHERE")[0] + "WHERE 1 = 1" if history else CURRENT
    chosen = ", ".join(f"'{kind}'" for kind in kinds if kind in tables.KINDS) or "''"
    return f"{everything} AND a.kind IN ({chosen})" + (" AND j.round = :round" if round else "")


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
        "round": judgement.round,
        "purpose": judgement.purpose,
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
        round=row.round,
        purpose=row.purpose,
    )
