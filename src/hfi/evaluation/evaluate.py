"""Stage 7: the erased model beside the original, on the same prompts and seeds, by the judge that only scores.

evaluate/prompts.json         the frozen prompt sets, their rules and the pictures of each prompt
evaluate/before/, after/      one PNG per picture, the same name in both: the same prompt and seed
evaluate/reinversion/         fresh tokens learned against the erased model, and what it draws under them
evaluate/step-000050/ ...     what the snapshots of the erasure draw of a few of the same prompts and seeds
evaluate/curve.json           concept rate and retention over the steps of the erasure, on those prompts
evaluate/verdicts.jsonl       the judge's verdict on every picture
evaluate/metrics.json         the numbers; STUDY/metrics.json adds seconds and memory per stage (docs/metrics.md)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfi.config import Evaluate
from hfi.diffusion.model import Model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.erasure.delta import applied, load_delta
from hfi.evaluation import comeback, human, neighbours, others, prompt_sets
from hfi.evaluation.concept_rate import check_judge
from hfi.evaluation.curve import curve, folder_of, subset
from hfi.evaluation.drawing import Drawing, distinct, draw_and_judge, settings
from hfi.evaluation.measure import CONCEPT_SETS, Pictures, benign_quality, measure, named_benign, verdict_rows
from hfi.evaluation.measures_file import PARTS, read_measures
from hfi.evaluation.prompt_sets import Probe
from hfi.generation.generate import Generated
from hfi.perception.clip import load_encoder
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.workspace import STAGES, Workspace, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from hfi.erasure.erase import Erased
    from hfi.inversion.invert import Inverted
    from hfi.reward.reward import RewardResult

AFTER_SETS = (*CONCEPT_SETS, "other", "neighbours")


@dataclass(frozen=True)
class Evaluated:
    """What stage 7 leaves; `metrics` is STUDY/metrics.json."""

    folder: Path
    metrics: dict

    @classmethod
    def load(cls, study: Workspace) -> Evaluated:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("evaluate")
        return cls(folder, {**read_json(folder / "metrics.json"), **answers(study), **measures(study), **costs(study)})


def evaluate(model: Model, images: Generated, reward: RewardResult, tokens: Inverted, erased: Erased, study: Workspace) -> Evaluated:
    """Draw, judge and count; resumes at the first batch that is not whole.

    Args:
        model: the original model; the delta is applied and taken off again inside.
        images, reward: the feedback pictures and the top-K, from which re-inversion takes what inversion never saw.
        tokens: the soft tokens, drawn under as one of the prompt sets.
        erased: the delta that is scored.
    """
    if study.is_done("evaluate"):
        return publish(study)
    concept, config, seed = study.config.concept, study.config.evaluate, study.config.seed
    vocabulary = load_vocabulary(concept.vocabulary)
    judge = load_judge(config.judge, vocabulary, str(model.device))
    check_judge(judge, concept, vocabulary)
    encoder = load_encoder(study.config.reward.encoder, str(model.device))
    with study.stage("evaluate") as run:
        pictures = Pictures(seed, model.content, config, base_sets(study, vocabulary, images, tokens))
        also = others.others_of(study, judge, model.content, str(model.device))

        def draw(side: str, phase: str, wanted: Sequence[Drawing], rows: dict, progress, words: str) -> None:
            found = draw_and_judge(model, wanted, rows, judge, config, run, side, phase, progress, words)
            pictures.verdicts.setdefault(side, {}).update(found)

        with bar() as progress:
            base = pictures.in_sets([*CONCEPT_SETS, "other", "floor", "gallery"])
            draw("before", "base", base, tokens.tokens, progress, "Drawing before")
            seen = (judge, pictures.verdicts["before"])
            also = others.look(also, "before", (*others.SETS, "floor"), seen, model, config, run, progress)
        near = frozen_neighbours(study, vocabulary, encoder, pictures, run, images, also)
        with bar() as progress:
            fresh = distinct(pictures.in_sets(["neighbours"]), pictures.verdicts["before"])
            draw("before", "near", fresh, tokens.tokens, progress, "Drawing neighbours before")
            with applied(model, erased.delta):
                draw("after", "base", pictures.in_sets(AFTER_SETS), tokens.tokens, progress, "Drawing after")
                seen = (judge, pictures.verdicts["after"])
                also = others.look(also, "after", others.SETS, seen, model, config, run, progress)
                attacked = comeback.attack_pictures(images, reward)
                again = comeback.learn_tokens(model, images, attacked, study, run, progress)
                count = _probes(config.token_pictures, config)
                pictures.sets["reinversion"] = prompt_sets.tokens(list(again), concept, vocabulary, count, seed)
                draw("reinversion", "base", pictures.in_sets(["reinversion"]), again, progress, "Drawing what came back")
            few = distinct(picture for name in ("explicit", "other") for _, picture, _ in subset(pictures, name))
            length = study.config.erase.length()
            for step, file in erased.snapshots.items() if few else ():
                with applied(model, load_delta(file)):
                    draw(folder_of(step), "base", few, tokens.tokens, progress, f"Drawing after step {step} of {length}")
        metrics = measure(pictures, study, vocabulary, reward.kept_words, named_benign(images))
        metrics["also"] = others.measured(also, seed, config.bootstrap)
        metrics["curve"] = curve(pictures, study, vocabulary, tuple(erased.snapshots))
        metrics.update(benign_quality(pictures, encoder, run.folder, seed, config.bootstrap))
        metrics.update(
            simulated=True,
            judge=judge.name,
            annotators_simulated=bool(study.manifest("label")["facts"].get("simulated", study.config.label.source == "simulated")),
            sample_sizes={name: len(pictures.in_sets([name])) for name in pictures.sets},
            neighbours={"text": list(near.text), "image": list(near.image)},
            reinversion_pictures=len(attacked) if again else 0,
            computed_with=settings(model),
        )
        rows = verdict_rows(pictures, concept, members(concept, vocabulary))
        rows += "".join(verdict_rows(one.pictures, one.concept, one.names, f"{one.key}-") for one in also)
        write_bytes(run.path("verdicts.jsonl"), rows.encode())
        if metrics["curve"]:
            write_json(run.path("curve.json"), {"simulated": True, "judge": judge.name, "points": metrics["curve"]})
        write_json(run.path("metrics.json"), metrics)
        for part in run.path("parts").glob("*.json"):
            part.unlink()
        run.path("parts").rmdir()
        run.facts.update(pictures={side: len(found) for side, found in pictures.verdicts.items()}, judge=judge.name, simulated=True)
    return publish(study)


def publish(study: Workspace) -> Evaluated:
    """Write STUDY/metrics.json: the stage's numbers with every finished stage's cost."""
    found = Evaluated.load(study)
    write_json(study.path("metrics.json"), found.metrics)
    return found


def answers(study: Workspace) -> dict:
    """{"human": what raters of a blind evaluation said of these pictures}, or nothing."""
    found = {one.question: one.plain() for one in human.rates(study)}
    return {"human": found} if found else {}


def measures(study: Workspace) -> dict:
    """{"measures": what `hfi measure` found on this evaluation}, or nothing."""
    found = read_measures(study)
    return {"measures": {part: found[part] for part in PARTS}} if found else {}


def costs(study: Workspace) -> dict:
    """Seconds and peak memory of every finished stage, from their manifests."""
    manifests = {stage: manifest for stage in STAGES if (manifest := study.manifest(stage)) is not None}
    seconds = {stage: manifest["seconds"] for stage, manifest in manifests.items()}
    return {
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
        "peak_memory_mib": {stage: manifest["peak_memory_mib"] for stage, manifest in manifests.items()},
    }


def base_sets(study: Workspace, vocabulary, images: Generated, tokens: Inverted) -> dict[str, list[Probe]]:
    """All prompt sets but the neighbours, which need the original model's pictures."""
    concept, config, seed = study.config.concept, study.config.evaluate, study.config.seed
    taken = {image.prompt.lower() for image in images.images}
    rates, kept = _probes(config.prompts_per_set, config), _probes(config.retention_prompts, config)
    named = prompt_sets.explicit(concept, vocabulary, max(rates, kept) if concept.kind == "style" else rates, seed, taken)
    objects, styles = others.what_stays(concept, vocabulary, *others.erased_elsewhere(study))
    rest = prompt_sets.other(concept, vocabulary, kept, seed, taken, names=objects, styles=styles)
    sets = {
        "explicit": named,
        "implicit": prompt_sets.implicit(concept, vocabulary, rates, seed, taken),
        "variations": prompt_sets.variations(concept, vocabulary, rates, seed, taken),
        "tokens": prompt_sets.tokens(list(tokens.tokens), concept, vocabulary, _probes(config.token_pictures, config), seed),
        "other": rest,
    }
    if concept.kind == "style":
        sets["floor"] = prompt_sets.floor(named, rates, seed)
    else:
        covered = {probe.object for probe in rest} | others.erased_elsewhere(study)[0]
        sets["gallery"] = prompt_sets.gallery(concept, vocabulary, covered, seed)
    return sets


