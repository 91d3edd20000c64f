"""The last stage: a finished study -> STUDY/report.html, one self-contained file, and the last numbers of metrics.json."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hfi.evaluation import human
from hfi.evaluation.measures_file import PARTS, measures_state, read_measures
from hfi.report import gather, words
from hfi.report.figures import Curve, Rate, Row, interval, line_chart, percent, rate_chart
from hfi.report.human import human_section
from hfi.report.measures import measures_section
from hfi.report.numbers import CONCEPT_SETS, KEPT_SETS, Numbers, read_numbers
from hfi.report.pairs import before_after_picture, read_pairs, set_names, show_pairs, show_singles
from hfi.report.pictures import sheet
from hfi.report.settings import all_settings
from hfi.workspace import STAGES, Workspace, file_hash, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from hfi.config import Erase
    from hfi.evaluation.evaluate import Evaluated

__all__ = ["before_after_picture", "render", "report"]

HERE = Path(__file__).parent
AGAIN_SHOWN = 12  # pictures under tokens that were learned again


def report(evaluated: Evaluated, study: Workspace) -> Path:
    """Write STUDY/report.html, and STUDY/metrics.json with the seconds of every stage and their total.

    Args:
        evaluated: the result of stage 7; its folder holds the numbers, verdicts and pictures.
        study: settings in `study.config.report`.

    Returns: the path of the page. Raises HFIError when a part of the study is damaged; parts that a study
    may lack (rankings, a floor, drift) are left out of the page.
    """
    page, numbers = study.path("report.html"), study.path("metrics.json")
    answers, further = human.state(study), measures_state(study)  # people may have rated since, or more been measured
    facts = study.manifest("report")["facts"] if study.is_done("report") and page.exists() else None
    if facts is not None and facts.get("human", {}) == answers and facts.get("measures", "") == further:
        if not numbers.exists():
            finish_metrics(study, evaluated.folder)
        return page
    with study.stage("report") as run:
        if read_pairs(evaluated.folder)[0]:
            before_after_picture(study, run.path("summary.png"), blur=True)
        write_bytes(page, render(study, evaluated.folder, lambda: run.seconds).encode())
        run.facts.update(page_sha256=file_hash(page), page_bytes=page.stat().st_size, human=answers)
        run.facts.update({"measures": further} if further else {})
    finish_metrics(study, evaluated.folder)
    return page


def finish_metrics(study: Workspace, folder: Path) -> None:
    """Write STUDY/metrics.json: evaluate's numbers, and the seconds and peak memory of all stages, this one too."""
    costs = gather.manifests(study, STAGES)
    rated = {one.question: one.plain() for one in human.rates(study)}
    measured = read_measures(study)
    seconds = {stage: manifest["seconds"] for stage, manifest in costs.items()}
    write_json(
        study.path("metrics.json"),
        {
            **read_json(folder / "metrics.json"),
            **({"human": rated} if rated else {}),
            **({"measures": {part: measured[part] for part in PARTS}} if measured else {}),
            "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
            "peak_memory_mib": {stage: manifest["peak_memory_mib"] for stage, manifest in costs.items()},
        },
    )


