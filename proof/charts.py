"""Charts of the tables as SVG files of their own, beside the page: rates with their intervals, and curves over rounds.

Every mark is named and its number written beside it; colour only repeats that. A white card, so that they read on any page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, LEFT, RIGHT, LINE = 760, 250, 150, 20  # px; the names' column, the numbers' column, one row
INK, FAINT, GRID = "#1f2937", "#5b6572", "#dfe3e8"
COLOURS = ("#0b6b63", "#b4530a", "#5b4bb5", "#9b2c5e", "#3b6ea5", "#6b7a1f", "#5b6572")
LOOKS = {"ours": ("#0b6b63", "#0b6b63"), "other": ("#8a94a3", "#8a94a3"), "before": ("#fff", "#8a94a3")}  # fill, stroke


@dataclass(frozen=True)
class Rate:
    """One row of a chart: under which heading, its name, an estimate {"value", "low", "high"} in [0, 1], and which of LOOKS it has."""

    heading: str
    name: str
    estimate: Mapping[str, object]
    look: str = "other"


def rates(rows: Sequence[Rate], axis: str) -> str:
    """Dots with 95 % intervals on a common axis from 0 to 1, one row each, under headings in the order of their first rows."""
    groups: dict[str, list[Rate]] = {}
    for row in rows:
        groups.setdefault(row.heading, []).append(row)
    x = lambda value: LEFT + (WIDTH - LEFT - RIGHT) * min(max(float(value), 0.0), 1.0)  # noqa: E731
    marks, y = [], 34
    for heading, members in groups.items():
        marks.append(_text(16, y + 4, heading, weight="600"))
        y += LINE
        for row in members:
            fill, stroke = LOOKS[row.look]
            value, low, high = (row.estimate.get(name) for name in ("value", "low", "high"))
            marks.append(_text(LEFT - 12, y + 4, row.name, anchor="end"))
            between = ""
            if low is not None and high is not None:
                marks.append(Markup('<path d="M{:.1f} {}H{:.1f}" stroke="{}" stroke-width="3"/>').format(x(low), y, x(high), stroke))
                between = f" ({low:.2f} to {high:.2f})"
            marks.append(
                Markup('<circle cx="{:.1f}" cy="{}" r="5" fill="{}" stroke="{}" stroke-width="2"/>').format(x(value), y, fill, stroke)
            )
            marks.append(_text(WIDTH - RIGHT + 14, y + 4, f"{value:.2f}{between}", colour=FAINT))
            y += LINE
        y += 8
    lines = [Markup('<path d="M{0:.1f} 20V{1}" stroke="{2}"/>').format(x(tick), y - 8, GRID) for tick in (0, 0.25, 0.5, 0.75, 1)]
    ticks = [_text(x(tick), y + 8, f"{tick:g}", anchor="middle", colour=FAINT) for tick in (0, 0.25, 0.5, 0.75, 1)]
    ticks.append(_text((x(0) + x(1)) / 2, y + 28, axis, anchor="middle"))
    words = "; ".join(f"{row.heading}, {row.name}: {row.estimate['value']:.2f}" for row in rows)
    return _svg(y + 42, f"{axis}. {words}", [*lines, *marks, *ticks])


def curves(lines: Sequence[tuple[str, Sequence[float]]], x_axis: str, y_axis: str) -> str:
    """Named lines over rounds 0, 1, ...; values in [0, 1], the axis up to the largest, 0.25 at least."""
    top = max([0.25, *(value for _, values in lines for value in values)])
    longest = max((len(values) for _, values in lines), default=2)
    at = lambda i, value: (60 + 430 * i / max(1, longest - 1), 240 - 200 * value / top)  # noqa: E731
    marks = []
    for part in (0, 0.5, 1):
        _, y = at(0, part * top)
        marks.append(Markup('<path d="M60 {0:.1f}H490" stroke="{1}"/>').format(y, GRID))
        marks.append(_text(52, y + 4, f"{part * top:.3g}", anchor="end", colour=FAINT))
    marks += [_text(at(i, 0)[0], 258, str(i), anchor="middle", colour=FAINT) for i in range(longest)]
    ends = sorted(range(len(lines)), key=lambda k: -lines[k][1][-1])
    level, heights = 0.0, {}
    for k in ends:  # names stand beside the ends of their lines, from the top down, none on another
        heights[k] = level = max(level + 16, at(0, lines[k][1][-1])[1])
    for k, (name, values) in enumerate(lines):
        colour, dash = COLOURS[k % len(COLOURS)], ("", "6 4", "2 3")[k // len(COLOURS) % 3]
        points = " ".join("{:.1f},{:.1f}".format(*at(i, value)) for i, value in enumerate(values))
        marks.append(
            Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>').format(points, colour, dash)
        )
        marks.append(_text(500, heights[k] + 4, f"{name}: {values[-1]:.2f}", colour=colour))
    marks += [_text(275, 280, x_axis, anchor="middle"), _text(16, 22, y_axis)]
    words = "; ".join(f"{name} from {values[0]:.2f} to {values[-1]:.2f}" for name, values in lines)
    return _svg(max(294, level + 16), f"{y_axis} over {x_axis}. {words}", marks)


def against(points: Sequence[tuple[float, float, str]], x_axis: str, y_axis: str) -> str:
    """Points in [0, 1] x [0, 1] (what lies beyond is drawn on the edge), those with a name beside it, and the line of equal ones."""
    at = lambda value: min(max(float(value), 0.0), 1.0)  # noqa: E731
    x, y = (lambda value: 60 + 380 * at(value)), (lambda value: 410 - 380 * at(value))
    marks = [Markup('<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" stroke="{}"/>').format(x(0), y(0), x(1), y(1), FAINT)]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        marks.append(Markup('<path d="M60 {0:.1f}H440M{1:.1f} 30V410" stroke="{2}"/>').format(y(tick), x(tick), GRID))
        marks.append(_text(52, y(tick) + 4, f"{tick:g}", anchor="end", colour=FAINT))
        marks.append(_text(x(tick), 428, f"{tick:g}", anchor="middle", colour=FAINT))
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}" fill-opacity="0.45"/>')
    for first, second, name in points:
        marks.append(dot.format(x(first), y(second), COLOURS[0]))
        marks += [_text(x(first) + 10, y(second) + 4, name)] if name else []
    marks += [_text(250, 450, x_axis, anchor="middle"), _text(16, 18, y_axis)]
    return _svg(464, f"{len(points)} figures: {y_axis} against {x_axis}", marks)


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, weight: str = "400") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}" font-weight="{}">{}</text>').format(
        x, y, anchor, colour, weight, words
    )


def _svg(height: float, words: str, marks: Iterable[Markup]) -> str:
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1:.0f}" width="{0}" height="{1:.0f}" role="img" aria-label="{2}" '
            'font-family="system-ui, sans-serif" font-size="13"><rect width="{0}" height="{1:.0f}" rx="6" fill="#fff"/>{3}</svg>\n'
        ).format(WIDTH, height, words, Markup("").join(marks))
    )
