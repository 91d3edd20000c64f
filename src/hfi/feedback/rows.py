"""One judgement as one row of a JSONL or CSV file, and such files read row by row; everything odd is named by line and field."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from hfi.errors import HFIError
from hfi.feedback.judgements import Judgement
from hfi.feedback.tables import PURPOSES, RANKED

FIELDS = ("image", "images", "annotator", "kind", "label", "ranking", "excluded", "seconds", "guideline", "created", "purpose")
AGGREGATES = ("aggregate", "aggregate_probability", "aggregate_judgements", "aggregate_method")  # on export; ignored on import
SYNONYMS = {"yes": "present", "true": "present", "1": "present", "no": "absent", "false": "absent", "0": "absent", "x": "skip"}
MAX_LINE = 1 << 20  # bytes
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def to_row(judgement: Judgement) -> dict:
    """A judgement as one flat row; fields that do not apply are left out."""
    row: dict = {"image": judgement.images[0]} if judgement.task == "binary" else {"images": list(judgement.images)}
    row |= {"annotator": judgement.annotator, "kind": judgement.kind}
    if judgement.value == RANKED:
        row |= {"ranking": list(judgement.ranking), "excluded": list(judgement.excluded)}
    else:
        row["label"] = judgement.value
    for name in ("seconds", "guideline", "created"):
        if (value := getattr(judgement, name)) is not None:
            row[name] = value
    if judgement.purpose != "work":
        row["purpose"] = judgement.purpose
    return row


def from_row(row: object, annotator: str | None = None) -> Judgement:
    """A judgement from one row; raises ValueError "field: problem" when a value is missing, unknown or of another type."""
    if not isinstance(row, dict):
        raise ValueError("row: is no JSON object with named fields")
    if unknown := [key for key in row if key not in FIELDS and key not in AGGREGATES]:
        raise ValueError(f"{unknown[0]!s:.40}: no such field (known are {', '.join(FIELDS)})")
    row = {key: value for key, value in row.items() if value is not None and value != "" and key in FIELDS}
    ranking, excluded = _names(row, "ranking"), _names(row, "excluded")
    if "image" in row and ("images" in row or ranking or excluded):
        raise ValueError("image: a row has either an image and a label, or images and a ranking")
    images = (_word(row, "image"),) if "image" in row else _names(row, "images") or (*ranking, *excluded)
    if not images:
        raise ValueError("image: missing")
    if len(images) == 1 and "image" not in row:
        raise ValueError("images: a ranking needs at least two pictures")
    if ("label" in row) == bool(ranking or excluded):
        raise ValueError("label: give a label, or a ranking" if "label" in row else "label: missing")
    seconds, guideline = row.get("seconds"), row.get("guideline")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise ValueError(f"seconds: {seconds!r:.40} is not a number")
    if guideline is not None and (isinstance(guideline, bool) or not isinstance(guideline, int) or not 0 < guideline < 1 << 31):
        raise ValueError(f"guideline: {guideline!r:.40} is not a version number")
    judgement = Judgement(
        images=images if "image" in row else tuple(sorted(images)),
        annotator=_word(row, "annotator") if "annotator" in row else annotator or "",
        kind=_word(row, "kind") if "kind" in row else "human",
        value=_label(row["label"]) if "label" in row else RANKED,
        ranking=ranking,
        excluded=tuple(sorted(excluded)),
        seconds=None if seconds is None else float(seconds),
        guideline=guideline,
        created=_time(_word(row, "created")) if "created" in row else None,
        purpose=_word(row, "purpose") if "purpose" in row else "work",
    )
    if judgement.purpose not in PURPOSES:
        raise ValueError(f"purpose: {judgement.purpose!r:.40} is none of {', '.join(PURPOSES)}")
    if not judgement.annotator:
        raise ValueError("annotator: missing (name one in the row, or for the whole file)")
    if problem := judgement.check():
        raise ValueError(problem)
    return judgement


def read_rows(path: Path, kind: str) -> Iterator[tuple[str, object]]:
    """(place, row) pairs of a "jsonl" or "csv" file, one at a time; the place is what an error names: "line 7"."""
    return _judgement_cells(path) if kind == "csv" else plain_jsonl(path)


def count_lines(path: Path) -> int:
    """Lines of a file, for a progress bar."""
    try:
        with path.open("rb") as stream:
            return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    except OSError:
        return 0


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decoded lines; a line that is too long or not UTF-8 is named before more of it is read."""
    try:
        with path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise bad_row(path, f"line {number}", "line", f"longer than {MAX_LINE:,} bytes", "give one judgement per line")
                try:
                    words = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    problem = f"byte {error.start + 1} is not UTF-8"
                    raise bad_row(path, f"line {number}", "encoding", problem, "save the file as UTF-8") from None
                if "\0" in words:
                    raise bad_row(path, f"line {number}", "encoding", "holds a NUL byte", "save the file as UTF-8 text")
                yield number, words
    except OSError as error:
        raise HFIError(f"cannot be read ({error.strerror})", file=path, remedy="check the file and its permissions") from error


