"""Table 5: people. What the number of labels, their errors, a biased group, the number of soft vectors, and machines do to the erasure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hfi.errors import HFIError
from hfi.workspace import read_json

from . import scoring
from .cells import Cell
from .charts import Rate, rates
from .studies import Bench, arm_changes, depends, erased, erasure_part, prepared, study_part

NUMBER = 5
TITLE = "People"
EXPECTED = (
    "Within 0.10 of concept rate: a hundred labels do as well as a thousand, annotators who err in 20 % as well as ones who do not, four "
    "vectors as well as sixteen, people and machines together as well as people alone. Nothing was expected of the biased group, nor of "
    "tokens told alone; their rows are shown."
)
NOTES = (
    "HFI + prompts + SDD (ours) on alcohol: told by soft tokens and the prompts of flagged pictures, as the recipe does it; most of what "
    "is erased is then told by prompts, and tokens show little of themselves, so their number is also varied where they alone are told "
    "(HFI + SDD). Every row is a whole study of simulated annotators on the same pictures. A label is one answer of one annotator. The "
    "biased group calls pictures absent that were asked for as wine or a cocktail; a column has those alone. Machines: CLIP by words. "
    "Rates stand at whatever each row keeps, so a lower one may be damage: read them with retention. Every row is one run.",
)
TOPIC = "alcohol"
UNSEEN = ("wine glass", "cocktail glass")
SETS = ("explicit", "implicit", "unlisted", "other")
MORE = {"label.overlap": 3, "reward.minimum_auc": 0.0}  # three answers a picture: 1440 labels; a poor reward is a result here
ROWS = {  # name -> (what varies, its value, settings, what is done to the judgements, in the subset)
    **{f"labels-{n}": ("labels", n, MORE, {"labels": n}, n in (30, 300)) for n in (10, 30, 100, 300, 1000)},
    **{f"error-{e:g}": ("annotator error", e, {**MORE, "label.error_rate": e}, {}, False) for e in (0.0, 0.1, 0.2, 0.3)},
    **{f"biased-{b:g}": ("share of the biased group", b, MORE, {"blind": b, "objects": list(UNSEEN)}, False) for b in (0.25, 0.5, 0.75)},
    **{f"vectors-{v}": ("soft vectors", v, {"invert.vectors": v}, {}, False) for v in (1, 2, 4, 8, 16)},
    **{f"tokens-{v}": ("soft vectors, told by tokens alone", v, {"invert.vectors": v}, {}, False) for v in (1, 4, 16)},
    "humans-only": ("who judges", "people (simulated)", {}, {}, False),
    "machines-only": (
        "who judges",
        "machines",
        {"label.source": "machines", "label.machines": ["clip:emoji"], "reward.minimum_auc": 0.0},
        {},
        True,
    ),
    "both": ("who judges", "both (simulated)", {"label.machines": ["clip:emoji"]}, {}, False),
}
CLOSE = 0.10  # "nearly as well"
GLASSES = "wine and cocktail glasses"


def original(bench: Bench) -> dict:
    """The original model on the topic's prompts."""
    return scoring.look(bench, prepared(bench, TOPIC), SETS)


def judged(bench: Bench, row: str) -> dict:
    """A whole study under one row's settings; a study that cannot learn from its labels says why, which is a result."""
    _, _, changes, judging, _ = ROWS[row]
    try:
        study = prepared(bench, TOPIC, changes, judging)
    except HFIError as error:
        return {"refused": error.problem}
    delta, about = erased(bench, study, told(row))
    auc = (_reward(study).metrics.get("auc") or {}).get("value")
    return {**scoring.look(bench, study, SETS, delta), "cost": about, "held_out_auc": auc}


def told(row: str) -> dict:
    """Settings of the erasure of one row."""
    return arm_changes(TOPIC, "tokens" if row.startswith("tokens-") else "prompts", "sdd")


