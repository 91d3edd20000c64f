"""Hugging Face imagefolders in and out: pictures beside a metadata.csv or metadata.jsonl with a row for each.

Out: FOLDER/present, absent, undecided/<image id>.png and FOLDER/metadata.jsonl, which `datasets.load_dataset("imagefolder")` reads;
its column `judgements` holds every judgement, so that nothing is lost on the way back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfi.errors import HFIError, disk_errors
from hfi.feedback.folders import Labelled, pictures_in, word_to_label
from hfi.feedback.rows import FIELDS, bad_row, plain_csv, plain_jsonl

METADATA = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS, PROMPT_COLUMNS = ("label", "labels", "class", "category"), ("prompt", "text", "caption")
MARK = ".partial"


def is_imagefolder(folder: Path) -> bool:
    """Whether a folder has metadata beside its pictures, at its top or in one folder (a split) below."""
    return bool(_metadata_files(folder))


def read_imagefolder(folder: Path, concept: str) -> list[Labelled]:
    """The pictures of an imagefolder with what its metadata says of them.

    A label may be a word (`folders.word_to_label`), true/false or 1/0, in a column `label` or one called like the concept.
    Raises HFIError naming the metadata file and line.
    """
    said: dict[str, tuple[tuple[dict, ...], str, str | None]] = {}
    for path in _metadata_files(folder):
        reader = plain_csv if path.suffix == ".csv" else plain_jsonl
        for place, row in reader(path):
            file, rows, prompt, old = _read_row(row, path, place, concept)
            inside = (path.parent / file).resolve()
            if not inside.is_relative_to(folder.resolve()):
                raise bad_row(path, place, "file_name", f"{file!r:.80} leads out of the folder", "name files relative to the metadata file")
            if not inside.is_file():
                raise bad_row(path, place, "file_name", f"there is no picture {file!r:.80}", "restore the file or take the row out")
            said[inside.relative_to(folder.resolve()).as_posix()] = rows, prompt, old
    found = []
    for file, place in pictures_in(folder):
        rows, prompt, old = said.pop(place, ((), "", None))
        found.append(Labelled(file, place, rows, prompt, old))
    if said:
        raise HFIError(f"{min(said)!r:.80} is no PNG, JPEG or WebP file", file=folder, remedy="convert it, or take its row out")
    if not found:
        raise HFIError("holds no picture", file=folder, remedy="bring pictures beside the metadata file")
    return found


def write_imagefolder(
    folder: Path, rows: Iterator[dict], pictures: Mapping[str, Path], labels: Mapping[str, tuple[str, float | None]]
) -> int:
    """Write the folder, whole or not at all; returns how many judgements it holds.

    Args:
        folder: must not exist yet, or be empty.
        rows: judgements as flat rows (hfi.feedback.rows.to_row).
        pictures: image id -> file, of every picture of the study.
        labels: image id -> (present, absent or undecided; probability that the concept is present), of judged pictures.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HFIError("is there already", file=folder, remedy="name a folder that does not exist yet")
    by_image: dict[str, list[dict]] = {}
    count = 0
    for row in rows:
        by_image.setdefault(row["image"] if "image" in row else row["images"][0], []).append(row)
        count += 1
    partial = folder.with_name(f".{folder.name}{MARK}")
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(folder):
        partial.mkdir(parents=True)
        with (partial / "metadata.jsonl").open("w", encoding="utf-8") as stream:
            for name, file in pictures.items():
                label, share = labels.get(name, ("undecided", None))
                place = f"{label}/{name}{file.suffix.lower() or '.png'}"
                (partial / label).mkdir(exist_ok=True)
                try:
                    shutil.copyfile(file, partial / place)
                except FileNotFoundError:
                    raise HFIError("no such picture", file=file, remedy="run 'hfi generate' on the study again") from None
                row = {"file_name": place, "image": name, "label": label, "probability": share, "judgements": by_image.get(name, [])}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    return count


def _metadata_files(folder: Path) -> list[Path]:
    return sorted(path for name in METADATA for path in (*folder.glob(name), *folder.glob(f"*/{name}")) if path.is_file())


def _read_row(row: object, path: Path, place: str, concept: str) -> tuple[str, tuple[dict, ...], str, str | None]:
    """(file name, judgement rows, prompt, image id in the study that wrote it) of one metadata row."""
    if not isinstance(row, dict):
        raise bad_row(path, place, "row", "is no object with named fields")
    file = row.get("file_name")
    if not isinstance(file, str) or not file or "\0" in file or len(file) > 4096:
        raise bad_row(path, place, "file_name", "missing", "name the picture, relative to this file")
    prompt = next((row[name] for name in PROMPT_COLUMNS if isinstance(row.get(name), str)), "")
    old = row.get("image") if isinstance(row.get("image"), str) else None
    judgements = row.get("judgements")
    if judgements is not None and judgements != "":
        if not isinstance(judgements, list) or not all(isinstance(one, dict) for one in judgements):
            raise bad_row(path, place, "judgements", "is no list of judgements")
        return file, tuple({key: value for key, value in one.items() if key in FIELDS} for one in judgements), prompt, old
    column = next((name for name in row if name.lower() in (*LABEL_COLUMNS, concept.lower())), None)
    value = None if column is None else row[column]
    if value is None or value == "":
        return file, (), prompt, old
    label = word_to_label(str(int(value)) if isinstance(value, bool) else str(value), concept)
    if label is None:
        raise bad_row(path, place, column, f"{value!r:.60} says neither yes nor no", f"write yes or no, 1 or 0, or {concept!r:.40}")
    return file, ({"label": label},), prompt, old

