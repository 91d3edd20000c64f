"""Judgements as JSONL or CSV, in and out; streamed, and all or nothing: a file with one bad row changes nothing.

One row per judgement. Binary: `image`, `label`. Ranking: `images`, `ranking` (concept strongest first), `excluded` ("X").
Both: `annotator`, `kind`, `seconds`, `guideline` (version), `created`. In CSV, lists of ids have spaces between.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import Connection, text

from hfi.errors import HFIError
from hfi.feedback.judgements import Judgement, now
from hfi.feedback.rows import FIELDS, bad_row, count_lines, file_kind, from_row, neutralised, read_rows, to_row
from hfi.feedback.store import Store, annotator_ids, latest_guideline
from hfi.feedback.tables import RANKED
from hfi.progress import bar
from hfi.workspace import Workspace, atomic

BATCH = 5000

STAGING = """CREATE TEMP TABLE staging (
    line INTEGER, annotator TEXT, kind TEXT, task TEXT, target TEXT, value TEXT, ranking TEXT, excluded TEXT, said TEXT, seconds REAL,
    guideline INTEGER, created TEXT, copies INTEGER DEFAULT 0, clash INTEGER, PRIMARY KEY (annotator, task, target)) WITHOUT ROWID"""
STAGE = """INSERT INTO staging (line, annotator, kind, task, target, value, ranking, excluded, said, seconds, guideline, created)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    copies = copies + (said = excluded.said),
    clash = coalesce(clash, CASE WHEN said != excluded.said OR kind != excluded.kind THEN excluded.line END)"""
SAME = """SELECT 1 FROM judgement AS j JOIN annotator AS a ON a.id = j.annotator WHERE a.pseudonym = s.annotator AND j.task = s.task
    AND j.target = s.target AND j.value = s.value AND coalesce(j.ranking, '') = coalesce(s.ranking, '')
    AND coalesce(j.excluded, '') = coalesce(s.excluded, '') AND NOT EXISTS (SELECT 1 FROM judgement AS later
    WHERE later.annotator = j.annotator AND later.task = j.task AND later.target = j.target AND later.id > j.id)"""


def import_judgements(study: Workspace, path: str | Path, annotator: str | None = None) -> dict[str, int]:
    """Add the judgements of a JSONL or CSV file to the study's store, in one transaction.

    Args:
        study: whose pictures were judged.
        path: *.jsonl or *.csv, UTF-8.
        annotator: pseudonym for rows that name none.

    Returns {"read", "added", "duplicates" (same row twice in the file), "known" (in the store already)}.
    Raises HFIError naming file, line and field; then nothing was added.
    """
    path = Path(path)
    rows = read_rows(path)
    with Store.of(study) as store, store.plain_errors():
        images = store.images()
        if not images:
            raise HFIError("the study has no pictures to judge yet", file=study.root, remedy=f"run 'hfi generate {study.root}' first")
        # staged on a connection that holds no lock, so that people can go on judging while a long file is checked
        with store.engine.connect().execution_options(writes=True) as connection:
            raw = connection.connection.driver_connection
            raw.execute("DROP TABLE IF EXISTS temp.staging")
            raw.execute(STAGING)
            try:
                read = _stage(raw, rows, images, path, annotator)
                clash = raw.execute(
                    "SELECT line, clash, annotator, target, kind FROM staging WHERE clash IS NOT NULL ORDER BY clash LIMIT 1"
                ).fetchone()
                if clash:
                    raise bad_row(
                        path,
                        clash[1],
                        "label",
                        f"contradicts line {clash[0]} (annotator {clash[2]!r}, image {clash[3]!r})",
                        "keep the row that is meant",
                    )
                duplicates = raw.execute("SELECT coalesce(sum(copies), 0) FROM staging").fetchone()[0]
                with connection.begin():
                    known, added = _merge(connection, path)
            finally:
                raw.execute("DROP TABLE IF EXISTS temp.staging")
    return {"read": read, "added": added, "duplicates": duplicates, "known": known}


def export_judgements(study: Workspace, path: str | Path) -> int:
    """Write the judgements that count (superseded ones left out) as *.jsonl or *.csv, whole or not at all; returns how many."""
    path = Path(path)
    with Store.of(study, create=False) as store:
        return write_judgements(store.judgements(), path)


def write_judgements(judgements: Iterable[Judgement], path: Path) -> int:
    """Stream judgements into a file by its suffix, atomically; returns how many."""
    as_csv = file_kind(path) == "csv"
    count = 0
    with atomic(path) as raw:
        stream = codecs.getwriter("utf-8")(raw)
        writer = csv.DictWriter(stream, FIELDS)
        if as_csv:
            writer.writeheader()
        for judgement in judgements:
            row = to_row(judgement)
            if as_csv:
                writer.writerow({key: neutralised(" ".join(cell) if isinstance(cell, list) else cell) for key, cell in row.items()})
            else:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _stage(raw, rows: Iterator[tuple[int, object]], images: set[str], path: Path, annotator: str | None) -> int:
    """Check rows and lay them into the temporary table, batch by batch; returns how many."""
    read, batch = 0, []
    with bar() as progress:
        task = progress.add_task(f"Reading {path.name}", total=count_lines(path), note="")
        for line, row in rows:
            try:
                judgement = from_row(row, annotator)
            except ValueError as error:
                field, _, words = str(error).partition(": ")
                raise bad_row(path, line, field, words) from None
            for name in judgement.images:
                if name not in images:
                    raise bad_row(
                        path,
                        line,
                        "image",
                        f"unknown image {name!r:.80}",
                        "only pictures of this study can be judged; is the file of another study?",
                    )
            ranked = judgement.value == RANKED
            ranking, excluded = (json.dumps(names) if ranked else None for names in (judgement.ranking, judgement.excluded))
            batch.append(
                (
                    line,
                    judgement.annotator,
                    judgement.kind,
                    judgement.task,
                    judgement.target,
                    judgement.value,
                    ranking,
                    excluded,
                    f"{judgement.value} {ranking} {excluded}",
                    judgement.seconds,
                    judgement.guideline,
                    judgement.created,
                )
            )
            if len(batch) == BATCH:
                _insert(raw, batch)
                read, batch = read + BATCH, []
                progress.update(task, completed=line)
        _insert(raw, batch)
    if not read and not batch:
        raise HFIError("holds no judgement", file=path, remedy="give one row per judgement; see docs/formats.md")
    return read + len(batch)


def _insert(raw, batch: list[tuple]) -> None:
    raw.execute("BEGIN")
    raw.executemany(STAGE, batch)
    raw.execute("COMMIT")


def _merge(connection: Connection, path: Path) -> tuple[int, int]:
    """Move staged rows into the store; returns (how many it knew already, how many were added)."""
    version, moment = latest_guideline(connection), now()
    connection.exec_driver_sql(
        "INSERT OR IGNORE INTO guideline (version, text, created) SELECT DISTINCT guideline, '(imported; its words "
        "are not known here)', ? FROM staging WHERE guideline IS NOT NULL",
        (moment,),
    )
    mixed = connection.execute(text("SELECT annotator, max(line) FROM staging GROUP BY annotator HAVING count(DISTINCT kind) > 1")).first()
    if mixed:
        raise bad_row(
            path, mixed[1], "kind", f"{mixed[0]!r} is of two kinds in this file", "give each kind of annotator a pseudonym of its own"
        )
    annotator_ids(connection, {name: kind for name, kind in connection.execute(text("SELECT DISTINCT annotator, kind FROM staging"))}, path)  # noqa: C416
    known = connection.execute(text(f"SELECT count(*) FROM staging AS s WHERE EXISTS ({SAME})")).scalar()
    result = connection.exec_driver_sql(
        f"""
        INSERT INTO judgement (annotator, guideline, task, target, image, value, ranking, excluded, seconds, created)
        SELECT a.id, coalesce(s.guideline, ?), s.task, s.target, CASE WHEN s.task = 'binary' THEN s.target END, s.value, s.ranking,
               s.excluded, s.seconds, coalesce(s.created, ?)
        FROM staging AS s JOIN annotator AS a ON a.pseudonym = s.annotator WHERE NOT EXISTS ({SAME}) ORDER BY s.line""",
        (version, moment),
    )
    return known, result.rowcount
