"""UnlearnCanvas's and HUB's measures on a study (`hfi measure --with unlearncanvas --with hub`): protocols.py on its pictures.

Both draw prompts of their own, by the original and the erased model, with the study's sampler, steps and seed; the study's scoring judge
names what they show. What other studies of the same run erase is asked for in neither.

STUDY/measures/unlearncanvas-*/, hub-*/   pictures before and after, and verdicts.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from hfi.diffusion.model import Model
from hfi.diffusion.prompts import Vocabulary, load_translations, load_vocabulary, members
from hfi.erasure.delta import applied
from hfi.erasure.erase import Erased
from hfi.errors import HFIError
from hfi.evaluation import distances, others, protocols, quality
from hfi.evaluation.concept_rate import check_judge
from hfi.evaluation.drawing import Verdict, distinct, draw_and_judge, drawings, settings
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.protocols import Shown
from hfi.perception.clip import load_encoder
from hfi.perception.judges import Judge, load_judge
from hfi.progress import bar
from hfi.workspace import StageRun, Workspace, digest, write_json

BENCHMARKS = ("unlearncanvas", "hub")
SIDES = ("before", "after")


def draw_benchmark(model: Model, study: Workspace, name: str) -> dict:
    """Draw and judge the prompts of one of BENCHMARKS before and after; resumes at the first batch that is not whole.

    Args:
        model: the original one; the study's delta is applied and taken off again inside.

    Returns what measures.json says of it (docs/measures.md).
    """
    concept, config, seed = study.config.concept, study.config.evaluate, study.config.seed
    vocabulary = what_stays(study)
    judge = load_judge(config.judge, load_vocabulary(concept.vocabulary), str(model.device))
    check_judge(judge, concept, vocabulary)
    encoder = load_encoder(study.config.reward.encoder, str(model.device))
    translations = load_translations(vocabulary, concept.vocabulary, study.config.measure.translations) if name == "hub" else {}
    if name == "hub":
        wanted = protocols.hub_probes(concept, vocabulary, encoder.texts, translations, study.config.measure.hub, seed)
    else:
        wanted = {"grid": protocols.grid_probes(concept, vocabulary, study.config.measure.grid, seed)}
    check_named(judge, [probe for probes in wanted.values() for probe in probes], study)
    run, pictures, verdicts = _draw(model, study, name, wanted, judge)
    before, after = (
        {key: [Shown(probe, verdicts[side][pictures[key][i]]) for i, probe in enumerate(probes)] for key, probes in wanted.items()}
        for side in SIDES
    )
    resamples = config.bootstrap
    if name == "hub":
        found = protocols.hub(before, after, concept, vocabulary, translations, model.tokenizer.tokenize, seed, resamples)
    else:
        found = _canvas(study, before["grid"], after["grid"], vocabulary)
        asked = [i for i, probe in enumerate(wanted["grid"]) if getattr(probe, found["domain"]) not in found["targets"]]
        rows = [encoder.images([run.path(side, f"{pictures['grid'][i]}.png") for i in asked]) for side in SIDES] if len(asked) > 1 else []
        moved = round(quality.cmmd(*rows), 6) if rows else None
        found["cmmd"] = {"value": moved, "n": len(asked), "features": encoder.width, "interval": distances.NO_INTERVAL}
    return {
        "kind": concept.kind,
        **found,
        "prompts": {key: len(probes) for key, probes in wanted.items()},
        "folder": str(run.folder.relative_to(study.root)),
        "judge": judge.name,
        "simulated": True,
        "computed_with": settings(model),
    }


def check_named(judge: Judge, probes: Sequence[Probe], study: Workspace) -> None:
    """Raise HFIError for a judge that cannot name all that is asked for: what it does not know would count as never drawn."""
    for field, known in (("object", judge.objects), ("style", judge.styles)):
        asked = {getattr(probe, field) for probe in probes} - {None}
        if unknown := sorted(asked - set(known or ())):
            raise HFIError(
                f"{judge.name} cannot name {len(unknown)} of {len(asked)} {field}s that are asked for, {unknown[0]!r} for one",
                file=study.root,
                field="evaluate.judge",
                remedy="these measures need a judge of the whole vocabulary, e.g. clip:FOLDER",
            )


def what_stays(study: Workspace) -> Vocabulary:
    """The study's vocabulary without what the other concepts of its run are about (`erase.also`)."""
    concept, vocabulary = study.config.concept, load_vocabulary(study.config.concept.vocabulary)
    objects, styles = others.erased_elsewhere(study)
    own = set(members(concept, vocabulary))
    gone = (objects | styles) - own
    if not gone:
        return vocabulary
    left = tuple(style for style in vocabulary.styles if style not in gone)
    kept = {
        name: replace(entry, styles=tuple(style for style in entry.styles if style not in gone))
        for name, entry in vocabulary.objects.items()
        if name in own or (name not in gone and (not entry.styles or set(entry.styles) & set(left)))
    }
    return replace(vocabulary, objects=kept, styles=left)


