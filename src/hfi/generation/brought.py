"""Pictures that people bring instead of having the model draw them: STUDY/pictures, judged and inverted like drawn ones.

Needs no torch. Each file is decoded, turned upright and written again as PNG, so that no metadata (place, camera, owner) and nothing
but pixels comes into the study. A picture's id is a hash of its pixels: the same picture twice is one picture.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfi.errors import HFIError
from hfi.workspace import Workspace, write_bytes

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "pictures"
MOST_SIDE = 1024  # pixels; larger pictures are made smaller


@dataclass(frozen=True)
class Brought:
    """One picture that somebody brings."""

    file: Path
    source: str  # where it lay, relative to what was brought; only to find it again
    prompt: str = ""  # where it came from a text-to-image model and that is known


def normalised(file: Path) -> Image.Image:
    """A stranger's picture as plain RGB pixels, upright, at most MOST_SIDE long; raises HFIError naming the file."""
    from PIL import Image, ImageOps

    from hfi.perception.pictures import open_picture

    picture = ImageOps.exif_transpose(open_picture(file))
    picture.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    return Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())  # pixels alone, no metadata


def picture_id(picture: Image.Image) -> str:
    """16 hex digits that name a picture by its pixels."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


def add_pictures(study: Workspace, pictures: Iterable[Brought]) -> dict[str, str]:
    """Put pictures into the study; returns {source: picture id}. What is there already stays as it is.

    Raises HFIError naming the first file that is no picture; then the study's list of pictures is unchanged.
    """
    from hfi.progress import track  # here, for the labelling page starts with this module, and rich is slow to import

    known = {row["id"]: row for row in brought(study)}
    found: dict[str, str] = {}
    for one in track(list(pictures), "Reading pictures"):
        picture = normalised(one.file)
        name = picture_id(picture)
        found[one.source] = name
        if name not in known:
            stream = io.BytesIO()
            picture.save(stream, "PNG")
            write_bytes(study.path(FOLDER, "images", f"{name}.png"), stream.getvalue())
            known[name] = {"id": name, "file": f"images/{name}.png", "source": one.source[:200], "prompt": one.prompt[:2000]}
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in known.values())
    write_bytes(study.path(FOLDER, "images.jsonl"), lines.encode())
    return found


def brought(study: Workspace) -> list[Mapping[str, str]]:
    """The pictures of STUDY/pictures: {"id", "file" relative to that folder, "source", "prompt"}; empty when there are none."""
    path = study.path(FOLDER, "images.jsonl")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{key: str(row[key]) for key in ("id", "file", "source", "prompt")} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise HFIError("half-written or damaged", file=path, remedy="delete the folder pictures/ and bring the pictures again") from None
