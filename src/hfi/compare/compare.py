"""Every eraser, told the concept in words and in tokens, on the same prompts and seeds, by the judge that only scores.

compare/prompts.json, before/            the prompt sets, and the original model's pictures
compare/<method>-<words|tokens>/         delta.safetensors, log.jsonl, after/ (pictures), cell.json (numbers, outcomes, cost)
compare/<method>-.../strengths.json, level.json  with --strengths: outcomes at each, and those where 0.95 of the rest is kept
compare/compare.html, compare.json       the page, and what is on it

A cell whose cell.json carries the key of the present settings is not done again, so the command continues where it was stopped;
within a cell erasing and drawing continue from their own checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from hfi.compare.level import LEVEL_SETS, level_of, level_tests, shown
from hfi.compare.page import page, told_by
from hfi.compare.tests import paired_tests
from hfi.compare.together import check_together, inputs_of, read_comparison, together
from hfi.config import Erase, StudyConfig
from hfi.diffusion.model import Model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.erasure.delta import applied, load_delta
from hfi.erasure.erase import check_erasable, erase_into
from hfi.evaluation import others
from hfi.evaluation.concept_rate import check_judge, is_concept
from hfi.evaluation.drawing import distinct, draw_and_judge
from hfi.evaluation.evaluate import AFTER_SETS, base_sets, frozen_neighbours
from hfi.evaluation.measure import CONCEPT_SETS, Pictures, measure, named_benign
from hfi.evaluation.quick import round_score
from hfi.evaluation.retention import is_right
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.perception.clip import load_encoder
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.workspace import StageRun, Workspace, digest, peak_memory_mib, read_json, reset_peak_memory, write_bytes, write_json

MARKED = (*CONCEPT_SETS, "other", "neighbours")


def compare(
    model: Model,
    study: Workspace,
    methods: Sequence[str],
    given: Sequence[str] = ("words", "tokens"),
    quick: int = 0,
    strengths: Sequence[float] = (),
    others_too: Sequence[Workspace] = (),
) -> Path:
    """Do every cell that is missing, and write the page; returns its path.

    Args:
        methods: of `erase.method`; their settings are the study's.
        given: "words", "tokens" or both. Under words `erase.flagged_prompts` is 0: nothing that people flagged is told.
        quick: pictures a prompt set, instead of the study's `evaluate` settings; 0: those.
        strengths: at which each erasure is put on beside 1, to compare where all keep as much (hfi.evaluation.level); in (0, MAX_STRENGTH].
        others_too: studies whose comparison is done, for the part over several concepts (together.py).
    """
    read = [read_comparison(other) for other in others_too]
    study = Workspace(study.root, shorter(study.config, quick))
    config, concept, seed = study.config.evaluate, study.config.concept, study.config.seed
    images, reward, tokens = Generated.load(study), RewardResult.load(study), Inverted.load(study)
    vocabulary = load_vocabulary(concept.vocabulary)
    judge = load_judge(config.judge, vocabulary, str(model.device))
    check_judge(judge, concept, vocabulary)
    encoder = load_encoder(study.config.reward.encoder, str(model.device))
    inputs = inputs_of(study)
    asked = [{"method": method, "given_as": told} for method in methods for told in given]
    if read:
        check_together([{"concept": concept.name, "judge": judge.name, "quick": quick, "cells": asked}, *read])
    common = {"model": model.hash, "seed": seed, "evaluate": config.model_dump(mode="json"), "inputs": inputs, "judge": judge.name}
    common["concept"] = concept.model_dump(mode="json")
    if files := study.files():  # a vocabulary of one's own says what counts
        common["files"] = files
    if study.config.erase.also:
        common["also"] = study.also_reads()

    base = opened(study.path("compare"), digest(common), seed, keep=True)
    pictures = Pictures(seed, model.content, config, base_sets(study, vocabulary, images, tokens))
    also = others.others_of(study, judge, model.content, str(model.device))
    with bar() as progress:
        wanted = pictures.in_sets([*CONCEPT_SETS, "other", "floor", "gallery"])
        found = draw_and_judge(model, wanted, tokens.tokens, judge, config, base, "before", "base", progress, "Drawing before")
        pictures.verdicts["before"].update(found)
        also = others.look(also, "before", (*others.SETS, "floor"), (judge, found), model, config, base, progress)
    frozen_neighbours(study, vocabulary, encoder, pictures, base, images, also)
    with bar() as progress:
        fresh = distinct(pictures.in_sets(["neighbours"]), pictures.verdicts["before"])
        found = draw_and_judge(model, fresh, tokens.tokens, judge, config, base, "before", "near", progress, "Drawing neighbours before")
        pictures.verdicts["before"].update(found)

    cells = []
    for method in methods:
        for told in given:
            erase = cell_settings(study.config.erase, method, told)
            check_erasable(images, reward, study, erase)
            rounds = {"rounds": study.config.label.simulated_judge} if method == "hardened" else {}
            key = digest({**common, **rounds, "erase": erase.decisive()})
            run = opened(study.path("compare", f"{method}-{told}"), key, seed)
            if run is not None:
                _do_cell(run, model, study, erase, images, reward, tokens, pictures, also, judge, vocabulary)
            cells.append({"also": [], "floor": None, **read_json(study.path("compare", f"{method}-{told}", "cell.json"))})
            if strengths:
                seen = _at_strengths(cells[-1], model, study, strengths, tokens, pictures, judge, vocabulary)
                cells[-1]["level"] = level_of(marks(pictures, study, vocabulary, "before"), seen)
                write_json(study.path("compare", f"{method}-{told}", "level.json"), cells[-1]["level"])
    result = {
        "simulated": True,
        "judge": judge.name,
        "concept": concept.name,
        "quick": quick,
        "inputs": inputs,
        "cells": [{name: value for name, value in cell.items() if name not in ("outcomes", "level")} for cell in cells],
        "tests": paired_tests(cells, seed, config.bootstrap),
        "at_level": [
            {"method": cell["method"], "told_by": told_by(cell), **shown(cell["level"], seed, config)} for cell in cells if "level" in cell
        ],
        "level_tests": level_tests(cells, seed, config.bootstrap),
    }
    if read:
        own = {"concept": concept.name, "judge": judge.name, "quick": quick, "cells": cells}
        result["together"] = together([own, *read], seed, config.bootstrap)
    write_json(study.path("compare", "compare.json"), result)
    write_bytes(study.path("compare", "compare.html"), page(result, study, pictures).encode())
    return study.path("compare", "compare.html")


def shorter(config: StudyConfig, quick: int) -> StudyConfig:
    """The settings with `quick` pictures a prompt set; 0 leaves them as they are."""
    few = {"prompts_per_set": quick, "retention_prompts": quick, "token_pictures": quick, "seeds_per_prompt": 1, "curve_prompts": 0}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=few)}) if quick else config


def cell_settings(erase: Erase, method: str, told: str) -> Erase:
    """The study's settings for one cell: the same tuning for words and tokens."""
    own = {"method": method, "concept": told, "snapshots": 0, "save_pipeline": False}
    return erase.model_copy(update=own | ({"flagged_prompts": 0.0} if told == "words" else {}))