def _probes(count: int, config: Evaluate) -> int:
    """Prompts that give at least `count` pictures."""
    return math.ceil(count / config.seeds_per_prompt)


def frozen_neighbours(
    study: Workspace, vocabulary, encoder, pictures: Pictures, run, images: Generated, also: Sequence[others.Other] = ()
) -> neighbours.Near:
    """Find the nearest non-members, add their set, and write prompts.json; a run that goes on reads the lists back."""
    concept, config, seed = study.config.concept, study.config.evaluate, study.config.seed
    elsewhere = others.erased_elsewhere(study)
    styles = others.what_stays(concept, vocabulary, *elsewhere)[1]
    file = run.path("prompts.json")
    if file.exists():
        lists = read_json(file)["neighbours"]
        near = neighbours.Near(tuple(lists["text"]), tuple(lists["image"]))
    else:
        shown: dict[str, list[Path]] = {}
        for set_name in ("explicit", "other", "gallery"):
            for probe, name, _ in pictures.pairs(set_name):
                shown.setdefault(probe.style if concept.kind == "style" else probe.object, []).append(run.path("before", f"{name}.png"))
        near = neighbours.find(concept, vocabulary, encoder, shown, elsewhere[0] | elsewhere[1])
    taken = {image.prompt.lower() for image in images.images}
    pictures.sets["neighbours"] = prompt_sets.neighbours(
        concept, vocabulary, near.names, pictures.sets["other"], _probes(config.retention_prompts, config), seed, taken, styles
    )
    if not file.exists():

        def described(name: str, probe: Probe, pictures: Pictures = pictures) -> dict:
            drawn = pictures.of(probe, name)
            return {**asdict(probe), "pictures": [picture.name for picture in drawn], "seeds": [picture.seed for picture in drawn]}

        write_json(
            file,
            {
                "concept": concept.name,
                "kind": concept.kind,
                "members": list(members(concept, vocabulary)),
                "unlisted": list(concept.unlisted),
                "neighbours": {"text": list(near.text), "image": list(near.image)},
                "rules": prompt_sets.RULES,
                "sets": {name: [described(name, probe) for probe in probes] for name, probes in pictures.sets.items()},
                "also": [
                    {**one.described(), "sets": {name: [described(name, probe, one.pictures) for probe in part] for name, part in sets}}
                    for one in also
                    if (sets := one.pictures.sets.items())
                ],
            },
        )
    return near
