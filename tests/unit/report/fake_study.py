"""A finished study that nobody ran: drawn shapes for pictures, made-up but plausible numbers, the real files and manifests.

`build(root)` is a harm study in which all went well; keyword arguments spoil it in the ways that the page warns of.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hfi.config import StudyConfig, parse_config
from hfi.workspace import Workspace, write_json

OBJECTS = ("dagger", "bomb", "axe", "rocket", "cat", "apple", "house", "tree", "sun", "boat")
MEMBERS, STYLES = OBJECTS[:3], ("noto", "ink", "blob")
INK = {"noto": "#3f6fb5", "ink": "#111111", "blob": "#e0a63c"}


@dataclass(frozen=True)
class FakeEvaluated:
    """What the report needs of stage 7's result."""

    folder: Path


def build(
    root: Path,
    kind: str = "harm",
    rate_after: float = 0.02,
    kept: float = 0.97,
    neither_after: float = 0.03,
    back: float = 0.1,
    pairs: int = 20,
    floor: float | None = None,
    settings: dict | None = None,
    prompt: str = "a {o} in the style of {s}",
    side: int = 64,
    bare: bool = False,
    also: float | None = None,
) -> tuple[Workspace, FakeEvaluated]:
    """Write a whole study under `root`.

    Args:
        rate_after, kept, neither_after, back: concept rate after erasing, retention, `neither` after, worst re-inverted token.
        pairs: pictures per prompt set.
        side: pixels across.
        bare: leave out every part that a study may lack.
        also: the rate after erasing of another concept of the run, "pets"; None: there is no other.
    """
    rng = np.random.default_rng(0)
    concept = {"name": "weapon", "kind": "harm", "members": list(MEMBERS)} if kind == "harm" else {"name": "noto", "kind": "style"}
    config = parse_config(
        {
            "name": "demo",
            "model": "somebody/some-model",
            "concept": concept,
            "label": {"source": "simulated"},
            "erase": {"steps": 300, "ema_decay": 0.98},
            **(settings or {}),
        },
        "fake",
    )
    study = Workspace.create(root, config)
    _stages(study, rng, bare)
    with study.stage("evaluate") as run:
        rows = _pictures(run.folder, rng, kind, rate_after, kept, pairs, prompt, side, bare)
        rows += [] if also is None else _pets(run.folder, also, pairs, side)
        run.path("verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if not bare:
            write_json(run.path("prompts.json"), {"concept": config.concept.name, "members": list(MEMBERS), "sets": {}})
        metrics = _metrics(kind, rate_after, kept, neither_after, back, floor, bare)
        if also is not None:
            rates = {"explicit": {"before": _rate(0.9), "after": _rate(also)}, "implicit": None, "unlisted": None}
            metrics["also"] = [{"concept": "pets", "kind": "harm", "concept_rate": rates, "floor": None}]
        write_json(run.path("metrics.json"), metrics)
        run.facts.update(judge="emoji:scorer", simulated=True)
    _set_costs(study)
    return study, FakeEvaluated(study.path("evaluate"))


def _stages(study: Workspace, rng, bare: bool) -> None:
    config: StudyConfig = study.config
    with study.stage("generate") as run:
        run.path("images.jsonl").write_text("")
        run.facts.update(images=1000, model="somebody/some-model", model_hash="0123456789abcdef" * 4)
    with study.stage("label") as run:
        run.path("judgements.jsonl").write_text("")
        run.facts.update(
            simulated=True,
            judgements=2000,
            images_judged=1000,
            annotators={"human": 0, "simulated": 3},
            agreement={"measure": "Krippendorff's alpha, nominal", "binary": 0.87, "ranking": None},
        )
    with study.stage("reward") as run:
        if not bare:
            steps = np.linspace(0.05, 0.95, 10)
            bins = [
                {
                    "low": round(x - 0.05, 2),
                    "high": round(x + 0.05, 2),
                    "predicted": float(x),
                    "observed": float(np.clip(x + rng.normal(0, 0.06), 0, 1)),
                    "n": int(rng.integers(4, 90)),
                }
                for x in steps
            ]
            write_json(
                run.path("calibration.json"),
                {
                    "simulated": True,
                    "auc": {"value": 0.983, "low": 0.97, "high": 0.99, "n": 250},
                    "pairwise_accuracy": None,
                    "binary": {"bins": bins, "expected_calibration_error": 0.041},
                    "ranking": None,
                },
            )
            _sheet(8, 4, MEMBERS, 64).save(run.path("contact_sheet.png"))
        run.facts.update(top_k=64, clusters=1)
    with study.stage("invert") as run:
        if not bare:
            write_json(
                run.path("losses.json"),
                {
                    f"<weapon-{k}>": [[s, 0.08 + 0.1 * math.exp(-s / 200) + float(rng.normal(0, 0.004))] for s in range(25, 1001, 25)]
                    for k in (1, 2)
                },
            )
            _sheet(6, 2, MEMBERS, 64).save(run.path("preview.png"))
        run.facts.update(tokens=["<weapon-1>", "<weapon-2>"], vectors=4)
    with study.stage("erase") as run:
        if not bare:
            rows = [
                {
                    "step": s,
                    "loss": 0.05 * math.exp(-s / 90) + 0.004 + abs(float(rng.normal(0, 0.001))),
                    "preservation": None,
                    "drift_unconditional": 0.02 * (1 - math.exp(-s / 150)),
                    "drift_benign": 0.035 * (1 - math.exp(-s / 120)),
                    "seconds": s * 0.3,
                }
                for s in range(25, config.erase.steps + 1, 25)
            ]
            run.path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _set_costs(study: Workspace) -> None:
    """Give the manifests the seconds of a real study; they are no part of a stage's key."""
    for stage, seconds in zip(
        ("generate", "label", "reward", "invert", "erase", "evaluate"), (61.84, 4.31, 9.96, 88.12, 131.55, 142.27), strict=True
    ):
        path = study.path(stage, "manifest.json")
        write_json(path, {**json.loads(path.read_text()), "seconds": seconds, "peak_memory_mib": 1500.0 + seconds})


def _rate(value: float, n: int = 300) -> dict:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.002) / n)
    return {
        "value": value,
        "low": max(0.0, value - half),
        "high": value + half,
        "n": n,
        "prompts": n // 2,
        "interval": "bootstrap over prompts",
    }


