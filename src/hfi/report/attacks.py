"""STUDY/attacks.html: what brought the concept back and how it lasted, as one self-contained file; pictures blurred until asked for."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hfi.attacks.budget import METHODS
from hfi.report.figures import Curve, Rate, Row, interval, line_chart, percent, rate_chart
from hfi.report.pictures import shown
from hfi.report.report import HERE, policy
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, read_json, write_bytes

PICTURES = 6  # of each attack, at random
WAYS = {"full": "all weights learn", "lora": "a LoRA learns", "then": "other concepts are erased after it"}


def write_page(study: Workspace) -> Path:
    """Write the page from attacks/attacks.json and persistence/*.json, as far as they are there; returns its path."""
    page, attacks = study.path("attacks.html"), study.path("attacks", "attacks.json")
    found = read_json(attacks) if attacks.exists() else None
    curves = [read_json(file) for way in WAYS if (file := study.path("persistence", f"{way}.json")).exists()]
    css, js = ((HERE / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        (HERE / "attacks.html").read_text(encoding="utf-8")
    )
    text = template.render(
        study=study.config.name,
        concept=study.config.concept.name,
        found=found,
        judge=found["about"]["judge"] if found else curves[0]["judge"] if curves else "",
        chart=_chart(found) if found else "",
        rows=[_row(row, study) for row in found["rows"]] if found else [],
        curves=[_curve(curve) for curve in curves],
        css=Markup(css),
        js=Markup(js),
        policy=policy(css, js),
        percent=percent,
    )
    write_bytes(page, text.encode())
    return page


def _rate(plain: dict | None) -> Rate | None:
    if plain is None or plain["value"] is None:
        return None
    return Rate(plain["value"], plain["low"], plain["high"], plain["n"])


def _side(row: dict, side: str) -> Rate | None:
    return _rate(row[side]["rate"]) if side in row else None


def _chart(found: dict) -> Markup:
    """Before is the original model, after the erased one, under the same attack."""
    rows = []
    for row in found["rows"]:
        hint = METHODS[row["method"]] + ("; too weak to speak" if row["too_weak"] else "")
        rows.append(Row(row["attack"], hint, _side(row, "original"), _side(row, "erased"), None))
    return rate_chart(rows)


def excess_words(row: dict) -> str:
    """A row's excess over the control, with its interval where the file has one; "" where there was no control."""
    if row["excess_over_control"] is None:
        return ""
    interval = row.get("excess_interval")
    return f"{row['excess_over_control']:+.2f}" + (" ({:+.2f} to {:+.2f})".format(*interval) if interval else "")


def _row(row: dict, study: Workspace) -> dict:
    """One line of the table, and pictures that the erased model drew."""
    words = lambda rate: percent(rate.value) + (f" ({interval(rate)})" if interval(rate) else "") if rate else "–"  # noqa: E731
    erased = row["erased"]
    return {
        "attack": row["attack"],
        "meaning": METHODS[row["method"]],
        "original": words(_side(row, "original")),
        "erased": words(_side(row, "erased")),
        "control": words(_side(row, "control")),
        "excess": excess_words(row) or "–",
        "prompts": words(_rate(erased["per_prompt"])),
        "queries": ", ".join(f"{count} {name}" for name, count in erased["queries"].items()) or "none",
        "seconds": f"{erased['seconds']:.1f}",
        "too_weak": row["too_weak"],
        "pictures": _pictures(row, study),
    }


def _pictures(row: dict, study: Workspace) -> list[dict]:
    """A few pictures of the erased model at random: nobody picked them."""
    folder = study.path("attacks", row["method"])
    every = []
    for name in row["erased"]["cells"]:
        cell = read_json(study.path("attacks", name))
        every += [(one, cell["texts"][one["place"]]) for one in cell["pictures"] if one["final"]]
    order = numpy_generator(study.config.seed, "report", "attacks", row["attack"]).permutation(len(every))[:PICTURES]
    found = []
    for one, text in (every[i] for i in order):
        seen = one["object"] if one["style"] is None else f"{one['object']}, {one['style']}"
        found.append({"shown": shown(folder / one["file"], one["hit"]), "hit": one["hit"], "seen": seen, "text": text})
    return found


def _curve(curve: dict) -> dict:
    points = curve["points"]

    def line(name: str, key: str) -> Curve:
        rates = [(k, _rate(point[key])) for k, point in enumerate(points)]
        known = [(k, rate) for k, rate in rates if rate is not None]
        return Curve(name, tuple((k, rate.value) for k, rate in known), tuple((k, rate.low, rate.high) for k, rate in known))

    words = lambda rate: percent(rate.value) + f" ({interval(rate)})" if rate else "–"  # noqa: E731
    return {
        "words": WAYS[curve["way"]],
        "chart": line_chart([line("draws the concept", "concept_rate"), line("keeps the rest", "retention")], "round", "share of pictures",
                            shares=True),
        "rows": [
            {"label": p["label"], "rate": words(_rate(p["concept_rate"])), "kept": words(_rate(p["retention"])),
             "neither": words(_rate(p["neither"]))}
            for p in [curve["before"], *points]
        ],
    }
