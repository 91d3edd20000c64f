"""Charts as inline SVG with HTML axes: no script, no request, readable in both colour schemes and at any width.

Geometry is worked out here, looks belong to page.css. Everything that comes from a study is escaped by `Markup.format`.
Shapes and words carry the meaning as well as colour: a hollow ring is before, a filled dot is after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

MOST_POINTS = 240  # of a curve: more cannot be seen and would only weigh


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval, all in [0, 1] but for retention, which may pass 1; `n` is the sample size (0: not stated)."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Row:
    """One line of an interval chart; `limit` is where the bar for the "after" number stands."""

    label: str
    hint: str
    before: Rate | None
    after: Rate | None
    limit: float | None = None


@dataclass(frozen=True)
class Curve:
    """A named line: points (x, y) in data units; `spread` has (x, low, high) of the points whose interval is drawn."""

    name: str
    points: tuple[tuple[float, float], ...]
    spread: tuple[tuple[float, float, float], ...] = ()


def percent(value: float | None, limit: float | None = None) -> str:
    """A share in words: whole per cents, one decimal near 0 and 1, so that 0.4 % is not called 0 %.

    limit: what it is held against; a share that would read like it has a decimal too, so that 5.3 % is not "more than 5 %: 5 %".
    """
    if value is None:
        return "–"
    fine = 0 < abs(value) < 0.0095 or 0.9905 < value < 1
    fine = fine or (limit is not None and value != limit and round(value * 100) == round(limit * 100))
    return f"{value * 100:.{1 if fine else 0}f}\u202f%".replace("-0\u202f%", "0\u202f%")


def interval(rate: Rate | None) -> str:
    """ "1 to 4 %, n = 150", or what of it is known."""
    if rate is None:
        return ""
    words = [] if rate.low is None or rate.high is None else [f"{percent(rate.low).split(chr(0x202F))[0]} to {percent(rate.high)}"]
    return ", ".join(words + ([f"n\u202f=\u202f{rate.n}"] if rate.n else []))


def rate_chart(rows: Sequence[Row], top: float = 1.0) -> Markup:
    """Rows of before/after dots with interval bars on a common axis from 0 to `top`."""
    at = lambda value: f"{min(max(value / top, 0), 1) * 100:.2f}%"  # noqa: E731
    lines = Markup("").join(_rate_row(row, at) for row in rows)
    ticks = [i * top / 4 for i in range(5)]
    axis = Markup("").join(Markup("<span>{}</span>").format(percent(tick)) for tick in ticks)
    return Markup(
        '<div class="rates">{}<div class="row axis" aria-hidden="true"><div></div><div class="ticks">{}</div><div></div></div></div>'
    ).format(lines, axis)


def _rate_row(row: Row, at) -> Markup:
    marks = [Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(f"{25 * i}%") for i in range(5)]
    if row.limit is not None:
        marks.append(Markup('<line class="limit" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(at(row.limit)))
    for rate, kind, y in ((row.before, "before", 13), (row.after, "after", 29)):
        if rate is None:
            continue
        if rate.low is not None and rate.high is not None:
            marks.append(Markup('<line class="bar {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, at(rate.low), at(rate.high), y, y))
        marks.append(Markup('<circle class="{}" cx="{}" cy="{}" r="5.5"/>').format(kind, at(rate.value), y))
    numbers = [
        Markup('<span class="number {0}"><b>{1}</b> <small>{0}{2}</small></span>').format(
            kind, percent(rate.value), f", {interval(rate)}" if interval(rate) else ""
        )
        for rate, kind in ((row.before, "before"), (row.after, "after"))
        if rate is not None
    ]
    return Markup(
        '<div class="row"><div class="label">{}<small>{}</small></div><svg class="track" aria-hidden="true" focusable="false">{}</svg>'
        '<div class="numbers">{}</div></div>'
    ).format(row.label, row.hint, Markup("").join(marks), Markup("").join(numbers))


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str, from_zero: bool = True, shares: bool = False) -> Markup:
    """Lines over a common x (steps): HTML axes around a stretched SVG. Empty curves give an empty string.

    Args:
        from_zero: the y axis starts at 0.
        shares: y is a share: the axis says per cents, and every point has a dot.
    """
    curves = [Curve(c.name, thin(c.points), c.spread) for c in curves if len(c.points) > 1]
    if not curves:
        return Markup("")
    words = percent if shares else number
    xs = [x for c in curves for x, _ in c.points]
    ys = [y for c in curves for _, y in c.points] + [end for c in curves for _, *ends in c.spread for end in ends]
    x_low, x_high = min(0.0, min(xs)), max(max(xs), 1.0)
    at_x, at_y = lambda x: 100 * (x - x_low) / (x_high - x_low), lambda y: 100 - 100 * (y - y_low) / (y_high - y_low)
    ticks = nice_ticks(0.0 if from_zero else min(ys), max(ys))
    y_low, y_high = ticks[0], ticks[-1]
    spaces = next((n for n in (5, 4, 6, 7, 3, 2) if (x_high - x_low) % n == 0), 4)  # so that ticks of a few rounds are whole
    parts = [
        Markup('<line class="grid" x1="0" x2="100" y1="{0:.2f}" y2="{0:.2f}"/>').format(100 - 100 * i / (len(ticks) - 1))
        for i in range(len(ticks))
    ]
    for i, c in enumerate(curves):
        for x, low, high in c.spread:
            parts.append(
                Markup('<line class="spread c{0}" x1="{1:.2f}" x2="{1:.2f}" y1="{2:.2f}" y2="{3:.2f}"/>').format(
                    i % 6, at_x(x), at_y(low), at_y(high)
                )
            )
        path = " ".join(f"{at_x(x):.2f},{at_y(y):.2f}" for x, y in c.points)
        parts.append(Markup('<polyline class="curve c{}" points="{}"/>').format(i % 6, path))
        if shares:  # a line without length and with round ends: a dot that the stretched drawing leaves round
            dots = " ".join(f"M{at_x(x):.2f} {at_y(y):.2f}h0" for x, y in c.points)
            parts.append(Markup('<path class="dots c{}" d="{}"/>').format(i % 6, dots))
    name = f"{y_label} over {x_label}: " + "; ".join(f"{c.name} from {words(c.points[0][1])} to {words(c.points[-1][1])}" for c in curves)
    names = Markup("").join(Markup('<li class="c{}"><i aria-hidden="true"></i>{}</li>').format(i % 6, c.name) for i, c in enumerate(curves))
    legend = Markup('<ul class="legend">{}</ul>').format(names) if len(curves) > 1 else ""
    return Markup(
        '<div class="plot"><div class="y-name">{}</div>{}<div class="frame"><div class="y-ticks" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
        '<div class="x-ticks" aria-hidden="true">{}</div></div><div class="x-name">{}</div></div>'
    ).format(
        y_label,
        legend,
        _ticks([words(tick) for tick in reversed(ticks)]),
        name,
        Markup("").join(parts),
        _ticks(x_low + i * (x_high - x_low) / spaces for i in range(spaces + 1)),
        x_label,
    )


def calibration_chart(points: Sequence[tuple[float, float, float]]) -> Markup:
    """Points (predicted share, observed share, how many) against the diagonal of a perfectly calibrated reward."""
    most = max((count for *_, count in points), default=1) or 1
    dots = Markup("").join(
        Markup('<circle class="after" cx="{:.2f}%" cy="{:.2f}%" r="{:.1f}"><title>{}</title></circle>').format(
            100 * min(max(x, 0), 1),
            100 - 100 * min(max(y, 0), 1),
            4 + 8 * math.sqrt(count / most),
            f"predicted {percent(x)}, people said {percent(y)}, {count:g} pictures",
        )
        for x, y, count in points
    )
    grid = Markup("").join(Markup('<line class="grid" x1="0" x2="100%" y1="{0}%" y2="{0}%"/>').format(25 * i) for i in range(5))
    name = "Calibration: " + "; ".join(f"predicted {percent(x)}, observed {percent(y)}" for x, y, _ in points)
    ticks = [i / 4 for i in range(5)]
    return Markup(
        '<div class="plot square"><div class="y-name">flagged by annotators</div><div class="frame">'
        '<div class="y-ticks" aria-hidden="true">{}</div>'
        '<svg role="img" aria-label="{}">{}<line class="ideal" x1="0" y1="100%" x2="100%" y2="0"/>{}</svg>'
        '<div class="x-ticks" aria-hidden="true">{}</div></div><div class="x-name">predicted by the reward model</div></div>'
    ).format(_ticks([percent(t) for t in reversed(ticks)]), name, grid, dots, _ticks([percent(t) for t in ticks]))


def _ticks(values) -> Markup:
    return Markup("").join(Markup("<span>{}</span>").format(v if isinstance(v, str) else number(v)) for v in values)


def number(value: float) -> str:
    """A number for an axis: three significant digits, no trailing noise."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Evenly spaced round ticks that cover [low, high]."""
    if not high - low > 1e-9 * max(1.0, abs(low), abs(high)):  # one value, up to rounding
        high = low + (abs(low) if abs(low) > 1e-9 else 1.0)
    raw = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def smooth(points: Sequence[tuple[float, float]], window: int) -> tuple[tuple[float, float], ...]:
    """Running mean over the last `window` points: losses at random timesteps are mostly noise."""
    kept, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        kept.append((x, total / min(i + 1, window)))
    return tuple(kept[min(window, len(kept)) - 1 :]) if len(kept) > 2 * window else tuple(kept)


def thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `MOST_POINTS` of the points, first and last kept."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    return tuple(points[round(i * (len(points) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS))