def _metrics(kind: str, rate_after: float, kept: float, neither_after: float, back: float, floor: float | None, bare: bool) -> dict:
    rates = {
        name: {"before": _rate(b), "after": _rate(rate_after)} for name, b in (("explicit", 0.91), ("implicit", 0.58), ("variations", 0.88))
    }
    rates |= (
        {"tokens": None, "unlisted": None, "reinversion": None}
        if bare
        else {
            "tokens": {"before": _rate(0.74), "after": _rate(rate_after)},
            "unlisted": {"before": _rate(0.9, 60), "after": _rate(rate_after, 60)},
            "reinversion": {"after": _rate(back * 0.8), "worst": back, "tokens": {}},
        }
    )
    groups = {
        name: _rate(min(1.0, kept + 0.01 * i), 40)
        for i, name in enumerate(
            ("objects", "food-drink", "animals-nature", "travel-places", "smileys-emotion", "activities", "people-body", "symbols")
        )
    }
    return {
        "concept_rate": rates,
        "neither": {"before": 0.02, "after": neither_after},
        "neither_intervals": {"before": _rate(0.02, 900), "after": _rate(neither_after, 900)},
        "floor": floor,
        "retention": {
            "other": _rate(kept),
            "neighbours": None if bare else _rate(kept - 0.04),
            "styles": None if bare else _rate(kept + 0.01),
            "object_in_style": _rate(kept) if kind == "style" else None,
        },
        "by_group": {} if bare else groups,
        "worst_groups": [] if bare else list(groups)[:5],
        "clip_score": None if bare else {"before": 31.2, "after": 31.0},
        "cmmd": None if bare else 0.21,
        "curve": None if bare else _points(rate_after, kept),
        "simulated": True,
        "judge": "emoji:scorer",
        "seconds": {"total": 1.0},
        "peak_memory_mib": {},
    }


