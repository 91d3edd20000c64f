"""Reads what the stages left into plain rows for the page: optional parts give None, damaged ones an HFIError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfi.errors import HFIError
from hfi.report.figures import Curve, calibration_chart, line_chart
from hfi.workspace import STAGES, Workspace, read_json

KINDS = {"human": ("person", "people"), "machine": ("machine", "machines"), "simulated": ("simulated annotator", "simulated annotators")}
AGAIN = "delete the stage's folder and run 'hfi run' on the study again"


def optional_json(path: Path) -> object | None:
    """A JSON file, or None where the stage wrote none; raises HFIError when it is damaged."""
    return read_json(path) if path.exists() else None


def json_lines(path: Path) -> list[dict]:
    """Rows of a JSONL file, or none where there is no file; raises HFIError naming the damaged line."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise HFIError("half-written or damaged", file=path, field=f"line {number}", remedy=AGAIN)
        rows.append(row)
    return rows


def manifests(study: Workspace, stages: Sequence[str] = STAGES[:-1]) -> dict[str, dict]:
    """The manifests of those of `stages` that are finished, in order; raises HFIError for a damaged one."""
    found = {}
    for stage in stages:
        manifest = study.manifest(stage)
        if manifest is None:
            continue
        if not isinstance(manifest, dict) or not all(
            isinstance(manifest.get(name), (int, float)) for name in ("seconds", "peak_memory_mib")
        ):
            raise HFIError("half-written or damaged", file=study.path(stage, "manifest.json"), remedy=AGAIN)
        found[stage] = manifest
    return found


def simulated_annotators(found: dict[str, dict]) -> bool:
    """Whether any judgement came from a simulated annotator."""
    return bool(found.get("label", {}).get("facts", {}).get("simulated"))


def who(counts: dict[str, int]) -> str:
    """{kind of annotator: how many} in words: "2 people and 1 machine"; "nobody on record" where there is none."""
    words = [f"{counts[kind]} {names[counts[kind] != 1]}" for kind, names in KINDS.items() if counts.get(kind)]
    return " and ".join(words) or "nobody on record"


def judged_by(found: dict[str, dict]) -> str:
    """Who gave the feedback, by the label stage's manifest."""
    counts = found.get("label", {}).get("facts", {}).get("annotators")
    return who(counts if isinstance(counts, dict) else {})


def inversion_chart(study: Workspace):
    """Loss curves, one per soft token, from invert/losses.json {token: [[step, loss], ...]}."""
    path = study.path("invert", "losses.json")
    losses = optional_json(path) or {}
    if not isinstance(losses, dict):
        raise HFIError("is not a mapping of tokens to losses", file=path, remedy=AGAIN)
    return line_chart([Curve(str(name), _points(points, path)) for name, points in losses.items()], "step", "loss", from_zero=False)


def erase_charts(study: Workspace) -> dict:
    """Loss and drift curves from erase/log.jsonl; the preservation term where it was on."""
    path = study.path("erase", "log.jsonl")
    rows = json_lines(path)

    def curve(field: str, name: str) -> Curve:
        return Curve(name, _points([[row.get("step"), row[field]] for row in rows if row.get(field) is not None], path))

    return {
        "erase_chart": line_chart([curve("loss", "erasing"), curve("preservation", "preservation (unweighted)")], "step", "loss"),
        "erase_words": ", and of the preservation term (this project's, not the paper's)"
        if any(r.get("preservation") is not None for r in rows)
        else "",
        "drift_chart": line_chart(
            [curve("drift_unconditional", "without a prompt"), curve("drift_benign", "benign prompts")], "step", "drift"
        ),
    }


