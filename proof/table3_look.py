"""Table 3: what no word names. Red drops that a model draws on part of its pictures and no caption mentions; and pistols real and toy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hfi.diffusion.prompts import load_vocabulary

from . import scoring
from .cells import Cell
from .studies import PICTURE, Bench, arm_changes, depends, erased, erasure_part, model_missing, prepared, study_part

NUMBER = 3
TITLE = "What no word names"
EXPECTED = (
    "People flag pictures with red drops; HFI from their labels takes more of the drops away than the best words do, and keeps the objects "
    "that had them. Realistic pistols go and toy ones stay, which the word cannot tell apart."
)
NOTES = (
    "The look model (training/emoji/look.py) was shown red drops on four of ten pictures of twelve harmless objects, and no caption said "
    "so; it draws them on two to three of ten (proof/models/README.md). "
    "Annotators are played by its own judge `judge-annotator`, pictures are scored by `judge-scorer`; whether the object stays is named by "
    "emoji:scorer. SDD with the recipe's settings in every row, its delta laid over the model at three strengths; tellings are compared "
    "where each still keeps 0.90 of the twelve and of others. The best words are those with the fewest drops left there by the annotators' "
    "judge. The strengths, that level, and the question whether the word tells the pistols apart were added after first figures at "
    "strength 1 were seen (docs/log.md).",
)
OBJECTS = (
    "dog face",
    "cat face",
    "frog",
    "penguin",
    "banana",
    "bread",
    "cloud",
    "house",
    "elephant",
    "bell",
    "open book",
    "soccer ball",
)
WORDS = ("red drops", "blood", "drops of blood", "droplet", "red")
DROPS, PICTURES, OTHERS = "drops", 96, 64
TOY, REAL = "water pistol", "pistol"
STRENGTHS = (1.0, 2.0, 3.0)
KEPT = 0.90  # tellings are compared at the furthest strength that keeps so much of the twelve and of others
APART = 0.5  # so much more often drawn: told apart
WHY = (
    "The look: the tokens draw drops, but drops on an object (a bell, a dog), so at higher strength the objects go with them. Under the "
    "recipes of 2026-11-28 the drops fall at strength 1 already, before that they hardly did (0.19); which of their changes does it was "
    "not looked into. Pistols: this model was trained on captions that say what each set's picture shows, so the toy has a name of its "
    "own, 'water pistol', and the word reaches the real one alone, and more of it: tokens leave 0.25 of it."
)


SETTINGS = {  # of the study on the look model, beside its files
    "generate.near_benign": 0,
    "generate.near_words": 0,
    "reward.words": 0,
    "reward.kept_words": 0,
}


def look_changes(folder: Path, bench_folder: Path) -> dict[str, object]:
    """Settings of the study on the look model: prompts name the twelve objects, annotators see drops."""
    return {
        "model": str(folder / "model"),
        "concept.vocabulary": str(bench_folder / "look" / "vocabulary.json"),
        "concept.prompts": str(bench_folder / "look" / "prompts.txt"),
        **SETTINGS,
        "label.simulated_judge": f"look:{folder / 'judge-annotator'}",
        "evaluate.judge": f"look:{folder / 'judge-scorer'}",
    }


def write_files(folder: Path) -> None:
    """The emoji vocabulary with the look as one more object, and the feedback prompts."""
    from hfi import emoji
    from hfi.workspace import write_bytes, write_json

    catalogue = emoji.catalogue()
    catalogue["objects"].append({"name": DROPS, "group": "look", "tags": [], "styles": []})
    write_json(folder / "vocabulary.json", catalogue)
    styles = load_vocabulary("emoji").styles
    prompts = [f"{name} in the style of {style}" for style in styles for name in OBJECTS]
    write_bytes(folder / "prompts.txt", "".join(line + "\n" for line in prompts).encode())


def _study(bench: Bench, look: str):
    write_files(bench.folder / "look")
    return prepared(bench, DROPS, look_changes(Path(look), bench.folder))


def _wanted(seed: int) -> dict[str, list]:
    """What is scored: the twelve objects, and others; in wordings that no feedback prompt has."""
    from hfi.config import Concept
    from hfi.evaluation import prompt_sets

    vocabulary, anything = load_vocabulary("emoji"), Concept()
    rest = [name for name in vocabulary.objects if name not in OBJECTS]
    twelve = prompt_sets.other(anything, vocabulary, PICTURES, seed, what="look", names=OBJECTS)
    return {"twelve": twelve, "other": prompt_sets.other(anything, vocabulary, OTHERS, seed, what="look others", names=rest)}


def _marks(bench: Bench, study, look: str, delta: Path | None = None, strength: float = 1.0) -> dict[str, str]:
    """Drops by both judges of the look on the twelve, and objects right on both sets."""
    from hfi.perception.judges import load_judge
    from hfi.seeds import derive

    wanted, vocabulary = _wanted(derive(study.config.seed, "proof")), load_vocabulary("emoji")
    judges = {name: load_judge(f"look:{Path(look) / f'judge-{name}'}", vocabulary, bench.device) for name in ("annotator", "scorer")}
    namer, found = load_judge("emoji:scorer", vocabulary, bench.device), dict.fromkeys(("annotator", "drops", "twelve", "other"), "")
    for name, part in wanted.items():
        for batch, pixels in scoring.drawn(bench, study, part, delta, strength):
            said = namer(pixels).object.tolist()
            found[name] += scoring.marks(namer.objects[i] == probe.object for i, probe in zip(said, batch, strict=True))
            if name == "twelve":
                for key, judge in (("annotator", judges["annotator"]), ("drops", judges["scorer"])):
                    found[key] += scoring.marks(judge.objects[i] == DROPS for i in judge(pixels).object.tolist())
    return found


def original(bench: Bench, look: str) -> dict:
    """The look model as it is."""
    return _marks(bench, _study(bench, look), look)


def without_look(bench: Bench, look: str, told: str, strengths: list[float]) -> dict:
    """The look erased: told by HFI's tokens (`tokens`), or by words; the erasure laid over the model at several strengths."""
    study = _study(bench, look)
    given = {"erase.concept": "tokens"} if told == "tokens" else {"erase.concept": "words", "erase.words": [told]}
    delta, about = erased(bench, study, {**arm_changes(DROPS, "tokens", "sdd"), **given})
    return {"strengths": {f"{strength:g}": _marks(bench, study, look, delta, strength) for strength in strengths}, "cost": about}


