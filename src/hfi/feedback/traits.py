"""What pictures are like, whatever people say of them: style and object asked for, cluster of the reward; to find biased annotators."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from hfi.workspace import Workspace

SOURCES = (  # file, the field with the picture's id, fields that are traits
    ("generate/images.jsonl", "id", ("style", "object")),
    ("reward/scores.jsonl", "image", ("cluster",)),
)


def traits(study: Workspace) -> dict[str, dict[str, str]]:
    """{trait: {image id: value}}; a trait that no picture has is left out, and so is a damaged file: traits only ever add a hint."""
    found: dict[str, dict[str, str]] = {}
    for file, key, names in SOURCES:
        path = study.path(file)
        try:
            stamp = path.stat()
        except OSError:
            continue
        found |= _read(path, stamp.st_mtime_ns, stamp.st_size, key, names)
    return {name: values for name, values in found.items() if values}


@lru_cache(maxsize=8)
def _read(path: Path, _time: int, _size: int, key: str, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                for name in names:
                    if row.get(name) is not None:
                        found[name][str(row[key])] = str(row[name])
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
    return found
