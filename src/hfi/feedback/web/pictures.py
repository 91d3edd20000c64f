"""Picture files, by image id only: a path never comes from a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import FileResponse

from hfi.feedback.events import Unknown
from hfi.feedback.web.guard import needs
from hfi.feedback.web.state import Person, State

router = APIRouter()
Annotator = Annotated[Person, Depends(needs("annotator"))]
MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))
CACHE = {"cache-control": "private, max-age=3600"}  # the pictures of an id never change; kept by this browser alone
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


@router.get("/image/{name}", response_class=FileResponse)
def image(request: Request, name: Name, person: Annotator) -> FileResponse:
    """A picture of the study."""
    state: State = request.app.state.hfi
    file = state.store.image_file(name)
    if file is None:
        raise Unknown("no such picture")
    root = state.study.root.resolve()
    path = (root / file).resolve()
    if not path.is_relative_to(root) or (kind := _kind(path)) is None:
        raise Unknown("that picture's file is missing, or is no picture")
    return FileResponse(path, media_type=kind, headers=CACHE)


@router.get("/guideline/picture/{name}", response_class=FileResponse)
def example(request: Request, name: Annotated[str, Path(pattern="^[0-9a-f]{16}$")], person: Annotator) -> FileResponse:
    """An example picture of the guideline."""
    state: State = request.app.state.hfi
    found = next((one for round in state.rounds() if (one := state.guideline(round)[0].picture(name))), None)
    if found is None or (kind := _kind(found.file)) is None:
        raise Unknown("no such picture")
    return FileResponse(found.file, media_type=kind, headers=CACHE)


def _kind(path) -> str | None:
    """The media type by the file's own first bytes; None for anything that is no picture (an SVG can hold scripts: no)."""
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return None
    found = next((kind for magic, kind in MAGIC if start.startswith(magic)), None)
    return None if found == "image/webp" and start[8:12] != b"WEBP" else found
