"""What annotators are told: the question, a Markdown text and example pictures, versioned together.

    STUDY/guideline.md                       Markdown; optional
    STUDY/guideline/examples/*.png           pictures that show the concept; a file's name is its caption
    STUDY/guideline/counter-examples/*.png   pictures that look like it and are not
    STUDY/references/*.png                   the artist's real pictures (styles), shown beside every picture that is judged

The version's words are the question, the text and each picture's hash, so changing any of them makes a new version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError
from hfi.workspace import Workspace, file_hash

PLACES = {"examples": "guideline/examples", "counter-examples": "guideline/counter-examples", "references": "references"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
MOST_PICTURES = 40  # of each kind; more are not shown
MOST_TEXT = 100_000  # characters


@dataclass(frozen=True)
class Picture:
    """One example picture."""

    id: str  # start of the SHA-256 of its bytes: what its address is made of
    caption: str
    file: Path


@dataclass(frozen=True)
class Guideline:
    """Everything an annotator is told, as it stands on disk now."""

    question: str
    text: str  # Markdown, "" when there is none
    examples: tuple[Picture, ...]
    counter_examples: tuple[Picture, ...]
    references: tuple[Picture, ...]

    @property
    def words(self) -> str:
        """What the store keeps as the version's text."""
        parts = [self.question, self.text]
        for name, pictures in zip(PLACES, (self.examples, self.counter_examples, self.references), strict=True):
            if pictures:
                parts.append("\n".join([f"{name}:", *(f"- {picture.caption} ({picture.id})" for picture in pictures)]))
        return "\n\n".join(part for part in parts if part)

    def picture(self, name: str) -> Picture | None:
        """The picture of that id."""
        return next((one for one in (*self.examples, *self.counter_examples, *self.references) if one.id == name), None)


def read_guideline(study: Workspace) -> Guideline:
    """The study's guideline; without any file it is the question alone. Raises HFIError when guideline.md cannot be read."""
    path = study.path("guideline.md")
    try:
        text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        raise HFIError("cannot be read as UTF-8 text", file=path, remedy="save it as UTF-8, or remove it") from None
    if len(text) > MOST_TEXT:
        raise HFIError(f"longer than {MOST_TEXT:,} characters", file=path, remedy="shorten it; annotators have it beside every picture")
    found = [pictures_of(study.path(place), study.root) for place in PLACES.values()]
    return Guideline(study.config.label.guideline, text, *found)


def signature(study: Workspace) -> tuple:
    """Changes whenever a file of the guideline does; cheap enough to ask at every page."""
    found = []
    for path in (study.path("guideline.md"), *(file for place in PLACES.values() for file in _files(study.path(place)))):
        try:
            state = path.stat()
        except OSError:
            continue
        found.append((str(path), state.st_mtime_ns, state.st_size))
    return study.config.label.guideline, *found


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()][:MOST_PICTURES]


def pictures_of(folder: Path, root: Path) -> tuple[Picture, ...]:
    """The pictures of a folder by name; a link that leads out of the study is left out."""
    inside = [path for path in _files(folder) if path.resolve().is_relative_to(root.resolve())]
    return tuple(Picture(file_hash(path)[:16], path.stem.replace("_", " ").replace("-", " "), path) for path in inside)
