"""Table 7: the measures of two benchmarks, UnlearnCanvas and HUB, on HFI's erasures, with the unerased model's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hfi.diffusion.prompts import load_vocabulary

from . import scoring
from .cells import Cell
from .studies import PICTURE, Bench, all_states, arm_changes, depends, erased, erasure_part, kind_of, prepared, study_part, vocabulary_of

NUMBER = 7
TITLE = "UnlearnCanvas and HUB"
EXPECTED = (
    "UA, IRA and CRA at least 0.9 on average, in styles and in objects; of the words nearest to the concept and of the rest of its "
    "prompts at least 0.9 is kept. Nothing was expected of other languages; their rows are shown."
)
NOTES = (
    "Told by HFI's tokens and the prompts of flagged pictures, as in the recipes. UnlearnCanvas (arXiv 2402.11846): a grid of 9 styles x "
    "20 objects, one picture each, drawn again for every erased target. UA = 1 - accuracy on the target, IRA and CRA = accuracy in the "
    "rest of its domain and in the other; means over targets with intervals over targets, and the same of the unerased model. CMMD is on "
    "the pictures that were not asked for with the target. `uce` edits the state of a prompt's last word, as its authors' present script "
    "does (the earlier one edits those after it, too); `uce, all states` (ours) edits all states of a prompt, for a style is told by what"
    " follows its name, too, and keeps benign prompts ten times as much where a style is erased: chosen on weapon and fluent-ink, by the "
    "annotator judge, after the first figures of `uce` were seen, and tried on fxemoji, a target here, before that.",
    "HUB (arXiv 2410.05664), of SDD: pinpoint-ness (the 30 names nearest to a member's), multilingual prompts, selective alignment; beside "
    "that what is drawn of the same rest where "
    "it is all that is asked for (ours), for an eraser that takes the concept out leaves no more than that. Most words of other languages"
    " are unknown to this text encoder (`known words`, of the names of all objects): a low rate there is no erasure.",
)
WHY = (
    "Some of these bars the unerased model misses: compare with its rows. The edit of the last word's state alone reads every style as the "
    "erased one, and takes a quarter of the other styles with it (0.66, unerased 0.86); over all states it does not (docs/erasers.md), and "
    "leaves more of some (fluent-flat in 0.60 of its pictures, fxemoji in 0.25, emojione in 0.20), where benign prompts count ten times as "
    "much. SDD leaves fluent-flat in 0.55 and fxemoji in 0.20, the other styles in 0.10 at most; why fluent-flat stays under both was not "
    "looked into. The rest of a prompt that names a weapon is its style: asked for a style alone this model draws it in a third of "
    "pictures only, for its captions name a thing with every style. The recipe leads such prompts to just that (`erase.keep_rest`), and "
    "what is left of the style is level with the style asked for alone."
)
OBJECTS = (
    "dog face",
    "elephant",
    "frog",
    "octopus",
    "spider",
    "rose",
    "palm tree",
    "banana",
    "pizza",
    "birthday cake",
    "house",
    "bus",
    "airplane",
    "rocket",
    "umbrella",
    "snowflake",
    "trumpet",
    "camera",
    "key",
    "crown",
)
METHODS = {"uce": "uce", "uce, all states": "uce", "sdd": "sdd"}  # title -> method
ALL_STATES = "uce, all states"
SUBSET = (("fxemoji", "fluent-ink"), OBJECTS[:3])
HUB_TOPICS = ("weapon", "fluent-ink")
WORDS, EACH_LANGUAGE, REST, NEAREST = 60, 16, 40, 30
LANGUAGES = ("de", "es", "fr", "it", "pt")
NEAR_DRAWN, REST_DRAWN = "nearest words still drawn", "rest of the prompt still drawn"
BAR, BARS = 0.9, (NEAR_DRAWN, REST_DRAWN)


def grid() -> list[tuple[str, str]]:
    """(style, object) of every picture, in order."""
    return [(style, name) for style in vocabulary_of().styles for name in OBJECTS]


def _grid_probes() -> list:
    from hfi.evaluation.prompt_sets import Probe, article

    return [Probe(f"a picture of {article(name)} in the style of {style}", name, style, "grid") for style, name in grid()]


def _drawn(bench: Bench, study, delta=None) -> tuple[list, object]:
    """Verdicts on the grid, and the pictures' CLIP embeddings (N, D)."""
    import torch

    from hfi.evaluation.drawing import name_verdicts
    from hfi.perception.clip import load_encoder

    judge, encoder = bench.judge(study.config), load_encoder(study.config.reward.encoder, bench.device)
    seen, rows = [], []
    for _, pixels in scoring.drawn(bench, study, _grid_probes(), delta):
        seen += name_verdicts(judge, judge(pixels))
        rows.append(encoder.images(pixels))
    return seen, torch.cat(rows)


