"""Table 1: each eraser told by people (X + HFI) against the same eraser told in words (X), compared where both keep 0.95 of the rest."""

from __future__ import annotations

from collections.abc import Mapping

from hfi.evaluation.level import LEVEL
from hfi.evaluation.level import at_level as interpolated
from hfi.evaluation.statistics import holm, two_level_mean
from hfi.seeds import numpy_generator

from . import scoring
from .cells import Cell
from .charts import Rate, rates
from .studies import (
    DEVELOPMENT,
    HARMS,
    STYLES,
    Bench,
    arm_changes,
    depends,
    erased,
    erasure_part,
    kind_of,
    natural_word,
    oracle_words,
    prepared,
    study_part,
    vocabulary_of,
)

NUMBER = 1
TITLE = "X + HFI against X"
EXPECTED = (
    "HFI is clearly below one natural word in every technique X, and level (within 0.10) with the oracle list of all member names, which "
    "no user has."
)
NOTES = (
    "Arms: one natural word; the oracle list (harms only: a style's name is all there is to say of it); tokens of pictures that weigh "
    "alike (no reward weights); HFI's tokens; HFI with the prompts of flagged pictures as further conditions (ours). All arms of a "
    "technique have the same settings, those of the recipe. They are not the papers': `sdd` has beside its own loss what the recipe adds "
    "(ours: a closed-form start, `negative_guidance`, `preservation`, `benign_styles`, `redraw`, for harms `pag_scale` and `keep_rest`), "
    "and `esd` takes from it, so that steps and tuning are equal, steps, batch, rate, moving average, training states and preservation "
    "term in place of its published ones (docs/erasers.md has those); `sld` is at its medium strength, `uce` at its code's weights.",
    "Implicit prompts are keywords that name no member. Of a harm people have judged most of those keywords one by one, for the recipes "
    "show them words that the model holds near (`generate.near_words`): all of a prompt's keywords were feedback prompts of their own in "
    "48 of 48 prompts of alcohol and of medicine, 43 of fire, 37 of weapons; together they were in none. Of a style they also say its "
    "name, which is all there is to say of it. The prompts are in proof/prompts.",
    "Each erasure is laid over the model at five strengths (0.5, 1, 1.5, 2, 3). Where retention (the lower of objects and styles "
    "kept) first falls under 0.95 the rates on both sides are interpolated; where it never does, the strongest counts. That place is held "
    "fixed when prompts are "
    "resampled.",
    "Primary test: the rate on implicit prompts and, of harms, on members that no feedback prompt named (medicine's one, the pill, is "
    "named in the plural by one), HFI minus the word, paired over prompts and seeds; bootstrap over concepts, then prompts; Holm over X. "
    "Concepts that settings were chosen on are left out of it, and of the rates; `by concept` has them, marked.",
)
WHY = (
    "SDD: of three styles the word alone leaves 0.02, 0.01 and 0.00, for a style's name is all that captions say of it, so tokens can only "
    "do worse there, and do: of emojione-monotone they leave 0.47. That and alcohol (0.79 by tokens, 0.58 by the word) carry its mean; of "
    "fire and explosions, whose word stands in the captions of two of seven members, tokens leave 0.60 and the word 0.98. A soft token is "
    "one name more for the same pictures: an eraser told by tokens alone forgets the token, and the names much less unless its strength is "
    "raised, which is why a list of all names does better where there is one. The prompts of flagged pictures carry over to names at "
    "strength 1. What guidance takes at inference it takes from everything. UCE's published edit is gentle here: told the word it keeps "
    "0.97 and more of five concepts' rest at strength 3, the end of the grid (users may set 2), so its rows are not at equal retention and "
    "say what each does within the grid. Reward weights change nothing clear: the top-K holds flagged pictures alone, and choosing them "
    "may be all that the reward has to do (of some concepts the two arms stand on studies made on two machines). The place of comparison "
    "is coarse: retention is of 128 pictures, one picture is 0.008 and the standard error at 0.95 about 0.02."
)
METHODS = ("negative_prompt", "sld", "esd", "uce", "sdd")
ARMS = {"word": "one word", "oracle": "oracle list", "equal": "tokens, equal weights", "hfi": "HFI", "prompts": "HFI + prompts (ours)"}
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)  # ESD and UCE keep 0.97 and more of the rest at 2
CLOSE = 0.10  # level with the oracle list: so near, by its whole interval
SETS = ("implicit", "unlisted", "other")
FULL_SETS = ("explicit", *SETS, "variations")
TOPICS = (*HARMS, *STYLES)
SUBSET = ("alcohol", "fxemoji")
SUBSET_ARMS = ("word", "oracle", "hfi")
EQUAL = {"reward.weights": "equal"}
GUIDED = ("negative_prompt", "sld")


def original(bench: Bench, topic: str) -> dict:
    """The original model on all prompts of a topic."""
    return scoring.look(bench, prepared(bench, topic), (*FULL_SETS, "floor"))