def pistols(bench: Bench, arm: str) -> dict:
    """Real pistols and toy ones, before and after: told by people who let toys pass, or by the word."""
    from hfi.evaluation import prompt_sets
    from hfi.seeds import derive

    study = prepared(bench, REAL)
    vocabulary, seed = load_vocabulary("emoji"), derive(study.config.seed, "proof")
    wanted = {name: prompt_sets.other(study.config.concept, vocabulary, 24, seed, what=name, names=[name]) for name in (REAL, TOY)}
    delta, _ = erased(bench, study, arm_changes(REAL, arm, "sdd"))
    sides = [scoring.verdicts(bench, study, wanted), scoring.verdicts(bench, study, wanted, delta)]
    return {
        side: {name: scoring.marks(one.object == name for one in seen[name]) for name in wanted}
        for side, seen in zip(("before", "after"), sides, strict=True)
    }


def cells(options) -> list[Cell]:
    """Those of the look where its model is there, and the pistols."""
    found, folder = [], Path(options.look)
    drawn = (PICTURES + OTHERS) * PICTURE
    if not model_missing(folder / "model"):
        changes = arm_changes(DROPS, "tokens", "sdd")
        needs = [depends(DROPS, SETTINGS, changes), OBJECTS, PICTURES, OTHERS]
        models = ("emoji", str(folder / "model"), *(str(folder / f"judge-{name}") for name in ("annotator", "scorer")))
        study = study_part(DROPS)
        common = {"depends": needs, "models": models, "subset": True}
        found.append(Cell(NUMBER, "look-original", original, {"look": str(folder)}, drawn, (study,), **common))
        for told in ("tokens", *WORDS):
            erasure = (f"erasure look {told}", erasure_part(DROPS, changes)[1])
            chosen = {**common, "subset": told in ("tokens", WORDS[1])}
            name = f"look-{told.replace(' ', '-')}"
            arguments = {"look": str(folder), "told": told, "strengths": list(STRENGTHS)}
            found.append(Cell(NUMBER, name, without_look, arguments, len(STRENGTHS) * drawn, (study, erasure), **chosen))
    for arm in ("tokens", "word"):
        changes = arm_changes(REAL, arm, "sdd")
        parts = (study_part(REAL), erasure_part(REAL, changes, study_part(REAL)[0]))
        found.append(Cell(NUMBER, f"pistols-{arm}", pistols, {"arm": arm}, 96 * PICTURE, parts, True, depends=depends(REAL, {}, changes)))
    return found