def _points(rate_after: float, kept: float) -> list[dict]:
    """A curve over 300 steps."""
    points = []
    for step in range(0, 301, 60):
        way = 1 - math.exp(-step / 70)
        found = {
            "step": step,
            "concept_rate": _rate(0.91 + (rate_after - 0.91) * way, 24),
            "neither": _rate(0.02, 24),
            "retention": _rate(1 + (kept - 1) * way, 24),
        }
        points.append(found)
    points[0]["retention"] |= {"low": 1.0, "high": 1.0}
    return points


def _pictures(folder: Path, rng, kind: str, rate_after: float, kept: float, pairs: int, prompt: str, side: int, bare: bool) -> list[dict]:
    """Draw both sides of every pair and, for re-inversion, one; returns the rows of verdicts.jsonl."""
    rows = []
    sets = ["explicit", "other"] if bare else ["explicit", "implicit", "variations", "tokens", "other", "neighbours", "gallery"]
    for part in ("before", "after", "reinversion"):
        (folder / part).mkdir(parents=True)
    for name in sets:
        for k in range(pairs):
            asks = name not in ("other", "neighbours", "gallery")
            thing = str(rng.choice(MEMBERS if asks and kind == "harm" else OBJECTS[3:]))
            style = str(STYLES[0] if asks and kind == "style" else rng.choice(STYLES[1:] if kind == "style" else STYLES))
            text = {"implicit": "sharp, metal, pointed", "tokens": "<weapon-1>, noto"}.get(name, prompt.format(o=thing, s=style))
            stays = rng.random() < (rate_after if asks else kept)
            after_thing = thing if stays or kind == "style" else str(rng.choice([*OBJECTS[4:], "neither"]))
            after_style = style if stays or not asks or kind == "harm" else "blob"
            common = {"picture": f"{name}{k:04d}", "prompt": text, "seed": k, "sets": [name], "asked_object": thing, "asked_style": style}
            rows.append(_draw(folder, "before", common, thing, style, kind, side))
            if name != "gallery":
                rows.append(_draw(folder, "after", common, after_thing, after_style, kind, side))
    for k in range(0 if bare else 4):
        common = {
            "picture": f"again{k}",
            "prompt": "<again-1>",
            "seed": k,
            "sets": ["reinversion"],
            "asked_object": None,
            "asked_style": None,
        }
        rows.append(_draw(folder, "reinversion", common, str(rng.choice(OBJECTS)), STYLES[0], kind, side))
    return rows


def _pets(folder: Path, rate_after: float, pairs: int, side: int) -> list[dict]:
    """Pairs that ask for another concept of the run, of which the first are still drawn."""
    rows = []
    for k in range(pairs):
        common = {"picture": f"pet{k:04d}", "prompt": f"a cat in ink, {k}", "seed": k, "sets": ["also-1-explicit", "also-1-implicit"]}
        common |= {"asked_object": "cat", "asked_style": "ink"}
        for part, thing in (("before", "cat"), ("after", "cat" if k < rate_after * pairs else "tree")):
            rows.append({**_draw(folder, part, common, thing, "ink", "harm", side), "concept": thing == "cat"})
    return rows


def _draw(folder: Path, part: str, common: dict, thing: str, style: str, kind: str, side: int) -> dict:
    file = f"{part}/{common['picture']}.png"
    shape(thing, INK[style], side, common["seed"]).save(folder / file)
    concept = style == STYLES[0] and thing != "neither" if kind == "style" else thing in MEMBERS
    return {
        "file": file,
        "side": part,
        **common,
        "object": thing,
        "style": style,
        "object_share": 0.9,
        "style_share": 0.9,
        "concept": concept,
    }


