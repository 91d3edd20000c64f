"""Rows of a file into the store: checked and staged in a temporary table first, then moved in one transaction.

Staging holds no lock, so people can go on judging while a long file is checked, and needs no more memory than a few thousand rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Column, Connection, Float, Integer, MetaData, Table, Text, text

from hfi.errors import HFIError
from hfi.feedback.judgements import Judgement, now
from hfi.feedback.rows import bad_row, count_lines, from_row
from hfi.feedback.store import Store, annotator_ids, latest_guideline
from hfi.feedback.tables import CURRENT, RANKED
from hfi.progress import bar

BATCH = 5000
REMEDY = "only pictures of this study can be judged; is the file of another study?"

staging = Table(
    "import_staging",
    MetaData(),
    Column("number", Integer, nullable=False),
    Column("place", Text, nullable=False),
    Column("annotator", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("task", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("ranking", Text),
    Column("crossed", Text),
    Column("said", Text, nullable=False),
    Column("seconds", Float),
    Column("guideline", Integer),
    Column("created", Text),
    Column("purpose", Text, nullable=False),
    Column("copies", Integer, nullable=False),
    Column("clash", Text),  # the place of a row that says something else
    prefixes=["TEMPORARY"],
)
COLUMNS = "number, place, annotator, kind, task, target, value, ranking, crossed, said, seconds, guideline, created, purpose, copies"
STAGE = text(f"""
    INSERT INTO import_staging ({COLUMNS}) VALUES (:{COLUMNS.replace(", ", ", :")})
    ON CONFLICT (annotator, task, target) DO UPDATE SET
    copies = import_staging.copies + CASE WHEN import_staging.said = excluded.said THEN 1 ELSE 0 END,
    clash = coalesce(import_staging.clash,
                     CASE WHEN import_staging.said <> excluded.said OR import_staging.kind <> excluded.kind THEN excluded.place END)""")
SAME = f"""{CURRENT} AND a.pseudonym = s.annotator AND j.task = s.task AND j.target = s.target AND j.value = s.value
    AND coalesce(j.ranking, '') = coalesce(s.ranking, '') AND coalesce(j.excluded, '') = coalesce(s.crossed, '')"""


def merge(
    store: Store, rows: Iterable[tuple[str, object]], images: set[str], path: Path, annotator: str | None, pictures_only: bool = False
) -> dict[str, int]:
    """Check rows and add what the store does not hold yet.

    Args:
        rows: (place, row) pairs; see hfi.feedback.rows.
        images: ids that may be judged.
        path: the source, named in errors.
        annotator: pseudonym for rows that name none.
        pictures_only: whether a source without any row is fine.

    Returns {"read", "added", "duplicates", "known"}.
    """
    with store.engine.connect() as connection:
        _lay_out(connection, again=True)
        try:
            read = _stage(connection, rows, images, path, annotator)
            if not read and not pictures_only:
                raise HFIError("holds no judgement", file=path, remedy="give one row per judgement; see docs/formats.md")
            with connection.begin():
                clash = connection.execute(
                    text("SELECT place, clash, annotator, target FROM import_staging WHERE clash IS NOT NULL ORDER BY number LIMIT 1")
                ).first()
                duplicates = connection.scalar(text("SELECT coalesce(sum(copies), 0) FROM import_staging"))
            if clash:
                problem = f"contradicts {clash[0]} (annotator {clash[2]!r}, image {clash[3]!r})"
                raise bad_row(path, clash[1], "label", problem, "keep the row that is meant")
            connection.execution_options(writes=True)
            with connection.begin():
                known, added = _move(connection, path) if read else (0, 0)
        finally:
            connection.rollback()
            _lay_out(connection, again=False)
    return {"read": read, "added": added, "duplicates": int(duplicates), "known": known}


def _lay_out(connection: Connection, again: bool) -> None:
    """Remove the temporary table, and make it afresh with `again`."""
    connection.execution_options(writes=True)  # PostgreSQL makes no table in a transaction that only reads
    with connection.begin():
        connection.execute(text("DROP TABLE IF EXISTS import_staging"))
        if again:
            staging.create(connection, checkfirst=False)
    connection.execution_options(writes=False)


def _stage(connection: Connection, rows: Iterable[tuple[str, object]], images: set[str], path: Path, annotator: str | None) -> int:
    """Lay rows into the temporary table, batch by batch; returns how many."""
    read, batch = 0, []
    with bar() as progress:
        task = progress.add_task(f"Reading {path.name}", total=count_lines(path) if path.is_file() else None, note="")
        for place, row in rows:
            try:
                judgement = from_row(row, annotator)
            except ValueError as error:
                field, _, words = str(error).partition(": ")
                raise bad_row(path, place, field, words) from None
            for name in judgement.images:
                if name not in images:
                    raise bad_row(path, place, "image", f"unknown image {name!r:.80}", REMEDY)
            read += 1
            batch.append(_staged(judgement, read, place))
            if len(batch) == BATCH:
                _insert(connection, batch)
                batch = []
                progress.update(task, completed=read)
        _insert(connection, batch)
    return read


def _staged(judgement: Judgement, number: int, place: str) -> dict:
    ranked = judgement.value == RANKED
    ranking, crossed = (json.dumps(names) if ranked else None for names in (judgement.ranking, judgement.excluded))
    return {
        "number": number,
        "place": place,
        "annotator": judgement.annotator,
        "kind": judgement.kind,
        "task": judgement.task,
        "target": judgement.target,
        "value": judgement.value,
        "ranking": ranking,
        "crossed": crossed,
        "said": f"{judgement.value} {ranking} {crossed}",
        "seconds": judgement.seconds,
        "guideline": judgement.guideline,
        "created": judgement.created,
        "purpose": judgement.purpose,
        "copies": 0,
    }


def _insert(connection: Connection, batch: list[dict]) -> None:
    if batch:
        with connection.begin():
            connection.execute(STAGE, batch)


def _move(connection: Connection, path: Path) -> tuple[int, int]:
    """Move staged rows into the store; returns (how many it knew already, how many were added)."""
    version, moment = latest_guideline(connection), now()
    connection.execute(
        text("""INSERT INTO guideline (version, text, created)
                SELECT DISTINCT guideline, '(imported; its words are not known here)', CAST(:now AS TEXT)
                FROM import_staging WHERE guideline IS NOT NULL ON CONFLICT (version) DO NOTHING"""),
        {"now": moment},
    )
    mixed = connection.execute(
        text("""SELECT annotator, place FROM import_staging WHERE annotator IN
                (SELECT annotator FROM import_staging GROUP BY annotator HAVING count(DISTINCT kind) > 1) ORDER BY number DESC LIMIT 1""")
    ).first()
    if mixed:
        remedy = "give each kind of annotator a pseudonym of its own"
        raise bad_row(path, mixed[1], "kind", f"{mixed[0]!r} is of two kinds in this file", remedy)
    kinds = {name: kind for name, kind in connection.execute(text("SELECT DISTINCT annotator, kind FROM import_staging"))}  # noqa: C416
    annotator_ids(connection, kinds, path)
    known = connection.scalar(text(f"SELECT count(*) FROM import_staging AS s WHERE EXISTS ({SAME})"))
    result = connection.execute(
        text(f"""
        INSERT INTO judgement (annotator, guideline, task, target, image, value, ranking, excluded, seconds, created, purpose)
        SELECT a.id, coalesce(s.guideline, :version), s.task, s.target, CASE WHEN s.task = 'binary' THEN s.target END, s.value, s.ranking,
               s.crossed, s.seconds, coalesce(s.created, :now), s.purpose
        FROM import_staging AS s JOIN annotator AS a ON a.pseudonym = s.annotator WHERE NOT EXISTS ({SAME}) ORDER BY s.number"""),
        {"version": version, "now": moment},
    )
    return known, result.rowcount