def render(study: Workspace, folder: Path, seconds: Callable[[], float]) -> str:
    """The page as text.

    Args:
        study: the study.
        folder: evaluate's folder.
        seconds: a function that gives the seconds this stage has taken so far; called last.
    """
    metrics = read_json(folder / "metrics.json")
    numbers = read_numbers(metrics, folder / "metrics.json")
    found = gather.manifests(study)
    page = {
        **_top(numbers, study, folder, metrics, found),
        **_pictures(study, folder, numbers),
        **_charts(numbers),
        "human": human_section(human.rates(study)),
        "measures": measures_section(read_measures(study)),
        **_curve(numbers),
        **_making(study, found),
        **_settings(study),
        **_origin(found),
    }
    cost, total = gather.costs(found, seconds(), _own_memory())
    page |= {
        "cost": cost,
        "total_seconds": total,
        "total_words": _duration(total),
        "peak_memory": max((row["memory"] for row in cost), key=lambda words: float(words or 0), default=""),
    }
    css, js = ((HERE / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        (HERE / "page.html").read_text(encoding="utf-8")
    )
    return template.render(page=page, css=Markup(css), js=Markup(js), policy=policy(css, js), state_words=words.STATE_WORDS)


def policy(css: str, js: str) -> str:
    """A Content-Security-Policy under which the page can load nothing and run nothing but its own script."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, js)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _top(numbers: Numbers, study: Workspace, folder: Path, metrics: dict, found: dict) -> dict:
    config = study.config
    checks = words.checks(numbers, config)
    state = words.overall(checks)
    simulated = gather.simulated_annotators(found)
    judge = metrics.get("judge") or config.evaluate.judge
    return {
        "title": f"{config.name}: before and after erasing “{config.concept.name}”",
        "study": config.name,
        "date": time.strftime("%d %B %Y").lstrip("0"),
        "state": state,
        "state_words": words.summary(state, checks),
        "verdict": words.verdict(numbers, config),
        "checks": checks,
        "judged": f"What to erase was learned from judgements by {gather.judged_by(found)}; before and after were judged by a network "
        f"({judge}), not by people: its verdicts are simulated judgements.",
        "simulated": simulated or numbers.simulated,
        "simulated_annotators": simulated,
        "warnings": words.warnings(numbers, config),
        "cautions": words.cautions(numbers, config),
        "concept_words": _members(study, folder),
        "floor": None if numbers.floor is None else percent(numbers.floor),
    }


def _members(study: Workspace, folder: Path) -> str:
    """What counts as the concept, by the list that was frozen before erasing."""
    concept, frozen = study.config.concept, gather.optional_json(folder / "prompts.json")
    if concept.kind == "style":
        return f"the style “{concept.name}” (in a picture of something it knows)"
    names = frozen.get("members") if isinstance(frozen, dict) else None
    return f"a member of “{concept.name}”" + (f" ({', '.join(map(str, names))}; fixed before erasing)" if isinstance(names, list) else "")


def _pictures(study: Workspace, folder: Path, numbers: Numbers) -> dict:
    every, again = read_pairs(folder)
    pairs, failures = show_pairs(every, study.config.report.pairs, study.config.seed)
    spread = f"{len(pairs) - failures} of {len(every)} pairs, drawn at random from every set of prompts, so that nobody picked them"
    return {
        "again": show_singles(again, AGAIN_SHOWN, study.config.seed),
        "pairs": pairs,
        "blur": study.config.report.blur,
        "pairs_words": spread + (f"; and {failures} that went wrong, chosen to be looked at." if failures else "."),
        "pair_sets": [
            {"key": key, "name": name, "hint": hint, "count": count}
            for key, name, hint in set_names([one.name for one in numbers.also])
            if (count := sum(key in pair["sets"].split() for pair in pairs))
        ],
        "flagged": sum(bool(pair[side]["shown"].blurred) for pair in pairs for side in ("before", "after")),
    }


def _charts(numbers: Numbers) -> dict:
    limit = words.DRAWN + (numbers.floor or 0.0)
    rows = [Row(*CONCEPT_SETS.get(name, (name, "")), change.before, change.after, limit) for name, change in numbers.rates.items()]
    if numbers.reinversion is not None:
        worst = "" if numbers.reinversion_worst is None else f"; the worst of them {percent(numbers.reinversion_worst)}"
        rows.append(Row(CONCEPT_SETS["reinversion"][0], CONCEPT_SETS["reinversion"][1] + worst, None, numbers.reinversion))
    if numbers.neither.after is not None:
        rows.append(
            Row(
                "“Neither”", "the judge sees nothing it knows: garbage, which is not success", numbers.neither.before, numbers.neither.after
            )
        )
    also = [
        Row(f"{one.name}: {title.lower()}", hint, change.before, change.after, words.DRAWN + (one.floor or 0.0))
        for one in numbers.also
        for name, change in one.rates.items()
        for title, hint in [CONCEPT_SETS[name]]
    ]
    kept = [Row(*KEPT_SETS.get(name, (name, "")), None, rate, words.KEPT.get(name, (None,))[0]) for name, rate in numbers.retention.items()]
    highest = max((max(row.after.value, row.after.high or 0) for row in kept), default=1.0)
    quality = [
        {"name": f"CLIPScore {side}", "value": _score(rate)}
        for side, rate in (("before", numbers.clip_score.before), ("after", numbers.clip_score.after))
        if rate is not None
    ]
    quality += [] if numbers.cmmd is None else [{"name": "CMMD, before to after (0: the same)", "value": f"{numbers.cmmd:.3g}"}]
    ordered = sorted(numbers.groups.items(), key=lambda item: item[1].value)
    worst = numbers.worst_groups or tuple(name for name, _ in ordered[:5])
    return {
        "rate_chart": rate_chart(rows),
        "also_chart": rate_chart(also) if also else "",
        "kept_chart": rate_chart(kept, top=1.0 if highest <= 1.0 else 1.2) if kept else "",
        "quality": quality,
        "groups": [
            {"name": name, "value": percent(rate.value), "interval": interval(rate), "worst": name in worst} for name, rate in ordered
        ],
        "worst_groups": worst,
        "worst_words": "the worst five are marked" if len(ordered) > 5 else "",
    }


def _curve(numbers: Numbers) -> dict:
    """The chart of concept rate and retention over the steps, and the same as rows."""
    points = numbers.curve

    def line(name: str, rates: list[tuple[int, Rate | None]]) -> Curve:
        known = [(step, rate) for step, rate in rates if rate is not None]
        spread = [(step, rate.low, rate.high) for step, rate in known if rate.low is not None and rate.high is not None]
        return Curve(name, tuple((step, rate.value) for step, rate in known), tuple(spread))

    lines = [
        line("draws the concept", [(point.step, point.concept_rate) for point in points]),
        line("keeps the rest", [(point.step, point.retention) for point in points]),
    ]
    shown = lambda rate: percent(rate.value) + (f" ({interval(rate)})" if interval(rate) else "") if rate else "–"  # noqa: E731
    asked = points[0].concept_rate.n if points else 0
    others = next((point.retention.n for point in points if point.retention), 0)
    return {
        "curve_chart": line_chart(lines, "step", "share of pictures", shares=True),
        "curve_words": f"The same prompts and seeds at every step: {asked} pictures by name and {others} of other things, a small part of "
        "those counted in the charts above, so the last point may differ from them. Bars: 95 % intervals.",
        "curve_rows": [
            {"step": p.step, "rate": shown(p.concept_rate), "neither": shown(p.neither), "kept": shown(p.retention)} for p in points
        ],
    }


def _score(rate: Rate) -> str:
    spread = "" if rate.low is None or rate.high is None else f" ({rate.low:.1f} to {rate.high:.1f})"
    return f"{rate.value:.1f}{spread}" + (f", n\u202f=\u202f{rate.n}" if rate.n else "")


def _making(study: Workspace, found: dict) -> dict:
    sheets = {
        "contact_sheet": sheet(study.path("reward", "contact_sheet.png")),
        "token_preview": sheet(study.path("invert", "preview.png")),
    }
    config, simulated = study.config, gather.simulated_annotators(found)
    facts = {stage: manifest.get("facts", {}) for stage, manifest in found.items()}
    steps = [
        ("Generate", f"{facts['generate'].get('images', config.generate.images)} pictures by the original model", False)
        if "generate" in facts
        else None,
        ("Label", _labelled(facts.get("label", {}), gather.judged_by(found)), simulated),
        ("Reward", f"a small network on {config.reward.encoder} CLIP embeddings learned those judgements", False),
        (
            "Top-K",
            f"the {facts.get('reward', {}).get('top_k', config.reward.top_k)} highest-scoring pictures, over {config.reward.clusters} "
            f"cluster{'s' * (config.reward.clusters > 1)}",
            False,
        ),
        (
            "Invert",
            f"{_list(facts.get('invert', {}).get('tokens')) or 'soft tokens'} of {config.invert.vectors} vectors, "
            f"{config.invert.steps} steps each",
            False,
        ),
        ("Erase", _erased(config.erase), False),
        ("Evaluate", "same prompts, same seeds, before and after", False),
    ]
    return {
        "calibration": gather.calibration(study),
        "inversion_chart": gather.inversion_chart(study),
        **gather.erase_charts(study),
        **gather.rounds_chart(facts.get("erase", {})),
        **sheets,
        "steps": [{"name": s[0], "words": s[1], "simulated": s[2]} for s in steps if s],
        "contact_words": "A harmless picture here is erased too: veto it (reward.veto) and run the study again. Blurred until asked for.",
        "token_words": "One row per token, drawn by the original model. If these do not show the concept, erasing them will not remove it.",
    }


def _erased(erase: Erase) -> str:
    """What erasing did, in a line."""
    if erase.method == "sdd" and erase.concept == "tokens":
        return f"{erase.steps} steps of SDD on cross-attention, latents from “{erase.latents}”"
    given, steps = {"tokens": "the soft tokens", "words": "the concept's words"}[erase.concept], erase.length()
    return f"{erase.method} on {given}" + (f", {steps} steps" if steps else "")


def _labelled(facts: dict, by: str) -> str:
    agreement = facts.get("agreement")
    words = [f"{facts[key]} {label}" for key, label in (("judgements", "judgements"), ("images_judged", "pictures")) if key in facts]
    words.append(f"by {by}")
    if isinstance(agreement, dict) and isinstance(agreement.get("binary"), (int, float)):
        words.append(f"agreement {agreement['binary']:.2f} ({agreement.get('measure', '')})")
    return ", ".join(words)


def _list(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else ""


def _settings(study: Workspace) -> dict:
    groups = all_settings(study.config)
    return {
        "settings": groups,
        "changed": sum(group.changed for group in groups),
        "setting_count": sum(len(group.settings) for group in groups),
    }


def _origin(found: dict) -> dict:
    facts = {name: value for manifest in found.values() for name, value in manifest.get("facts", {}).items()}
    origin = [
        {"name": label, "value": str(facts[key])}
        for key, label in (
            ("model", "model"),
            ("model_hash", "model, SHA-256"),
            ("judge", "judge"),
            ("judge_hash", "judge, SHA-256"),
            ("encoder_hash", "CLIP encoder, SHA-256"),
            ("trained_parameters", "parameters trained by erasing"),
            ("trained_tensors", "tensors trained by erasing"),
        )
        if facts.get(key)
    ]
    versions: dict[str, list[str]] = {}
    for manifest in found.values():
        for name, version in manifest.get("versions", {}).items():
            if str(version) not in versions.setdefault(str(name), []):
                versions[str(name)].append(str(version))
    return {
        "origin": origin + [{"name": "study seed", "value": str(next((m.get("seed") for m in found.values()), ""))}],
        "versions": [{"name": name, "value": " and ".join(values)} for name, values in versions.items()],
        "hashes": [
            {"stage": stage, "key": str(m.get("key", "")), "digest": str(m.get("digest", "")), "files": len(m.get("outputs", {}))}
            for stage, m in found.items()
        ],
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else ""


def _own_memory() -> float:
    from hfi.workspace import peak_memory_mib

    return peak_memory_mib()
