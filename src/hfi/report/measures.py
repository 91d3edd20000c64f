"""The report's part on further measures (`hfi measure`): other detectors with their sweeps, distances, published prompt files,
and the measures of benchmarks."""

from __future__ import annotations

from hfi.report.figures import Curve, Rate, Row, line_chart, number, rate_chart
from hfi.report.numbers import CONCEPT_SETS, KEPT_SETS

NAMES = {**CONCEPT_SETS, **KEPT_SETS, "concept": ("Asked for in words", "the three sets of words together")}
TITLES = {"unlearncanvas": "UnlearnCanvas", "hub": "HUB"}
CANVAS = {
    "ua": "1 - accuracy on the target",
    "ira": "accuracy on the rest of its domain",
    "cra": "accuracy in the other domain",
}
HUB = {
    "pinpoint": ("nearest words", "pinpoint-ness: the words nearest to the concept, drawn right"),
    "rest": ("rest of the prompt", "selective alignment: what a prompt asks for beside the concept"),
    "alone": ("that rest alone", "the same, where nothing else is asked for"),
}
DRAWN = "Prompts of its own, drawn before and after; the scoring judge names what they show (simulated)."
SWEPT = ("concept", "explicit", "other")  # the first of these that there is


def measures_section(found: dict | None) -> dict | None:
    """What the page shows of measures.json; None where nothing was measured."""
    if found is None:
        return None
    return {
        "detectors": [_detector(name, one) for name, one in found["detectors"].items()],
        "distances": [{"name": f"{name}, other things", "value": _distance(one)} for name, one in found["distances"].items()],
        "files": [_file(one) for one in found["prompts"]],
        "benchmarks": [_benchmark(name, one) for name, one in found["benchmarks"].items()],
    }


def benchmark_rows(name: str, one: dict) -> list[tuple[str, str, dict]]:
    """(label, what it says, {"before", "after"}) of each number of a benchmark, as measures.json has it."""
    if name == "unlearncanvas":
        return [(measure.upper(), hint, {side: one[side][measure] for side in ("before", "after")}) for measure, hint in CANVAS.items()]
    rows = [(label, hint, one[key]) for key, (label, hint) in HUB.items() if one[key]]
    for language, change in one["languages"].items():
        asked = "its name beside objects named so" if one["kind"] == "style" else "the concept"
        known = f"{asked}; the text encoder knows {change['known_words']:.0%} of that language's words"
        rows.append((f"asked for in {language}", known, change))
    return rows


def _benchmark(name: str, one: dict) -> dict:
    rows = [_row(label, hint, change) for label, hint, change in benchmark_rows(name, one)]
    found = {"name": TITLES[name], "chart": rate_chart(rows), "facts": []}
    if name == "unlearncanvas":
        cost = one["cost"]
        gone = ", ".join(one["targets"])
        found["words"] = f"A grid of {one['styles']} styles and {one['objects']} objects; asked to be gone: {gone}. {DRAWN}"
        found["facts"].append({"name": "cmmd, grid without the target", "value": _distance(one["cmmd"])})
        if cost["seconds"] is not None:
            took = f"{cost['seconds']:,.0f} s, {cost['peak_memory_mib']:,.0f} MiB at most, {cost['bytes'] / 2**20:.1f} MiB stored"
            found["facts"].append({"name": f"cost of {cost['method']}", "value": took})
        return found
    low = " Words that a text encoder does not know are no test of an erasure." if one["languages"] else ""
    none = "" if one["languages"] else " Other languages: no translation of what is asked for."
    return {**found, "words": f"{DRAWN}{low}{none}"}


def _detector(name: str, one: dict) -> dict:
    swept = next((key for key in SWEPT if key in one["sets"]), None)
    licence = f"Licence of the detector: {one['licence']}. " if one.get("licence") else ""
    return {
        "name": name,
        "chart": rate_chart([_row(*NAMES.get(key, (key, "")), change) for key, change in one["sets"].items()]),
        "sweep": _sweep(one["sets"][swept]["sweep"]) if swept else "",
        "swept": NAMES.get(swept, (swept, ""))[0].lower() if swept else "",
        "words": f"{licence}A picture counts from a score of {one['threshold']:g} up.",
    }


def _file(one: dict) -> dict:
    judged = {side: one["judged"][side]["concept_rate"] for side in ("before", "after")}
    rows = [_row("The judge", str(one["judge"]), judged), *(_row(name, "", change) for name, change in one["detectors"].items())]
    filters = [one["category"]] if one["category"] else []
    filters += [f"{name} at least {least:g}" for name, least in one["at_least"].items()]
    return {
        "name": ", ".join([one["file"], *filters]),
        "chart": rate_chart(rows),
        "words": f"{one['prompts']} of {one['rows']} prompts; published seeds for {one['published_seeds']} of them, published guidance for "
        f"{one['published_guidance']}; sampler and steps are this study's.",
        "distances": [{"name": name, "value": _distance(distance)} for name, distance in one["distances"].items()],
    }


def _row(label: str, hint: str, change: dict) -> Row:
    return Row(label, hint, _rate(change["before"]), _rate(change["after"]))


def _rate(one: dict) -> Rate | None:
    return None if one["value"] is None else Rate(one["value"], one["low"], one["high"], one.get("n", 0))


def _sweep(rows: list[dict]):
    curves = []
    for side in ("before", "after"):
        known = [(row["threshold"], row[side]) for row in rows if row[side]["value"] is not None]
        spread = tuple((threshold, one["low"], one["high"]) for threshold, one in known)
        curves.append(Curve(side, tuple((threshold, one["value"]) for threshold, one in known), spread))
    return line_chart(curves, "threshold", "share of pictures", shares=True)


def _distance(one: dict) -> str:
    if "before" in one:
        return f"{_short(one['before'])} before, {_short(one['after'])} after"
    if one.get("value") is None:
        return "nothing to tell"
    note = f"; {one['note']}" if one.get("note") else ""
    return _short(one) + ("" if "low" in one else " (no interval)") + note


def _short(one: dict) -> str:
    spread = f" ({number(one['low'])} to {number(one['high'])})" if "low" in one else ""
    return f"{number(one['value'])}{spread}, n\u202f=\u202f{one['n']}"