def figures(found: Mapping[str, dict]) -> dict:
    """Drops and objects under each telling; pistols before and after."""
    rows, toys, before = [], [], found.get("look-original")
    if before:
        rows.append(
            {
                "told by": "(the look model)",
                "strength": None,
                "drops": scoring.counted(before["drops"]),
                "the twelve right": scoring.counted(before["twelve"]),
            }
        )
    for told in ("tokens", *WORDS):
        if before and (cell := found.get(f"look-{told.replace(' ', '-')}")):
            rows += [
                {
                    "told by": "HFI" if told == "tokens" else f'"{told}"',
                    "strength": float(strength),
                    "drops": scoring.counted(one["drops"]),
                    "the twelve right": scoring.counted(one["twelve"]),
                    "the twelve kept": _kept(before["twelve"], one["twelve"]),
                    "others kept": _kept(before["other"], one["other"]),
                    "_by annotator": scoring.share(one["annotator"]),
                }
                for strength, one in cell["strengths"].items()
            ]
    for arm, title in (("tokens", "HFI"), ("word", '"pistol"')):
        if cell := found.get(f"pistols-{arm}"):
            toys += [
                {
                    "told by": title,
                    "asked for": name,
                    "before": scoring.counted(cell["before"][name]),
                    "after": scoring.counted(cell["after"][name]),
                }
                for name in cell["before"]
            ]
    verdict, against = _verdict(rows, toys), _against(found, rows)
    for row in rows:
        row.pop("_by annotator", None)
    return {"parts": {"the look": rows, "HFI against the best words": against, "pistols": toys}, **verdict}


def _against(found: Mapping[str, dict], rows: list[dict]) -> list[dict]:
    """Drops left by HFI less those left by the best words, each where it still keeps KEPT, paired over prompts and seeds."""
    from hfi.evaluation.statistics import paired_difference
    from hfi.seeds import numpy_generator

    hfi, best = _places(rows)
    told = {row["told by"] for row in rows}
    if not hfi or not best or not all(f'"{word}"' in told for word in WORDS):  # of some words the best would be another
        return []
    marks = [
        [mark == "1" for mark in found[f"look-{told}"]["strengths"][f"{row['strength']:g}"]["drops"]]
        for told, row in ((best["told by"].strip('"').replace(" ", "-"), best), ("tokens", hfi))
    ]
    change = paired_difference(*marks, list(range(len(marks[0]))), numpy_generator(0, "proof", "table 3"))
    return [
        {
            "best words": best["told by"],
            "their strength": best["strength"],
            "HFI's": hfi["strength"],
            "drops, HFI minus the words": change.plain(),
        }
    ]


def _places(rows: list[dict]) -> tuple[dict | None, dict | None]:
    """The places of HFI and of the best words: those with the fewest drops by the annotators' judge, which does not score."""
    places = {told: _place(rows, told) for told in dict.fromkeys(row["told by"] for row in rows if row["strength"])}
    words = [row for told, row in places.items() if told != "HFI"]
    return places.get("HFI"), min(words, key=lambda row: row["_by annotator"], default=None)


def _kept(before: str, after: str) -> float | None:
    return round(after.count("1") / before.count("1"), 4) if before.count("1") else None


def _place(rows: list[dict], told: str) -> dict:
    """The row of a telling at its furthest strength that keeps KEPT of the twelve and of others; where none does, the weakest."""
    mine = sorted((row for row in rows if row["told by"] == told), key=lambda row: row["strength"])
    able = [row for row in mine if min(row["the twelve kept"], row["others kept"]) >= KEPT]
    return able[-1] if able else mine[0]


def _verdict(rows: list[dict], toys: list[dict]) -> dict:
    hfi, best = _places(rows)
    if not hfi or not best:
        return {"shows": None, "where_not": "HFI and words are not both there"}
    shown = lambda row: f"{row['drops']['value']:.2f} at strength {row['strength']:g}"  # noqa: E731
    missed = []
    if hfi["drops"]["value"] >= best["drops"]["value"]:
        missed.append(f"HFI leaves drops in {shown(hfi)}, the best words ({best['told by']}) in {shown(best)}")
    elif hfi["drops"]["high"] >= best["drops"]["value"]:
        missed.append(f"HFI is below the best words ({best['told by']}, {shown(best)}) by less than its interval: {shown(hfi)}")
    if min(hfi["the twelve kept"], hfi["others kept"]) < KEPT:
        missed.append(f"HFI keeps less than {KEPT} of the objects at every strength")
    left, by_word = ({row["asked for"]: row["after"]["value"] for row in toys if row["told by"] == told} for told in ("HFI", '"pistol"'))
    if left and left[REAL] >= left[TOY]:
        missed.append(f"after HFI real pistols are drawn in {left[REAL]:.2f}, toy ones in {left[TOY]:.2f}")
    if by_word and by_word[TOY] - by_word[REAL] > APART:
        missed.append(f"the word tells the pistols apart as well: real ones {by_word[REAL]:.2f}, toy ones {by_word[TOY]:.2f}")
    unknown = [] if left else ["the pistols are not measured yet"]
    return {"shows": False if missed else (None if unknown else True), "where_not": "; ".join([*missed, *unknown])}


def describe(options) -> str:
    """What the table says where its model is not there."""
    folder = Path(options.look)
    if not model_missing(folder / "model"):
        return ""
    where = "the folder given" if folder.is_absolute() else f"`{folder}`"
    return (
        f"The look model is not there ({where}), so only the pistols can be made; it comes from training/emoji/look.py, "
        "or name one with `--look`."
    )
