"""Pictures for the page, as data URIs: a clear one, and for a flagged picture one that is blurred for good.

The blurred one is averaged to five pixels across, so nothing of the picture can be got back from it; the clear bytes lie in the page
too (it is one file), but no browser decodes or shows them before a person asks.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from hfi.perception.pictures import open_picture

LARGEST = 320  # pixels across for one picture; larger ones are shrunk, or a page of SD pictures would weigh too much
LARGEST_SHEET = 1100  # of a sheet of many pictures
BLURRED_ACROSS, BLURRED_SHEET = 5, 14


@dataclass(frozen=True)
class Shown:
    """A picture as the page holds it: data URIs, size in pixels; `blurred` is empty for a picture nobody needs to be asked for."""

    clear: str
    blurred: str
    width: int
    height: int


def shown(path: Path, flagged: bool, largest: int = LARGEST, across: int = BLURRED_ACROSS) -> Shown:
    """A picture file for the page; a flagged one gets a blurred twin, `across` pixels wide before it is scaled up."""
    picture = open_picture(path)
    picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return Shown(data_uri(picture), data_uri(blurred(picture, across)) if flagged else "", *picture.size)


def sheet(path: Path) -> Shown | None:
    """A sheet of flagged pictures with its blurred twin; None where there is no such file.

    A stage may leave a blurred copy whose captions can be read (NAME.blurred.png): then that one is shown.
    """
    if not path.exists():
        return None
    twin = path.with_suffix(".blurred.png")
    if not twin.exists():
        return shown(path, True, LARGEST_SHEET, BLURRED_SHEET)
    clear, soft = open_picture(path), open_picture(twin)
    for picture in (clear, soft):
        picture.thumbnail((LARGEST_SHEET, 3 * LARGEST_SHEET), Image.Resampling.LANCZOS)
    return Shown(data_uri(clear), data_uri(soft), *clear.size)


def blurred(picture: Image.Image, across: int = BLURRED_ACROSS) -> Image.Image:
    """The picture averaged down to `across` pixels: what is left is colour, not content."""
    height = max(1, round(across * picture.height / picture.width))
    small = picture.resize((across, height), Image.Resampling.BOX)
    return small.resize((across * 6, height * 6), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(4))


def data_uri(picture: Image.Image) -> str:
    """The picture as a `data:` address: WebP where Pillow has it, else JPEG."""
    stream = io.BytesIO()
    kind = "WEBP" if features.check("webp") else "JPEG"
    picture.save(stream, kind, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


@dataclass(frozen=True)
class Column:
    """One column of the before/after strip."""

    before: Path
    after: Path
    caption: str
    flagged_before: bool
    flagged_after: bool


def strip(groups: list[tuple[str, list[Column]]], blur: bool, tile: int = 128) -> Image.Image:
    """Two rows, before and after, one column per pair, the groups side by side under their headings; white ground."""
    gap, margin, head, foot, side = 8, 20, 34, 26, 58
    between = 28
    counts = [len(columns) for _, columns in groups]
    width = side + margin + sum(n * tile + (n - 1) * gap for n in counts) + between * (len(groups) - 1) + margin
    sheet = Image.new("RGB", (width, margin + head + 2 * tile + gap + foot + margin // 2), "white")
    draw = ImageDraw.Draw(sheet)
    heading, small = ImageFont.load_default(17), ImageFont.load_default(13)
    top = margin + head
    for row, word in enumerate(("before", "after")):
        draw.text((margin // 2, top + row * (tile + gap) + tile // 2), word, "#3b4552", heading, anchor="lm")
    x = side + margin
    for name, columns in groups:
        draw.text((x, margin), name, "#1d2430", heading)
        for column in columns:
            for row, (path, flagged) in enumerate(((column.before, column.flagged_before), (column.after, column.flagged_after))):
                picture = open_picture(path)
                if blur and flagged:
                    picture = blurred(picture)
                place = (x, top + row * (tile + gap))
                sheet.paste(picture.resize((tile, tile), Image.Resampling.BICUBIC), place)
                draw.rectangle((*place, place[0] + tile - 1, place[1] + tile - 1), outline="#d9dde3")
            draw.text((x + tile // 2, top + 2 * tile + gap + 6), _fitting(column.caption, small, tile), "#5b6572", small, anchor="mt")
            x += tile + gap
        x += between - gap
    return sheet


def _fitting(words: str, font, width: int) -> str:
    """The words, cut with an ellipsis where they are wider than `width` pixels."""
    words = "".join(c if c.isprintable() else " " for c in words)
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1]
    return words.rstrip() + "…"
