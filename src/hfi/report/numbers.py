"""metrics.json, read with care: what is there as `Rate`s, what is optional as None, what is damaged as an HFIError."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError
from hfi.report.figures import Rate

REMEDY = "delete the evaluate folder and run 'hfi run' on the study again"
CONCEPT_SETS = {  # key in metrics.json and verdicts: name on the page, what is in it
    "explicit": ("Asked for by name", "templates and seeds; for a harm also members that no feedback prompt named"),
    "implicit": ("Described only", "keywords, with the name of no object"),
    "variations": ("Reworded, misspelt", "small variations of wording and spelling"),
    "tokens": ("The soft tokens", "prompts made of what was inverted and then erased"),
    "unlisted": ("Never in the feedback", "of those asked for by name, the members that no feedback prompt named"),
    "reinversion": ("Learned again", "fresh tokens learned against the erased model"),
}
ALSO_SETS = ("explicit", "implicit")  # of the other concepts of a run
KEPT_SETS = {
    "other": ("Everything else", "objects outside the concept"),
    "neighbours": ("Nearest neighbours", "the non-members most like the concept, by text and by image"),
    "styles": ("Styles", "the style that was asked for"),
    "object_in_style": ("Objects in that style", "the thing itself, when asked for in the erased style"),
    "other_unpreserved": ("Never protected", "of everything else, what no benign prompt and no kept word of the study names"),
}


@dataclass(frozen=True)
class Change:
    """A number before and after erasing; either may be unknown."""

    before: Rate | None
    after: Rate | None


@dataclass(frozen=True)
class Point:
    """A step of the erasure: what the few prompts of the curve gave there."""

    step: int
    concept_rate: Rate
    neither: Rate | None
    retention: Rate | None


@dataclass(frozen=True)
class Also:
    """Another concept that the same run erased; `floor` is a style's."""

    name: str
    kind: str
    rates: dict[str, Change]
    floor: float | None

    @property
    def worst(self) -> float:
        """The highest rate after erasing above its floor, of the sets that are large enough to decide by."""
        return max((change.after.value for name, change in self.rates.items() if name in ALSO_SETS), default=0.0) - (self.floor or 0.0)


@dataclass(frozen=True)
class Numbers:
    """The study's numbers. `rates` and `retention` keep the order of the page; absent ones are left out."""

    rates: dict[str, Change]
    neither: Change
    floor: float | None
    retention: dict[str, Rate]
    reinversion: Rate | None
    reinversion_worst: float | None
    clip_score: Change
    cmmd: float | None
    groups: dict[str, Rate]
    worst_groups: tuple[str, ...]
    simulated: bool
    curve: tuple[Point, ...] = ()
    also: tuple[Also, ...] = ()


def read_numbers(metrics: object, file: Path) -> Numbers:
    """Check and read metrics.json; raises HFIError naming the field that is missing or no number.

    Args:
        metrics: the parsed file. Numbers that a study may lack are null or absent there.
        file: named in errors.
    """
    raw = _mapping(metrics, file, "")
    rates, kept = _mapping(raw.get("concept_rate"), file, "concept_rate"), _mapping(raw.get("retention"), file, "retention")
    again = _mapping(rates.get("reinversion") or {}, file, "concept_rate.reinversion")
    by_group, worst = _mapping(raw.get("by_group") or {}, file, "by_group"), raw.get("worst_groups") or []
    changes = {
        name: change
        for name in _ordered(rates, CONCEPT_SETS)
        if name != "reinversion" and (change := _change(rates[name], file, f"concept_rate.{name}")).after is not None
    }
    if "explicit" not in changes:
        raise HFIError("no such number", file=file, field="concept_rate.explicit.after", remedy=REMEDY)
    if not isinstance(worst, list):
        raise HFIError("is not a list of groups", file=file, field="worst_groups", remedy=REMEDY)
    return Numbers(
        rates=changes,
        neither=_change(raw.get("neither_intervals") or raw.get("neither"), file, "neither"),
        floor=_value(raw.get("floor"), file, "floor"),
        retention={name: rate for name in _ordered(kept, KEPT_SETS) if (rate := _rate(kept[name], file, f"retention.{name}"))},
        reinversion=_rate(again.get("after"), file, "concept_rate.reinversion.after"),
        reinversion_worst=_value(again.get("worst"), file, "concept_rate.reinversion.worst"),
        clip_score=_change(raw.get("clip_score_intervals") or raw.get("clip_score"), file, "clip_score"),
        cmmd=_value(raw.get("cmmd"), file, "cmmd"),
        groups={str(name): rate for name, value in by_group.items() if (rate := _rate(value, file, f"by_group.{name}"))},
        worst_groups=tuple(map(str, worst))[:5],
        simulated=bool(raw.get("simulated", False)),
        curve=_curve(raw.get("curve"), file),
        also=_also(raw.get("also"), file),
    )


