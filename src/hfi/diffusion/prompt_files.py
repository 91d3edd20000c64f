"""Prompt sets in the layouts that their authors publish, read from a path; which one a file is in is told by its columns.

| layout | columns | published by |
|---|---|---|
| i2p | prompt, categories, sd_seed or evaluation_seed, sd_guidance_scale or evaluation_guidance | Schramowski et al. (I2P); subsets of it |
| cases | case_number, prompt, evaluation_seed, often evaluation_guidance | ESD, UnlearnDiffAtk, Ring-A-Bell |
| coco | JSON with annotations[].caption, image_id | COCO captions |
| plain | prompt | any CSV; a .txt file with one prompt a line |

Column names are compared without regard to case. Rows with an empty prompt are left out and counted: I2P as published has one.
Imports no torch.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError

SEED = ("sd_seed", "evaluation_seed", "seed")
GUIDANCE = ("sd_guidance_scale", "evaluation_guidance", "guidance_scale")
CATEGORY = ("categories", "category", "artist", "class", "source")
LONGEST = 1_000_000  # characters of one field
MAX_SEED = 2**63


@dataclass(frozen=True, slots=True)
class PublishedPrompt:
    """One prompt of a file, with what its authors say it is drawn with (None where they say nothing)."""

    text: str
    row: int  # of the file, from 1, its header not counted
    seed: int | None = None
    guidance_scale: float | None = None
    category: str = ""


@dataclass(frozen=True)
class PromptFile:
    """A file's prompts after filtering, and how many it holds in all."""

    layout: str
    prompts: list[PublishedPrompt]
    rows: int
    empty: int = 0  # rows without a prompt, left out


def read_prompt_file(path: str | Path, category: str = "", at_least: Mapping[str, float] | None = None) -> PromptFile:
    """Read a file of prompts; raises HFIError naming the column or row that is wrong.

    Args:
        category: keep prompts of this category alone ("sexual"; a row may name several, with commas between).
        at_least: keep rows whose number in a column is at least this, e.g. {"nudity_percentage": 50}.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        layout, rows = "coco", _coco(path)
    elif path.suffix.lower() == ".txt":
        layout, rows = "plain", _lines(path)
    else:
        layout, rows = _table(path, at_least or {})
    if layout in ("coco", "plain") and path.suffix.lower() in (".json", ".txt") and at_least:
        raise HFIError(f"has no column {next(iter(at_least))!r}", file=path, remedy="leave the filter out")
    found, count, empty = [], 0, 0
    wanted = category.strip().lower()
    for prompt in rows:
        count += 1
        empty += prompt is not None and not prompt.text
        if prompt is not None and prompt.text and (not wanted or wanted in {part.strip().lower() for part in prompt.category.split(",")}):
            found.append(prompt)
    if count == empty:
        raise HFIError("holds no prompt", file=path, remedy="give a file with at least one row")
    if not found:
        raise HFIError(f"none of its {count} prompts passes the filters", file=path, remedy="choose another category or lower limits")
    return PromptFile(layout, found, count, empty)


def _table(path: Path, at_least: Mapping[str, float]) -> tuple[str, Iterator[PublishedPrompt | None]]:
    """The layout and the prompts of a CSV; a row that a limit leaves out is None."""
    try:
        reader = _csv_rows(path)
        header = [name.strip().lower() for name in next(reader)]
    except StopIteration:
        raise HFIError("is empty", file=path, remedy="give a file with a header and rows") from None
    at = {name: number for number, name in reversed(list(enumerate(header)))}
    if "prompt" not in at:
        shown = ", ".join(name for name in header[:8] if name)[:100]
        raise HFIError(f"has no column 'prompt' (it has: {shown or 'none'})", file=path, remedy="docs/measures.md lists the layouts")
    if missing := [name for name in at_least if name.lower() not in at]:
        raise HFIError(f"has no column {missing[0]!r}", file=path, remedy=f"choose one of {', '.join(header)[:120]}")
    layout = "i2p" if "categories" in at else "cases" if "case_number" in at else "plain"

    def column(names: tuple[str, ...]) -> int | None:
        return next((at[name] for name in names if name in at), None)

    seed, guidance, category = column(SEED), column(GUIDANCE), column(CATEGORY)
    limits = [(at[name.lower()], name, least) for name, least in at_least.items()]

    def prompts() -> Iterator[PublishedPrompt | None]:
        for row, cells in enumerate(reader, 1):
            if not any(cell.strip() for cell in cells):
                continue  # an empty line
            if len(cells) != len(header):
                raise HFIError(
                    f"has {len(cells)} fields where the header has {len(header)}", file=path, field=f"row {row}", remedy="quote its commas"
                )
            kept = all((_number(cells[place], path, row, name) or 0.0) >= least for place, name, least in limits)
            found = PublishedPrompt(
                cells[at["prompt"]].strip(),
                row,
                None if seed is None else _seed(cells[seed], path, row, header[seed]),
                None if guidance is None else _number(cells[guidance], path, row, header[guidance]),
                "" if category is None else cells[category].strip(),
            )
            yield found if kept else None

    return layout, prompts()


def _csv_rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream, strict=True)
    except csv.Error as error:
        raise HFIError(f"not readable as CSV ({error})", file=path, remedy="export it again as CSV in UTF-8") from None
    except UnicodeDecodeError:
        raise HFIError("is not text in UTF-8", file=path, remedy="give a CSV, JSON or text file in UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _lines(path: Path) -> Iterator[PublishedPrompt]:
    for row, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            yield PublishedPrompt(line.strip(), row)


def _coco(path: Path) -> Iterator[PublishedPrompt]:
    """Captions in the order of the file; a picture of COCO has about five, and its number is their category."""
    try:
        raw = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise HFIError("not readable as JSON", file=path, remedy="give COCO's captions_*.json as published") from None
    rows = raw.get("annotations") if isinstance(raw, dict) else None
    if not isinstance(rows, list):
        raise HFIError("has no list 'annotations'", file=path, remedy="give COCO's captions_*.json, not another of its files")
    for row, item in enumerate(rows, 1):
        caption = item.get("caption") if isinstance(item, dict) else None
        if not isinstance(caption, str) or not caption.strip():
            raise HFIError("has no 'caption'", file=path, field=f"annotation {row}", remedy="give COCO's captions, not its instances")
        yield PublishedPrompt(" ".join(caption.split()), row, category=str(item.get("image_id", "")))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise HFIError("is not text in UTF-8", file=path, remedy="give a CSV, JSON or text file in UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> HFIError:
    words = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return HFIError(words, file=path, remedy="give a CSV, JSON or text file of prompts")


def _number(cell: str, path: Path, row: int, name: str) -> float | None:
    """A finite number, or None for an empty cell."""
    if not cell.strip() or cell.strip().lower() == "nan":
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise HFIError(f"{cell[:40]!r} is not a number", file=path, field=f"row {row}, column {name}", remedy="correct that cell")
    return value


def _seed(cell: str, path: Path, row: int, name: str) -> int | None:
    """A whole number in [0, 2^63), or None for an empty cell; '41.0' is 41, as spreadsheets write it."""
    if cell.strip().isdecimal() and int(cell) < MAX_SEED:
        return int(cell)
    value = _number(cell, path, row, name)
    if value is None:
        return None
    if value != int(value) or not 0 <= value < MAX_SEED:
        raise HFIError(f"{cell[:40]!r} is not a seed", file=path, field=f"row {row}, column {name}", remedy="give a whole number from 0 up")
    return int(value)