def shape(thing: str, ink: str, side: int = 64, seed: int = 0) -> Image.Image:
    """A picture of the thing, as far as a few polygons go; the seed moves it a little."""
    rng = np.random.default_rng(seed)
    big = Image.new("RGB", (256, 256), "white")
    draw, dx, dy = ImageDraw.Draw(big), *(int(v) for v in rng.integers(-14, 15, 2))
    at = lambda *xy: [(x + dx, y + dy) for x, y in zip(xy[::2], xy[1::2], strict=True)]  # noqa: E731
    draw_it = {
        "dagger": lambda: (
            draw.polygon(at(120, 20, 150, 60, 140, 170, 112, 170), ink),
            draw.rectangle(at(84, 168, 170, 184), "#6b4a2b"),
            draw.rectangle(at(114, 184, 140, 236), "#6b4a2b"),
        ),
        "bomb": lambda: (
            draw.ellipse(at(50, 80, 200, 230), ink),
            draw.line(at(170, 100, 205, 50), "#6b4a2b", 12),
            draw.ellipse(at(196, 34, 222, 60), "#e66a2c"),
        ),
        "axe": lambda: (draw.line(at(90, 236, 150, 30), "#6b4a2b", 16), draw.polygon(at(140, 40, 220, 30, 210, 120, 130, 100), ink)),
        "rocket": lambda: (
            draw.polygon(at(128, 16, 176, 100, 176, 190, 80, 190, 80, 100), ink),
            draw.polygon(at(104, 190, 152, 190, 128, 244), "#e66a2c"),
        ),
        "cat": lambda: (
            draw.ellipse(at(50, 80, 206, 224), ink),
            draw.polygon(at(60, 110, 70, 30, 120, 86), ink),
            draw.polygon(at(196, 110, 186, 30, 136, 86), ink),
            draw.ellipse(at(90, 130, 110, 156), "white"),
            draw.ellipse(at(146, 130, 166, 156), "white"),
        ),
        "apple": lambda: (
            draw.ellipse(at(48, 70, 208, 230), "#c8402f"),
            draw.line(at(128, 76, 140, 30), "#6b4a2b", 10),
            draw.ellipse(at(138, 30, 190, 60), ink),
        ),
        "house": lambda: (
            draw.rectangle(at(56, 120, 200, 226), ink),
            draw.polygon(at(36, 124, 128, 36, 220, 124), "#b0553a"),
            draw.rectangle(at(110, 170, 146, 226), "white"),
        ),
        "tree": lambda: (draw.rectangle(at(116, 170, 140, 236), "#6b4a2b"), draw.ellipse(at(50, 30, 206, 186), "#4d8b4a")),
        "sun": lambda: (
            draw.ellipse(at(70, 70, 186, 186), "#f0b93a"),
            [draw.line(at(128, 128, 128 + 110 * math.cos(a), 128 + 110 * math.sin(a)), "#f0b93a", 9) for a in np.arange(8) * math.pi / 4],
        ),
        "boat": lambda: (
            draw.polygon(at(36, 170, 220, 170, 180, 224, 76, 224), ink),
            draw.polygon(at(124, 30, 124, 158, 40, 158), "#c9ced6"),
        ),
    }.get(
        thing,
        lambda: [
            draw.ellipse(at(*np.concatenate([p, p + 60]).tolist()), c)
            for p, c in zip(rng.integers(30, 170, (9, 2)), ["#b8a58c", "#8c9a8f", "#a68fa0"] * 3, strict=True)
        ],
    )
    draw_it()
    return big.resize((side, side), Image.Resampling.LANCZOS)


def _sheet(across: int, down: int, things, side: int) -> Image.Image:
    sheet = Image.new("RGB", (across * side, down * side), "white")
    for i in range(across * down):
        sheet.paste(shape(things[i % len(things)], list(INK.values())[i % 3], side, i), (i % across * side, i // across * side))
    return sheet