def opened(folder: Path, key: str, seed: int, keep: bool = False) -> StageRun | None:
    """The folder, cleared of what other settings left and ready to be worked in; None for a cell that is finished."""
    cell, partial = folder / "cell.json", folder / "partial.json"
    if cell.exists() and read_json(cell)["key"] == key:
        return None
    begun = read_json(partial) if partial.exists() else {}
    same = begun.get("key") == key
    if not same:
        for name in ("before", "parts", "prompts.json") if keep else (".",):
            place = folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    run = StageRun("compare", folder, key, seed, resumed_seconds=float(begun.get("seconds", 0.0)) if same else 0.0)
    run.checkpoint()
    return run


def _do_cell(
    run: StageRun, model: Model, study: Workspace, erase: Erase, images, reward, tokens, pictures: Pictures, also, judge, vocabulary
):
    """Erase, draw, judge, count; cell.json is written last."""
    reset_peak_memory()
    file, cost = run.path("delta.safetensors"), run.path("cost.json")
    if not cost.exists():  # written last
        scored = Workspace(study.root, study.config.model_copy(update={"erase": erase}))
        erase_into(run, model, images, reward, tokens, scored, erase, round_score(model, scored))
        write_json(cost, {
            "seconds": round(run.seconds, 2), "peak_memory_mib": round(peak_memory_mib(), 1), "bytes": file.stat().st_size
        })  # fmt: skip
    with bar() as progress, applied(model, load_delta(file, model)):
        wanted, told = pictures.in_sets(AFTER_SETS), f"Drawing after {erase.method} ({erase.concept})"
        after = draw_and_judge(model, wanted, tokens.tokens, judge, study.config.evaluate, run, "after", "base", progress, told)
        also = others.look(also, "after", others.SETS, (judge, after), model, study.config.evaluate, run, progress)
    seen = Pictures(pictures.seed, pictures.model_hash, pictures.config, pictures.sets, {**pictures.verdicts, "after": after})
    metrics = measure(seen, study, vocabulary, reward.kept_words, named_benign(images))
    cell = {
        "key": run.key,
        "method": erase.method,
        "given_as": erase.concept,
        "settings": erase.decisive(),
        "cost": read_json(cost),
        "rates": metrics["concept_rate"],
        "neither": metrics["neither_intervals"],
        "retention": metrics["retention"],
        "floor": metrics["floor_interval"],
        "also": others.measured(also, seen.seed, study.config.evaluate.bootstrap),
        "outcomes": outcomes(seen, study, vocabulary) | others.outcomes(also),
    }
    write_json(run.path("cell.json"), cell)
    shutil.rmtree(run.path("parts"))
    run.path("partial.json").unlink()