def _reward(study):
    from hfi.reward.reward import RewardResult

    return RewardResult.load(study)


def cells(options) -> list[Cell]:
    """One cell a row, and the original model's."""
    drawn = scoring.seconds(SETS)
    found = [Cell(NUMBER, "original", original, {}, drawn, (study_part(TOPIC),), True, depends=[depends(TOPIC), scoring.COUNTS])]
    for name, (_, _, changes, judging, subset) in ROWS.items():
        study, erase = study_part(TOPIC, changes, judging), told(name)
        parts = ((study[0], study[1] - 24), erasure_part(TOPIC, erase, study[0]))  # the pictures are taken over
        needs = [depends(TOPIC, changes, erase), judging, scoring.COUNTS]
        found.append(Cell(NUMBER, name, judged, {"row": name}, drawn, parts, subset, depends=needs))
    return found


def figures(found: Mapping[str, dict]) -> dict:
    """One row each: concept rate (named, keywords, unlisted members together), retention, the reward's held-out AUC."""
    before, rows = found.get("original"), []
    glasses = _glasses()
    rate_of = lambda hits: scoring.counted("".join(hits.get(name, "") for name in ("explicit", "implicit", "unlisted")))  # noqa: E731
    if before:
        first = {"concept rate": rate_of(before["hits"]), GLASSES: glasses(before["hits"])}
        rows.append({"what varies": "(the original model)", "value": "", **first})
    for name, (what, value, *_) in ROWS.items():
        if not (cell := found.get(name)) or not before:
            continue
        if "refused" in cell:
            rows.append({"what varies": what, "value": value, "concept rate": f"refused: {cell['refused']}"})
            continue
        kept = scoring.retention_of(before["hits"], cell["hits"])
        drawn = {"concept rate": rate_of(cell["hits"]), GLASSES: glasses(cell["hits"])}
        rows.append({"what varies": what, "value": value, **drawn, "retention": kept, "AUC": cell["held_out_auc"]})
    return {"parts": {"people": rows}, **_verdict(found, rate_of)}


def _glasses() -> Callable[[Mapping[str, str]], dict]:
    """A function of a cell's hits: the rate over the prompts that ask for what the biased group does not see."""
    asked = read_json(scoring.prompt_file(TOPIC))
    places = [(name, i) for name in SETS[:3] for i, probe in enumerate(asked[name]) if probe.get("object") in UNSEEN]
    return lambda hits: scoring.counted("".join(hits[name][i] for name, i in places))


def charts(parts: Mapping[str, list]) -> dict[str, str]:
    """{what it shows: SVG}."""
    rows = [
        Rate(row["what varies"], str(row["value"]), row["concept rate"], "ours" if row["value"] != "" else "before")
        for row in parts["people"]
        if isinstance(row["concept rate"], Mapping)
    ]
    return {"Concept rate": rates(rows, f"share that still draws {TOPIC} (simulated judge); lower is better")} if len(rows) > 1 else {}


def _verdict(found: Mapping[str, dict], rate_of) -> dict:
    rate = {name: rate_of(cell["hits"])["value"] for name, cell in found.items() if "hits" in cell}
    pairs = [
        ("labels-100", "labels-1000", "100 labels"),
        ("error-0.2", "error-0", "annotators who err in 20 %"),
        ("vectors-4", "vectors-16", "4 vectors"),
        ("both", "humans-only", "both together"),
    ]
    known = [(a, b, words) for a, b, words in pairs if a in rate and b in rate]
    missed = [f"{words}: {rate[a]:.2f} against {rate[b]:.2f}" for a, b, words in known if rate[a] > rate[b] + CLOSE]
    left = [words for a, b, words in pairs if (a, b, words) not in known]
    parts = missed + ([f"not compared yet: {', '.join(left)}"] if left else [])
    return {"shows": False if missed else (None if left else True), "where_not": "; ".join(parts)}
