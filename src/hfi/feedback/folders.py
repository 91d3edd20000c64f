"""Folders of pictures that people bring: sorted into yes/no, or a Hugging Face imagefolder with metadata.

Nothing in such a folder is trusted: names are looked up and shown, never executed or used as paths outside the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hfi.errors import HFIError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_FILES = 1_000_000
# words that a folder (or a class) may be called by; the concept's own name means present as well
YES = ("present", "yes", "true", "1", "positive", "unsafe", "nsfw", "flagged", "bad")
NO = ("absent", "no", "false", "0", "negative", "safe", "sfw", "clean", "good", "benign", "other", "none", "neutral")
UNSURE, SKIP = ("unsure", "undecided", "maybe", "unknown"), ("skip", "skipped", "x")
SPLITS = ("train", "test", "validation", "valid", "val", "dev", "data", "images")  # folders that say nothing about the picture


@dataclass(frozen=True)
class Labelled:
    """One picture of a folder with what is said of it."""

    file: Path
    source: str  # its place in the folder, with slashes
    rows: tuple[dict, ...] = field(default=())  # judgement rows without the image (hfi.feedback.rows); empty: nobody judged it
    prompt: str = ""
    image: str | None = None  # its id in the study that wrote the folder, where one did


def word_to_label(word: str, concept: str) -> str | None:
    """What a folder's or a class's name says of its pictures: present, absent, unsure or skip; None when it says nothing.

    "not-weapon", "no weapon" and "without_weapon" are absent where the concept is "weapon".
    """
    plain = " ".join(word.lower().replace("_", " ").replace("-", " ").split())
    name = " ".join(concept.lower().replace("_", " ").replace("-", " ").split())
    for label, words in (("present", (*YES, name, f"has {name}", f"with {name}")), ("unsure", UNSURE), ("skip", SKIP)):
        if plain in words:
            return label
    return "absent" if plain in (*NO, *(f"{start} {name}" for start in ("no", "not", "non", "without"))) else None


def pictures_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, place in the folder) of every picture, sorted; hidden files and links that lead elsewhere are left out."""
    root, count = folder.resolve(), 0
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        if file.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in place.parts) or not file.is_file():
            continue
        if not file.resolve().is_relative_to(root):
            continue
        count += 1
        if count > MOST_FILES:
            raise HFIError(f"holds more than {MOST_FILES:,} pictures", file=folder, remedy="bring fewer at once")
        yield file, place.as_posix()


def read_sorted(folder: Path, concept: str) -> list[Labelled]:
    """The pictures of a folder, labelled by the folder that each lies in; those in no folder that says a label have none.

    Raises HFIError when there is no picture, and when a folder of pictures has a name that means nothing here while others do.
    """
    found, named, odd = [], False, ""
    for file, place in pictures_in(folder):
        parents = [part for part in place.split("/")[:-1] if part.lower() not in SPLITS]
        label = next((said for part in reversed(parents) if (said := word_to_label(part, concept))), None)
        named = named or label is not None
        odd = odd or (parents[-1] if label is None and parents else "")
        found.append(Labelled(file, place, ({"label": label},) if label else ()))
    if not found:
        raise HFIError("holds no picture", file=folder, remedy=f"bring {', '.join(SUFFIXES)} files, e.g. in folders 'yes' and 'no'")
    if odd and named:
        raise HFIError(f"the folder {odd!r:.80} says neither yes nor no", file=folder,
                       remedy=f"call its folders yes and no ({concept!r:.40} and 'not {concept:.40}' will do, too), or take it out")
    return found