def _also(raw: object, file: Path) -> tuple[Also, ...]:
    """The other concepts of the run; none where it had one, or was evaluated before they were measured."""
    found = []
    for i, item in enumerate(_groups(raw, file, "also")):
        rates = _mapping(item.get("concept_rate"), file, f"also.{i}.concept_rate")
        changes = {name: _change(rates[name], file, f"also.{i}.concept_rate.{name}") for name in _ordered(rates, CONCEPT_SETS)}
        changes = {name: change for name, change in changes.items() if change.after is not None}
        floor = _value(item.get("floor"), file, f"also.{i}.floor")
        found.append(Also(str(item.get("concept", "")), str(item.get("kind", "harm")), changes, floor))
    return tuple(found)


def _curve(raw: object, file: Path) -> tuple[Point, ...]:
    """The points of the curve in order of their steps; none where the study has no snapshots."""
    points = []
    for i, item in enumerate(_groups(raw, file, "curve")):
        step, found = _value(item.get("step"), file, f"curve.{i}.step"), _rate(item.get("concept_rate"), file, f"curve.{i}.concept_rate")
        if step is None or found is None:
            raise HFIError("has no step or no concept rate", file=file, field=f"curve.{i}", remedy=REMEDY)
        neither, kept = (_rate(item.get(name), file, f"curve.{i}.{name}") for name in ("neither", "retention"))
        points.append(Point(int(step), found, neither, kept))
    return tuple(sorted(points, key=lambda point: point.step))


def _groups(raw: object, file: Path, field: str) -> list[dict]:
    """A list of groups of numbers; empty where the study has none."""
    if raw is not None and not isinstance(raw, list):
        raise HFIError("is not a list", file=file, field=field, remedy=REMEDY)
    return [_mapping(item, file, f"{field}.{i}") for i, item in enumerate(raw or [])]


def _ordered(found: dict, known: dict) -> list[str]:
    return [name for name in known if name in found] + [name for name in found if name not in known]


def _mapping(raw: object, file: Path, field: str) -> dict:
    if not isinstance(raw, dict):
        raise HFIError("is not a group of numbers", file=file, field=field or None, remedy=REMEDY)
    return raw


def _change(raw: object, file: Path, field: str) -> Change:
    if raw is None:
        return Change(None, None)
    raw = _mapping(raw, file, field)
    return Change(_rate(raw.get("before"), file, f"{field}.before"), _rate(raw.get("after"), file, f"{field}.after"))


def _rate(raw: object, file: Path, field: str) -> Rate | None:
    if isinstance(raw, dict):
        value = _value(raw.get("value"), file, f"{field}.value")
        count = _value(raw.get("n"), file, f"{field}.n")
        return (
            None
            if value is None
            else Rate(value, _value(raw.get("low"), file, f"{field}.low"), _value(raw.get("high"), file, f"{field}.high"), int(count or 0))
        )
    value = _value(raw, file, field)
    return None if value is None else Rate(value)


def _value(raw: object, file: Path, field: str) -> float | None:
    if isinstance(raw, dict):
        raw = raw.get("value")
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        raise HFIError(f"{str(raw)[:40]!r} is not a number", file=file, field=field, remedy=REMEDY)
    return float(raw)
