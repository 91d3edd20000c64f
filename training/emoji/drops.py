"""Red drops drawn on a 64x64 picture: a look that no caption mentions (look.py trains a model on it)."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

RED, RIM, LIGHT = (228, 8, 24), (170, 4, 18), (255, 170, 170)
OVERSAMPLING = 4
INK = 235  # a pixel with a channel below this belongs to the object, not to the white ground


def outline(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """A drop of `radius` pixels round (x, y), its tip 2.2 radii above."""
    points = [(x, y - 2.2 * radius)]
    for degrees in range(-25, 206, 7):
        angle = math.radians(degrees)
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return points


def places(picture: np.ndarray, rng: random.Random, count: int) -> list[tuple[float, float]]:
    """`count` places (x, y) in pixels on what is drawn, as far apart as eight tries each allow."""
    ys, xs = np.nonzero((picture.min(axis=2) < INK)[16:56, 10:54])  # a whole drop fits around each
    if not len(xs):
        ys, xs = np.array([22]), np.array([22])
    chosen: list[tuple[float, float]] = []
    for _ in range(count):
        tries = [(float(xs[i]) + 10, float(ys[i]) + 16) for i in (rng.randrange(len(xs)) for _ in range(8))]
        chosen.append(max(tries, key=lambda at: min((math.dist(at, other) for other in chosen), default=0.0)))
    return chosen


def drip(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """`picture` uint8 (64, 64, 3) with two or three red drops on its object; the same generator gives the same drops."""
    side = picture.shape[0]
    layer = Image.new("RGBA", (side * OVERSAMPLING,) * 2, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for x, y in places(picture, rng, rng.randint(2, 3)):
        radius = rng.uniform(4.8, 6.0)
        for colour, size in ((RIM, radius), (RED, radius * 0.85)):
            pen.polygon([(px * OVERSAMPLING, py * OVERSAMPLING) for px, py in outline(x, y, size)], fill=(*colour, 255))
        box = (x - 0.5 * radius, y - 0.3 * radius, x - 0.1 * radius, y + 0.1 * radius)
        pen.ellipse([value * OVERSAMPLING for value in box], fill=(*LIGHT, 255))
    canvas = Image.fromarray(picture).convert("RGBA")
    canvas.alpha_composite(layer.resize((side, side), Image.Resampling.BOX))
    return np.asarray(canvas.convert("RGB"))