def arm(bench: Bench, topic: str, method: str, arm: str, strengths: list[float]) -> dict:
    """One erasure at several strengths; at 1 on all prompts, elsewhere on those that the comparison needs."""
    study = prepared(bench, topic, EQUAL if arm == "equal" else {})
    delta, about = erased(bench, study, arm_changes(topic, _told(arm), method))
    seen = {f"{s:g}": scoring.look(bench, study, FULL_SETS if s == 1 else SETS, delta, s) for s in strengths}
    return {"cost": about, "strengths": seen}


def _told(arm: str) -> str:
    return "tokens" if arm in ("equal", "hfi") else arm


def cells(options) -> list[Cell]:
    """Every combination that means something: a style has no oracle list, guidance takes no flagged prompts."""
    found = []
    for topic in TOPICS:
        found.append(
            Cell(
                NUMBER,
                f"{slug(topic)}-original",
                original,
                {"topic": topic},
                scoring.seconds((*FULL_SETS, "floor")),
                (study_part(topic),),
                topic in SUBSET,
                depends=[depends(topic), scoring.COUNTS],
            )
        )
        for method in METHODS:
            for name in ARMS:
                if (name == "oracle" and kind_of(topic) == "style") or (name == "prompts" and method in GUIDED):
                    continue
                found.append(_arm_cell(topic, method, name))
    return found


def _arm_cell(topic: str, method: str, name: str) -> Cell:
    study, changes = EQUAL if name == "equal" else {}, arm_changes(topic, _told(name), method)
    drawn = scoring.seconds(FULL_SETS, method in GUIDED) + (len(STRENGTHS) - 1) * scoring.seconds(SETS, method in GUIDED)
    parts = (study_part(topic, study), erasure_part(topic, changes, study_part(topic, study)[0]))
    subset = topic in SUBSET and (name in SUBSET_ARMS or (name == "prompts" and method == "sdd"))
    arguments = {"topic": topic, "method": method, "arm": name, "strengths": list(STRENGTHS)}
    needs = [depends(topic, study, changes), scoring.COUNTS]
    return Cell(NUMBER, f"{slug(topic)}-{method}-{name}", arm, arguments, drawn, parts, subset, depends=needs)


def slug(topic: str) -> str:
    return topic.replace(" ", "-")


def at_level(before: dict, cell: dict, level: float = LEVEL) -> dict:
    """Where the retention of a cell falls under `level`, and each prompt's chance of drawing the concept there, over the primary sets."""
    strengths = sorted(cell["strengths"], key=float)
    looks = [before["hits"], *(cell["strengths"][name]["hits"] for name in strengths)]
    kept = [1.0, *(scoring.retention(before["hits"], one) for one in looks[1:])]
    hits = [[float(c) for name in scoring.PRIMARY for c in one.get(name, "")] for one in looks]
    return interpolated([0.0, *map(float, strengths)], kept, hits, level)


def figures(found: Mapping[str, dict]) -> dict:
    """Rows technique x arm over the topics that have it and chose nothing, and the primary test of each technique."""
    rows, tests, oracle, weights, further, places = [], [], [], [], [], {}
    for method in METHODS:
        for name, title in ARMS.items():
            places[method, name] = _places(found, method, name)
            by_topic = {topic: one for topic, one in places[method, name].items() if topic not in DEVELOPMENT}
            if by_topic:
                groups = [(one["values"], range(len(one["values"]))) for one in by_topic.values()]
                rate, _ = two_level_mean(groups, numpy_generator(0, "proof", "table 1", method, name))
                strengths = [one["strength"] for one in by_topic.values()]
                rows.append(
                    {
                        "technique": method,
                        "told by": title,
                        "concepts": len(by_topic),
                        "rate at retention 0.95": rate.plain(),
                        "strength there": round(sum(strengths) / len(strengths), 2),
                        "never fell to 0.95": sum(not one["reached"] for one in by_topic.values()),
                    }
                )
        if row := _compared(found, places, method, "word"):
            tests.append({**row, "p": round(row["p"], 4)})
        if row := _compared(found, places, method, "oracle"):
            oracle.append({name: value for name, value in row.items() if name != "p"})
        if row := _compared(found, places, method, "equal"):
            weights.append({name: value for name, value in row.items() if name != "p"})
        both = [_compared(found, places, method, arm, "prompts") or {} for arm in ("oracle", "word")]
        if any(both):  # the oracle list is of harms alone
            listed = {"concepts with a list": both[0].get("concepts", 0)} | {k: v for k, v in both[0].items() if "minus" in k}
            further.append({name: value for name, value in {**both[1], **listed}.items() if name != "p"})
    for row, adjusted in zip(tests, holm([row["p"] for row in tests]), strict=True):
        row["p (Holm)"] = round(adjusted, 4)
    parts = {"rates": rows, "primary test": tests, "against the oracle list": oracle, "what reward weights add": weights}
    parts |= {"with the prompts of flagged pictures (ours)": further, "by concept": _by_concept(places)}
    return {"parts": parts, **_verdict(tests, oracle, rows)}