def rounds_chart(facts: Mapping[str, object]) -> dict:
    """What the judge of hardening's rounds said, from the facts of the erase stage; nothing of other methods."""
    rounds = facts.get("rounds") or []
    curves = {
        "drawn, under prompts or attacks": "erasure",
        "drawn, under the strongest attack": "worst",
        "lost of what should stay": "damage",
    }
    lines = [Curve(name, tuple((number, row[key]) for number, row in enumerate(rounds))) for name, key in curves.items()]
    return {
        "rounds_chart": line_chart(lines, "round", "share of pictures", shares=True),
        "rounds_words": "After each round fresh attacks learn, and a judge that plays an annotator looks. "
        f"Round {facts.get('kept_round')} was kept, whose first and third figures have the least sum. "
        "Attacks that were held out may bring back more: hfi attack.",
    }


def calibration(study: Workspace) -> list[dict]:
    """Calibration on held-out pictures, one chart for binary judgements and one for rankings: {"chart", "title", "words"} each."""
    path = study.path("reward", "calibration.json")
    raw = optional_json(path)
    if raw is None:
        return []
    if not isinstance(raw, dict):
        raise HFIError("is not a mapping", file=path, remedy=AGAIN)
    charts = []
    for kind, title, measure, key in (
        ("binary", "The reward model against the annotators", "AUC", "auc"),
        ("ranking", "The reward model against the rankings", "pairwise accuracy", "pairwise_accuracy"),
    ):
        if not isinstance(raw.get(kind), dict):
            continue
        words, quality, error = [], raw.get(key), raw[kind].get("expected_calibration_error")
        if isinstance(quality, dict):
            low, high = (_number(quality.get(name), path, f"{key}.{name}") for name in ("low", "high"))
            words.append(
                f"Held-out {measure} {_number(quality.get('value'), path, key):.3f} (95\u202f% interval {low:.3f} to {high:.3f}, "
                f"n\u202f=\u202f{quality.get('n', '?')})"
            )
        if error is not None:
            words.append(f"expected calibration error {_number(error, path, f'{kind}.expected_calibration_error'):.3f}")
        ending = "A dot on the dashed line is a calibrated prediction; larger dots hold more held-out " + (
            "pictures." if kind == "binary" else "pairs."
        )
        charts.append(
            {
                "title": title,
                "chart": calibration_chart(_bins(raw[kind].get("bins"), path, kind)),
                "words": (", ".join(words) + ". " if words else "") + ending,
            }
        )
    return charts


def _bins(raw: object, path: Path, kind: str) -> list[tuple[float, float, float]]:
    if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
        raise HFIError("holds no list of bins", file=path, field=f"{kind}.bins", remedy=AGAIN)
    return [
        tuple(_number(item.get(name), path, f"{kind}.bins.{i}.{name}") for name in ("predicted", "observed", "n"))
        for i, item in enumerate(raw)
    ]


def _points(raw: object, path: Path) -> tuple[tuple[float, float], ...]:
    if not isinstance(raw, list):
        raise HFIError("is not a list of [step, value]", file=path, remedy=AGAIN)
    points = []
    for item in raw:
        if not isinstance(item, (list, tuple)) or len(item) < 2:
            raise HFIError("is not a list of [step, value]", file=path, remedy=AGAIN)
        points.append((_number(item[0], path, "step"), _number(item[1], path, "value")))
    return tuple(points)


def _number(value: object, path: Path, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise HFIError(f"{str(value)[:40]!r} is not a number", file=path, field=field, remedy=AGAIN)
    return float(value)


def costs(found: dict[str, dict], own_seconds: float, own_memory: float | None) -> tuple[list[dict], float]:
    """Rows of the cost table, rounded so that what is printed adds up exactly; and the total."""
    rows = [
        {"stage": stage, "seconds": round(manifest["seconds"], 1), "memory": manifest["peak_memory_mib"]}
        for stage, manifest in found.items()
    ]
    rows.append({"stage": "report", "seconds": round(own_seconds, 1), "memory": own_memory})
    total = round(sum(row["seconds"] for row in rows), 1)
    longest = max((row["seconds"] for row in rows), default=0) or 1
    for row in rows:
        row["share"] = f"{100 * row['seconds'] / longest:.1f}"
        row["memory"] = "" if row["memory"] is None else f"{row['memory']:.0f}"
    return rows, total