def marks(pictures: Pictures, study: Workspace, vocabulary, side: str, sets: Sequence[str] = MARKED) -> dict[str, list]:
    """Set -> [[prompt, 0 or 1], ...] of every picture of one side, in one order: the concept is drawn, or what was asked for is.

    `styles` are those of the pictures of `other` that ask for one.
    """
    concept, names, seen = study.config.concept, members(study.config.concept, vocabulary), pictures.verdicts[side]
    found = {}
    for name in sets:
        rows = pictures.pairs(name)
        if name in CONCEPT_SETS:
            found[name] = [[prompt, int(is_concept(seen[picture], concept, names))] for _, picture, prompt in rows]
        else:
            by = "style" if name == "neighbours" and concept.kind == "style" else "object"
            found[name] = [[prompt, int(is_right(seen[picture], probe, by))] for probe, picture, prompt in rows]
        if name == "other":
            found["styles"] = [[prompt, int(is_right(seen[picture], probe, "style"))] for probe, picture, prompt in rows if probe.style]
    return found


def _at_strengths(
    cell: dict, model: Model, study: Workspace, strengths: Sequence[float], tokens, pictures: Pictures, judge, vocabulary
) -> dict:
    """{strength: marks} of one finished cell, at 1 those of the cell; each strength is drawn once and kept in strengths.json."""
    folder, key = study.path("compare", f"{cell['method']}-{cell['given_as']}"), cell["key"]
    file, sets = folder / "strengths.json", (*LEVEL_SETS, "other")
    found = read_json(file) if file.exists() else {}
    kept = found["at"] if found.get("key") == key else {}
    run = StageRun("compare", folder, key, study.config.seed)
    for strength in sorted({float(one) for one in strengths} - {1.0}):
        side = f"strength-{strength:g}"
        if f"{strength:g}" in kept:
            continue
        with bar() as progress, applied(model, load_delta(folder / "delta.safetensors", model), strength):
            told = f"Drawing after {cell['method']} ({cell['given_as']}) at {strength:g}"
            after = draw_and_judge(
                model, pictures.in_sets(sets), tokens.tokens, judge, study.config.evaluate, run, side, "base", progress, told
            )
        seen = Pictures(pictures.seed, pictures.model_hash, pictures.config, pictures.sets, {"after": after})
        kept[f"{strength:g}"] = marks(seen, study, vocabulary, "after", sets)
        write_json(file, {"key": key, "at": kept})
        shutil.rmtree(run.path("parts"))
        run.path("partial.json").unlink(missing_ok=True)
    wanted = {f"{float(one):g}" for one in strengths}
    return {"1": cell["outcomes"]} | {name: one for name, one in kept.items() if name in wanted}


def outcomes(pictures: Pictures, study: Workspace, vocabulary) -> dict[str, list]:
    """`marks` of the pictures after erasing, the members that no feedback prompt named among them."""
    found = marks(pictures, study, vocabulary, "after")
    asked = zip(found["explicit"], pictures.pairs("explicit"), strict=True)
    found["unlisted"] = [row for row, (probe, *_) in asked if probe.listed is False]
    return found
