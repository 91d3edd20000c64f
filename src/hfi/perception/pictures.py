"""Open a picture file that a stranger may have written: truncated files and decompression bombs are named, never decoded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hfi.errors import HFIError

MAX_PIXELS = 32_000_000  # 5600 x 5600; about 100 MB once decoded
FORMATS = ("PNG", "JPEG", "WEBP")


def open_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB; transparency is laid over white.

    Args:
        path: a PNG, JPEG or WebP file.
        max_pixels: width x height above which the file is refused before its pixels are decoded.

    Raises HFIError naming the file when it is missing, truncated, too large or not a picture.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise HFIError(
                        f"a picture of {width} x {height} pixels, more than the {max_pixels:,} that are decoded",
                        file=path,
                        remedy="make it smaller, or remove it",
                    )
                picture.load()
                return _to_rgb(picture)
    except FileNotFoundError:
        raise HFIError("no such picture", file=path, remedy="restore the file, or run 'hfi generate' again") from None
    except Image.DecompressionBombError:
        raise HFIError(f"declares far more than {max_pixels:,} pixels (a decompression bomb?)", file=path, remedy="remove it") from None
    except Image.UnidentifiedImageError:
        raise HFIError("not a PNG, JPEG or WebP picture", file=path, remedy="convert it, or remove it") from None
    except (OSError, SyntaxError, ValueError, MemoryError) as error:  # what Pillow's decoders raise on damaged files
        raise HFIError(
            f"truncated or damaged picture ({str(error)[:80] or type(error).__name__})", file=path, remedy="get a whole copy, or remove it"
        ) from None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def to_tensor(pictures: Sequence[Image.Image]):
    """Pictures of one size as (B, 3, H, W) float32 in [0, 1]."""
    import numpy
    import torch

    stack = numpy.stack([numpy.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255