def charts(parts: Mapping[str, list]) -> dict[str, str]:
    """{what it shows: SVG}."""
    rows = [
        Rate(
            row["technique"],
            f"{row['told by']}, {row['concepts']} concept{'s' * (row['concepts'] > 1)}",  # arms of other concepts do not compare
            row["rate at retention 0.95"],
            "ours" if "HFI" in row["told by"] else "other",
        )
        for row in parts["rates"]
    ]
    return {"Rates": rates(rows, "concept rate where 0.95 of the rest is kept (simulated judge); lower is better")} if rows else {}


def _by_concept(places: Mapping) -> list[dict]:
    """The rates behind the means, one row a concept and technique, and of how many members the training captions say the word itself."""
    rows = []
    for topic in TOPICS:
        for method in METHODS:
            made = {name: places[method, name][topic]["values"] for name in ARMS if topic in places[method, name]}
            if made:
                rates = {title: round(sum(made[name]) / len(made[name]), 4) if name in made else None for name, title in ARMS.items()}
                rows.append({"concept": topic, "captions that say the word": _said(topic), "technique": method, **rates})
    return rows


def _said(topic: str) -> str:
    """Of how many members the training captions say the natural word."""
    if kind_of(topic) == "style":
        return "its name"
    names, word = oracle_words(topic), natural_word(topic)
    return f"{sum(word in vocabulary_of().objects[name].tags for name in names)} of {len(names)} members"


def _places(found: Mapping[str, dict], method: str, name: str) -> dict[str, dict]:
    made = {}
    for topic in TOPICS:
        cell, before = found.get(f"{slug(topic)}-{method}-{name}"), found.get(f"{slug(topic)}-original")
        if cell and before:
            made[topic] = at_level(before, cell)
    return made


def _compared(found: Mapping[str, dict], places: Mapping, method: str, arm: str, told: str = "hfi") -> dict | None:
    """HFI (or the arm `told`) minus one arm, paired over prompts and seeds, over the concepts that chose nothing; None where none has."""
    theirs, ours = places[method, arm], places.get((method, told), {})
    topics = [topic for topic in theirs if topic in ours and topic not in DEVELOPMENT]
    groups = []
    for topic in topics:
        _same_prompts(found, topic, method, arm, told)
        change = [b - a for a, b in zip(theirs[topic]["values"], ours[topic]["values"], strict=True)]
        groups.append((change, range(len(change))))
    if not groups:
        return None
    change, p = two_level_mean(groups, numpy_generator(0, "proof", "test", method, arm))
    what = "HFI" if told == "hfi" else "HFI + prompts"
    return {"technique": method, "concepts": len(topics), f"{what} minus {ARMS[arm]}": change.plain(), "p": p}


def _same_prompts(found: Mapping[str, dict], topic: str, method: str, arm: str, told: str) -> None:
    one, two = (found[f"{slug(topic)}-{method}-{name}"]["strengths"] for name in (arm, told))
    if any(one[s]["asked"] != two[s]["asked"] for s in one):
        raise AssertionError(f"{topic}, {method}: the two cells were not drawn on the same prompts")


def _verdict(tests: list[dict], oracle: list[dict], rows: list[dict]) -> dict:
    """Whether the table shows what was expected, and in one sentence where it does not; built from the figures alone."""
    if not tests:
        return {"shows": None, "where_not": "No pair of cells is there yet"}
    told = lambda row: f"{row['technique']} ({row['HFI minus one word']['value']:+.2f}, Holm p {row['p (Holm)']:.3f})"  # noqa: E731
    failed = [row for row in tests if not (row["HFI minus one word"]["value"] < 0 and row["p (Holm)"] < 0.05)]
    above = [row for row in oracle if row["HFI minus oracle list"]["low"] > 0]
    unknown = [row for row in oracle if row["HFI minus oracle list"]["low"] <= 0 and row["HFI minus oracle list"]["high"] > CLOSE]
    parts = ["HFI is not clearly below the word in " + ", ".join(map(told, failed))] if failed else []
    parts += [f"in {row['technique']} the oracle list removes more (HFI {row['HFI minus oracle list']['value']:+.2f})" for row in above]
    parts += [
        f"in {row['technique']} HFI is not known to be within {CLOSE:.2f} of the oracle list "
        f"({change['value']:+.2f}, up to {change['high']:+.2f})"
        for row in unknown
        for change in [row["HFI minus oracle list"]]
    ]
    gentle = [row for row in rows if row["told by"] == ARMS["word"] and 2 * row["never fell to 0.95"] > row["concepts"]]
    parts += [
        f"in {row['technique']} the word's erasure never fell to 0.95 in {row['never fell to 0.95']} of {row['concepts']} concepts, so the "
        "two do not stand at equal retention"
        for row in gentle
    ]
    missing = [name for name in METHODS if name not in {row["technique"] for row in tests}]
    parts += [f"not tested: {', '.join(missing)}"] if missing else []
    unpaired = [name for name in METHODS if name not in {row["technique"] for row in oracle}]
    parts += [f"not compared with the oracle list: {', '.join(unpaired)}"] if unpaired else []
    open_ = missing or unpaired or unknown or gentle
    return {"shows": False if failed or above else (None if open_ else True), "where_not": "; ".join(parts)}
