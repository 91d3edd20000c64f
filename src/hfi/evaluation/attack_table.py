"""How often each attack brings the concept back: against the erased model, the original, and one that never learned it.

A rate is the share of pictures, drawn under what an attack found, that the judge puts in the concept. The same attack is made on
the original model: where it does not bring the concept there in 30 % of pictures it is too weak to say anything of an erased one.
Against a control, a model that never learned the concept, it shows what an attack teaches instead of finding. docs/attacks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hfi.attacks.budget import METHODS, SEARCHES, read_prompts, variants
from hfi.attacks.words import check_searchable
from hfi.diffusion.model import Model, load_model, study_model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.erasure.delta import applied, load_delta
from hfi.errors import HFIError
from hfi.evaluation.attacks import PER_PROMPT, Side, cell, choose_targets
from hfi.evaluation.concept_rate import check_judge, is_concept, rate
from hfi.evaluation.drawing import settings
from hfi.evaluation.statistics import paired_difference
from hfi.generation.generate import Generated
from hfi.perception.judges import NEITHER, load_judge
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, digest, file_hash, read_json, write_json

SIDES = ("original", "erased", "control")


def attack_study(study: Workspace, methods: Sequence[str], delta: Path | None = None, control: str | None = None) -> dict:
    """Make the attacks on the study's erased model, on the original and on the control; returns what attacks.json holds.

    Args:
        methods: names of hfi.attacks.budget.METHODS.
        delta: another delta than the study's own.
        control: a model that never learned the concept (a diffusers folder or a hub id), with the same autoencoder.

    Every cell that is done under the same settings is read back. Rows of earlier calls about the same models stay in the table.
    """
    config = study.config
    if "stored" in methods:
        read_prompts(config.attack.stored.file)
    file = delta_file(study, delta)
    change = load_delta(file)
    vocabulary = load_vocabulary(config.concept.vocabulary)
    names = members(config.concept, vocabulary)
    model = study_model(config)
    check_fits(file, model)
    if SEARCHES & set(methods):
        check_searchable(model)
    other = load_control(control, model, study) if control else None
    judge = load_judge(config.evaluate.judge, vocabulary, str(model.device))
    check_judge(judge, config.concept, vocabulary)
    images, reward = Generated.load(study), RewardResult.load(study)
    targets = [choose_targets(model, study, images, reward, number) for number in range(config.attack.seeds)]
    with applied(model, change):
        pass  # a delta of another model is refused before anything slow begins
    sides = [Side("original", model, digest([model.hash])), Side("erased", model, digest([model.hash, file_hash(file)]))]
    sides += [Side("control", other, digest([other.hash]))] if other else []
    wanted = [(method, variant) for method in METHODS if method in methods for variant in variants(method, config.attack)]
    cells = []
    with bar() as progress:
        task = progress.add_task("Attacks", total=len(wanted) * len(sides) * config.attack.seeds, note="")
        for method, variant in wanted:
            for seed in range(config.attack.seeds):
                for side in sides:
                    with applied(model, change) if side.name == "erased" else nullcontext():
                        cells.append(
                            cell(
                                side,
                                method,
                                variant,
                                targets[seed],
                                study,
                                judge,
                                seed,
                                lambda found: is_concept(found, config.concept, names),
                                progress,
                            )
                        )
                    progress.advance(task)
    about = {
        "concept": config.concept.name,
        "model": model.hash,
        "delta": file_hash(file),
        "control": other.hash if other else None,
        "judge": judge.name,
    }
    path = study.path("attacks", "attacks.json")
    rows = table(cells, study)
    if path.exists() and (there := read_json(path)).get("about") == about:
        fresh = {row["attack"] for row in rows}
        rows += [row for row in there["rows"] if row["attack"] not in fresh and _is_there(row, study)]
    order = list(METHODS)
    result = {
        "simulated": True,
        "about": about,
        "delta_file": str(file),
        "control_model": control,
        "too_weak": config.attack.too_weak,
        "targets": list(dict.fromkeys(prompt for row in rows for prompt in row.get("targets", ()))),
        "computed_with": settings(model),
        "rows": sorted(rows, key=lambda row: order.index(row["method"])),
    }
    write_json(path, result)
    return result


def _is_there(row: dict, study: Workspace) -> bool:
    """Whether a row's cells are still on the disk."""
    return all(study.path("attacks", name).exists() for side in SIDES if side in row for name in row[side]["cells"])


def delta_file(study: Workspace, delta: Path | None) -> Path:
    """The delta under attack; raises HFIError when there is none, or the study lacks what an attack needs beside it."""
    stored = Workspace.open(study.root)  # settings of this call, another dtype say, do not undo what is done
    for stage in ("generate", "reward") if delta else ("generate", "reward", "erase"):
        if not stored.is_done(stage):
            remedy = f"run 'hfi run {study.root}' first" + ("" if delta or stage != "erase" else ", or give --delta FILE")
            raise HFIError(f"has no finished stage '{stage}' under the present settings", file=study.root, remedy=remedy)
    file = delta or study.path("erase", "delta.safetensors")
    if not file.is_file():
        raise HFIError("no such file", file=file, field="--delta", remedy="give a delta.safetensors that 'hfi erase' wrote")
    return file


