"""A picture of the top-K, so that a person can veto one before anything is trained; and a blurred copy for reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hfi.perception.pictures import open_picture
from hfi.reward.topk import Selected
from hfi.workspace import write_bytes

SIDE, LINE, MARGIN, COLUMNS = 112, 13, 6, 8
BLUR = SIDE / 8


def write_contact_sheets(selected: Sequence[Selected], paths: Sequence[Path], title: str, folder: Path) -> None:
    """Write contact_sheet.png and contact_sheet.blurred.png: picture, id, reward r, weight w and cluster of each."""
    pictures = []
    for path in paths:
        picture = open_picture(path)
        picture.thumbnail((SIDE, SIDE))
        pictures.append(picture if max(picture.size) >= SIDE else picture.resize(_enlarged(picture.size), Image.Resampling.NEAREST))
    for name, blurred in (("contact_sheet.png", False), ("contact_sheet.blurred.png", True)):
        stream = io.BytesIO()
        _sheet(selected, pictures, title, blurred).save(stream, "PNG")
        write_bytes(folder / name, stream.getvalue())


def _enlarged(size: tuple[int, int]) -> tuple[int, int]:
    factor = max(1, SIDE // max(size))
    return size[0] * factor, size[1] * factor


def _sheet(selected: Sequence[Selected], pictures: Sequence[Image.Image], title: str, blurred: bool) -> Image.Image:
    columns = min(COLUMNS, max(1, len(selected)))
    rows = -(-len(selected) // columns)
    cell_width, cell_height = SIDE + 2 * MARGIN, SIDE + 2 * LINE + 2 * MARGIN
    font = ImageFont.load_default(size=10)
    head = 2 * LINE
    width = max(columns * cell_width, int(font.getlength(title)) + 2 * MARGIN)
    sheet = Image.new("RGB", (width, head + max(1, rows) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, "black", font)
    for number, (one, picture) in enumerate(zip(selected, pictures, strict=True)):
        left, top = number % columns * cell_width + MARGIN, head + number // columns * cell_height + MARGIN
        shown = picture.filter(ImageFilter.GaussianBlur(BLUR)) if blurred else picture
        sheet.paste(shown, (left + (SIDE - shown.width) // 2, top + (SIDE - shown.height) // 2))
        draw.text((left, top + SIDE), one.image_id[:18], "black", font)
        draw.text((left, top + SIDE + LINE), f"r {one.reward:.2f}  w {one.weight:.2f}  c {one.cluster}", "dimgray", font)
    return sheet