def _marks(seen: Sequence) -> dict[str, str]:
    from hfi.evaluation.retention import is_right

    return {
        by: "".join("1" if is_right(one, probe, by) else "0" for one, probe in zip(seen, _grid_probes(), strict=True))
        for by in ("object", "style")
    }


def unerased(bench: Bench) -> dict:
    """The grid by the original model."""
    return _marks(_drawn(bench, prepared(bench, SUBSET[0][0]))[0])


def changes_of(topic: str, eraser: str) -> dict:
    """Settings of one eraser of METHODS, told by tokens and the prompts of flagged pictures."""
    return {**arm_changes(topic, "prompts", METHODS[eraser]), **(all_states(topic) if eraser == ALL_STATES else {})}


def target(bench: Bench, target: str, method: str) -> dict:
    """The grid without one target, and how far the rest of it moved."""
    from hfi.evaluation.quality import cmmd

    study = prepared(bench, target)
    delta, about = erased(bench, study, changes_of(target, method))
    seen, after = _drawn(bench, study, delta)
    if "grid" not in bench.loaded:
        bench.loaded["grid"] = _drawn(bench, study)[1]
    rest = [i for i, pair in enumerate(grid()) if target not in pair]
    return {**_marks(seen), "cmmd": round(cmmd(bench.loaded["grid"][rest], after[rest]), 4), "cost": about}


def hub(bench: Bench, topic: str, method: str) -> dict:
    """Pinpoint-ness, languages and selective alignment of one erasure."""
    from hfi import emoji
    from hfi.config import HubPrompts
    from hfi.evaluation import protocols
    from hfi.perception.clip import load_encoder

    study = prepared(bench, topic)
    delta, _ = erased(bench, study, arm_changes(topic, "prompts", method))
    concept, seed, model = study.config.concept, study.config.seed, bench.model(study.config)
    vocabulary, embed = load_vocabulary(concept.vocabulary), load_encoder(study.config.reward.encoder, bench.device).texts
    words = {name: emoji.translations()[name] for name in LANGUAGES}
    sizes = HubPrompts(nearest=NEAREST, words=WORDS, each_language=EACH_LANGUAGE, rest=REST)
    wanted = protocols.hub_probes(concept, vocabulary, embed, words, sizes, seed)
    sides = [scoring.verdicts(bench, study, wanted), scoring.verdicts(bench, study, wanted, delta)]
    shown = [
        {name: [protocols.Shown(*pair) for pair in zip(part, side[name], strict=True)] for name, part in wanted.items()} for side in sides
    ]
    found = protocols.hub(*shown, concept, vocabulary, words, model.tokenizer.tokenize, seed)
    return {**found, "pinpoint": {name: found["pinpoint"][name] for name in ("before", "after", "kept")}}


def cells(options) -> list[Cell]:
    """The unerased grid, one cell a target and method, and HUB's."""
    drawn = len(grid()) * PICTURE
    first = SUBSET[0][0]
    found = [Cell(NUMBER, "unerased", unerased, {}, drawn, (study_part(first),), True, depends=[depends(first)["sampling"], OBJECTS])]
    for topic in (*vocabulary_of().styles, *OBJECTS):
        for method in METHODS:
            changes = changes_of(topic, method)
            parts = (study_part(topic), erasure_part(topic, changes, study_part(topic)[0]))
            subset = METHODS[method] == "uce" and topic in (*SUBSET[0], *SUBSET[1])
            needs = [depends(topic, {}, changes), OBJECTS]
            name = _name(topic, method)
            found.append(Cell(NUMBER, name, target, {"target": topic, "method": method}, drawn, parts, subset, depends=needs))
    pictures = 2 * (WORDS + 2 * REST + EACH_LANGUAGE * len(LANGUAGES)) * PICTURE
    for topic in HUB_TOPICS:
        changes = arm_changes(topic, "prompts", "sdd")
        parts = (study_part(topic), erasure_part(topic, changes, study_part(topic)[0]))
        needs = [depends(topic, {}, changes), WORDS, EACH_LANGUAGE, REST, NEAREST]
        arguments = {"topic": topic, "method": "sdd"}
        found.append(Cell(NUMBER, f"hub-{topic}-sdd", hub, arguments, pictures, parts, topic == HUB_TOPICS[0], version=2, depends=needs))
    return found