def plain_jsonl(path: Path) -> Iterator[tuple[str, object]]:
    """(place, value) of every line of a JSONL file, whatever it holds."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_twins)
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            yield place, decoder.decode(line)
        except json.JSONDecodeError as error:
            raise bad_row(path, place, "row", f"not JSON ({error.msg}, column {error.colno})", "write one JSON object per line") from None
        except (ValueError, RecursionError) as error:
            raise bad_row(path, place, "row", str(error)[:80], "write one flat JSON object per line") from None


def plain_csv(path: Path, known: tuple[str, ...] | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, {column: cell}) of every row of a CSV file with a header.

    Args:
        known: the columns that there may be; None: any.
    """
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            place = f"line {reader.line_num}"
            if header is None:
                header = [cell.strip() for cell in cells]
                wrong = [name for i, name in enumerate(header) if (known and name not in known) or name in header[:i]]
                if wrong:
                    remedy = f"use some of {', '.join(known[: len(FIELDS)])}" if known else "give each column a name of its own"
                    raise bad_row(path, place, f"column {wrong[0]!r:.40}", "no such column, or it is there twice", remedy)
                continue
            if len(cells) != len(header):
                raise bad_row(path, place, "row", f"has {len(cells)} cells, the header has {len(header)}", "mend the row")
            yield place, dict(zip(header, map(restored, cells), strict=True))
    except csv.Error as error:
        raise bad_row(path, f"line {reader.line_num}", "row", f"not CSV ({error})", "save it as plain CSV with commas") from None


def _judgement_cells(path: Path) -> Iterator[tuple[str, object]]:
    for place, row in plain_csv(path, (*FIELDS, *AGGREGATES)):
        yield place, _from_cells(row, path, place)


def _from_cells(row: dict, path: Path, place: str) -> dict:
    """CSV cells as the types that JSON would have given."""
    row = {key: cell for key, cell in row.items() if cell != ""}
    for key, kind in (("seconds", float), ("guideline", int)):
        if key in row:
            try:
                row[key] = kind(row[key])
            except ValueError:
                raise bad_row(path, place, key, f"{row[key]!r:.40} is not a number") from None
    for key in ("images", "ranking", "excluded"):
        if key in row:
            row[key] = row[key].split()
    return row


def neutralised(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula; `restored` gives the original back."""
    if isinstance(cell, str) and cell.startswith((*FORMULA, "'")):
        return "'" + cell
    return cell


def restored(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*FORMULA, "'")) else cell


def bad_row(path: Path, place: str, field: str, problem: str, remedy: str = "mend the row; nothing was imported") -> HFIError:
    """The error for one row; `place` is where it stands, e.g. "line 7"."""
    return HFIError(problem, file=path, field=f"{place}, {field}", remedy=remedy)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_twins(pairs: list[tuple[str, object]]) -> dict:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a field stands there twice")
    return dict(pairs)


def _word(row: dict, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name}: {row[name]!r:.40} is not text")
    return row[name]


def _names(row: dict, name: str) -> tuple[str, ...]:
    value = row.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{name}: {value!r:.40} is not a list of image ids")
    return tuple(value)


def _label(value: object) -> str:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return "present" if value else "absent"
    if not isinstance(value, str):
        raise ValueError(f"label: {value!r:.40} is none of present, absent, unsure, skip")
    word = value.strip().lower()
    return SYNONYMS.get(word, word)


def _time(value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"created: {value!r:.40} is not an ISO 8601 time") from None
    if len(value) > 32:
        raise ValueError(f"created: {value!r:.40} is not an ISO 8601 time")
    return value