def _draw(model: Model, study: Workspace, name: str, wanted: Mapping[str, Sequence[Probe]], judge):
    """(the run's folder, set -> names of its pictures, side -> verdicts by name)."""
    config, seed = study.config.evaluate, study.config.seed
    drawn = {key: [drawings(probe, seed, 1, model.content, config)[0] for probe in probes] for key, probes in wanted.items()}
    unique = distinct(picture for part in drawn.values() for picture in part)
    names = [picture.name for picture in unique]
    key = digest([name, names, study.manifest("erase"), config.judge, config.batch_size, str(model.dtype)])
    run = StageRun("measure", study.path("measures", f"{name}-{key[:8]}"), key, seed)
    verdicts: dict[str, dict[str, Verdict]] = {}
    with bar() as progress:
        verdicts["before"] = draw_and_judge(model, unique, {}, judge, config, run, "before", "", progress, f"Drawing {name} before")
        with applied(model, Erased.load(study).delta):
            verdicts["after"] = draw_and_judge(model, unique, {}, judge, config, run, "after", "", progress, f"Drawing {name} after")
    rows = [
        {"set": key, **asdict(probe), "picture": picture.name, "verdicts": {side: asdict(verdicts[side][picture.name]) for side in SIDES}}
        for key, probes in wanted.items()
        for probe, picture in zip(probes, drawn[key], strict=True)
    ]
    write_json(run.path("verdicts.json"), rows)
    return run, {key: [picture.name for picture in part] for key, part in drawn.items()}, verdicts


def _canvas(study: Workspace, before: Sequence[Shown], after: Sequence[Shown], vocabulary: Vocabulary) -> dict:
    """UA, IRA and CRA before and after, and what the erasure cost: UnlearnCanvas's seconds, peak memory and storage."""
    concept, seed, resamples = study.config.concept, study.config.seed, study.config.evaluate.bootstrap
    domain: protocols.Domain = "style" if concept.kind == "style" else "object"
    shown = {getattr(one.probe, domain) for one in after}
    targets = [name for name in members(concept, vocabulary) if name in shown]
    about = study.manifest("erase") or {}
    return {
        "domain": domain,
        "targets": targets,
        "objects": len({one.probe.object for one in after}),
        "styles": len({one.probe.style for one in after} - {None}),
        **{
            side: protocols.unlearn_canvas_estimates(seen, targets, domain, seed, f"unlearncanvas {side}", resamples)
            for side, seen in zip(SIDES, (before, after), strict=True)
        },
        "cost": {
            "method": study.config.erase.method,
            "seconds": about.get("seconds"),
            "peak_memory_mib": about.get("peak_memory_mib"),
            "bytes": (study.path("erase") / "delta.safetensors").stat().st_size,
        },
    }