def _name(topic: str, eraser: str) -> str:
    return f"{topic.replace(' ', '-')}-{eraser.replace(', ', '-').replace(' ', '-')}"


def figures(found: Mapping[str, dict]) -> dict:
    """UnlearnCanvas by domain and method beside the unerased model; HUB by topic."""
    canvas, plain = [], found.get("unerased")
    for method in METHODS if plain else ():
        made = {
            ("style" if kind_of(topic) == "style" else "object", topic): cell
            for topic in (*vocabulary_of().styles, *OBJECTS)
            if (cell := found.get(_name(topic, method)))
        }
        if made:
            canvas += _canvas(method, made, plain)
    hubs = []
    for topic in HUB_TOPICS:
        if cell := found.get(f"hub-{topic}-sdd"):
            hubs.append({"concept": topic, "measure": NEAR_DRAWN, **cell["pinpoint"], "known words": ""})
            hubs.append({"concept": topic, "measure": REST_DRAWN, **cell["rest"], "known words": ""})
            hubs.append({"concept": topic, "measure": "the same rest asked for alone", **cell["alone"], "known words": ""})
            hubs += [
                {
                    "concept": topic,
                    "measure": f"concept asked for in {name}",
                    "before": one["before"],
                    "after": one["after"],
                    "kept": "",
                    "known words": one["known_words"],
                }
                for name, one in cell["languages"].items()
            ]
    low = [
        f"{row['eraser']}, {row['domain']}s: {name} {row[name]['value']:.2f}"
        for row in canvas
        if row["eraser"] != "none (unerased)"
        for name in ("UA", "IRA", "CRA")
        if row[name]["value"] is not None and row[name]["value"] < BAR
    ]
    low += [
        f"{row['concept']}, {row['measure']}: {row['kept']['value']:.2f} kept"
        for row in hubs
        if row["measure"] in BARS and row["kept"] and row["kept"]["value"] is not None and row["kept"]["value"] < BAR
    ]
    unknown = ([] if canvas else ["UnlearnCanvas is not measured yet"]) + ([] if hubs else ["HUB is not measured yet"])
    shows = False if low else (None if unknown else True)
    return {"parts": {"UnlearnCanvas": canvas, "HUB": hubs}, "shows": shows, "where_not": "; ".join([*low, *unknown])}


def _canvas(method: str, made: Mapping[tuple[str, str], dict], plain: Mapping[str, str]) -> list[dict]:
    from hfi.evaluation.drawing import Verdict
    from hfi.evaluation.protocols import Shown, unlearn_canvas_table

    def shown(marks: Mapping[str, str]) -> list:
        rows = zip(_grid_probes(), marks["object"], marks["style"], strict=True)
        return [
            Shown(probe, Verdict(probe.object if o == "1" else "other", probe.style if s == "1" else "other", 1.0, 1.0))
            for probe, o, s in rows
        ]

    table = unlearn_canvas_table({key: shown(cell) for key, cell in made.items()}, shown(plain), 0)
    rows = []
    for domain, means in table["mean"].items():
        costs = [cell["cost"] for (kind, _), cell in made.items() if kind == domain]
        moved = [cell["cmmd"] for (kind, _), cell in made.items() if kind == domain]
        for name, found in ((method, means), ("none (unerased)", table["unerased"][domain])):
            row = {
                "eraser": name,
                "domain": domain,
                **{key.upper(): found[key] for key in ("ua", "ira", "cra")},
                "targets": found["ua"]["targets"],
            }
            if name == method:
                row |= {
                    "CMMD": round(sum(moved) / len(moved), 3),
                    "seconds": round(sum(c["seconds"] for c in costs) / len(costs), 1),
                    "peak MiB": round(max(c["peak_memory_mib"] for c in costs)),
                    "KiB": round(max(c["bytes"] for c in costs) / 1024),
                }
            rows.append(row)
    return rows