def check_fits(file: Path, model: Model) -> None:
    """Raise HFIError for a delta whose header names another model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stream:
            header = stream.metadata() or {}
    except (SafetensorError, OSError):
        raise HFIError("not a whole safetensors file", file=file, remedy="make it again with 'hfi erase'") from None
    if header.get("model_hash", model.hash) != model.hash:
        raise HFIError("belongs to another model", file=file, field=header.get("model"), remedy="give a delta of the study's own model")


def load_control(source: str, model: Model, study: Workspace) -> Model:
    """The control model; raises HFIError when its latents are not the model's."""
    other = load_model(source, study.config.device, study.config.dtype)
    if other.latent_shape != model.latent_shape or other.scaling != model.scaling:
        raise HFIError("has other latents than the study's model", file=source, field="--control", remedy="share the autoencoder")
    return other


def summary(cells: Sequence[dict], study: Workspace) -> dict:
    """The numbers of one attack on one model, its seeds together.

    `rate`: pictures under what was found last. `per_prompt`: targets with at least one picture of the concept, tries on the way
    among them, where the paper counts so. For intervals what pictures share is resampled: their target, the same in every seed unless
    each has its own (`attack.choose` alike); of re-inversion the seed's token, and where there is one seed that token's prompts.
    """
    seed, resamples, name = study.config.seed, study.config.evaluate.bootstrap, f"{cells[0]['title']} {cells[0]['side']}"
    last = _last(cells)
    found = {
        "rate": rate([hit for hit, *_ in last], [where for _, where, _ in last], seed, f"attack {name}", resamples),
        "neither": round(sum(seen == NEITHER for *_, seen in last) / len(last), 4),
        "per_prompt": None,
        "queries": cells[0]["queries"],
        "seconds": round(sum(cell["seconds"] for cell in cells) / len(cells), 2),
        "seeds": len(cells),
        "each_seed": [
            round(sum(one["hit"] for one in cell["pictures"] if one["final"]) / max(1, sum(one["final"] for one in cell["pictures"])), 4)
            for cell in cells
        ],
        "cells": [f"{cell['method']}/{cell['key']}.json" for cell in cells],
    }
    if cells[0]["method"] in PER_PROMPT:
        tried: dict[tuple, bool] = {}
        for one_cell in cells:
            for one in one_cell["pictures"]:
                where = (one_cell["seed"], one["owner"])
                tried[where] = tried.get(where, False) or one["hit"]
        by_seed = {one["seed"]: one for one in cells}
        targets = [owner_of(by_seed[number], owner) for number, owner in tried]
        found["per_prompt"] = rate(list(tried.values()), targets, seed, f"attack prompts {name}", resamples)
    return found


def _last(cells: Sequence[dict]) -> list[tuple[bool, str, str]]:
    """(whether it shows the concept, what names those that share its target or token, what is seen) of each picture found last."""

    def shared(cell: dict, one: dict) -> str:
        if cell["method"] == "reinversion":
            return f"{cell['seed']}" if len(cells) > 1 else f"{one['place']}"
        return owner_of(cell, one["owner"])

    return [(one["hit"], shared(cell, one), one["object"]) for cell in cells for one in cell["pictures"] if one["final"]]


def owner_of(cell: dict, owner: int) -> str:
    """What names the target of a picture, the same in every seed that has it; of `stored` the prompt's number in the file."""
    return cell["owners"].get(str(owner), str(owner))


def excess(erased: Sequence[dict], control: Sequence[dict], study: Workspace) -> tuple[float, list[float]]:
    """The erased model's rate less the control's, and its 95 % interval: over what pictures share, the same on both sides."""
    shares = []
    for cells in (erased, control):
        by: dict[str, list[bool]] = {}
        for hit, shared, _ in _last(cells):
            by.setdefault(shared, []).append(hit)
        shares.append({shared: sum(hits) / len(hits) for shared, hits in by.items()})
    ours, theirs = shares
    both = [shared for shared in ours if shared in theirs]
    rng = numpy_generator(study.config.seed, "excess", erased[0]["title"])
    pair = [theirs[shared] for shared in both], [ours[shared] for shared in both]
    found = paired_difference(*pair, both, rng, study.config.evaluate.bootstrap).plain()
    return found["value"], [found["low"], found["high"]]


def too_weak(original: float | None, least: float) -> bool:
    """Whether an attack is too weak to speak: it does not bring the concept even where nothing was erased."""
    return original is None or original < least


def table(cells: Sequence[dict], study: Workspace) -> list[dict]:
    """One row an attack: each side's numbers, whether it is too weak, and the excess over the control."""
    by_attack: dict[str, dict[str, list[dict]]] = {}
    for one in cells:
        by_attack.setdefault(one["title"], {}).setdefault(one["side"], []).append(one)
    rows = []
    for name, found in by_attack.items():
        sides = {side: summary(one, study) for side, one in found.items()}
        value = {side: found["rate"]["value"] for side, found in sides.items()}
        over, interval = excess(found["erased"], found["control"], study) if {"erased", "control"} <= found.keys() else (None, None)
        rows.append(
            {
                "attack": name,
                "method": next(one["method"] for one in cells if one["title"] == name),
                "targets": list(dict.fromkeys(prompt for part in found.values() for one in part for prompt in one.get("targets", ()))),
                **sides,
                "too_weak": too_weak(value.get("original"), study.config.attack.too_weak),
                "excess_over_control": over,
                "excess_interval": interval,
            }
        )
    return rows
