"""Quick scores of a delta, without a study or files: for choosing settings (annotator judge) and for benchmarks.

Pictures' seeds are other than those of the final evaluation and prompts are drawn anew from the same wordings, so that
settings are not chosen on the pictures that score them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hfi.config import Concept, Evaluate, StudyConfig
from hfi.diffusion.model import Model
from hfi.diffusion.prompts import Vocabulary, load_vocabulary, members
from hfi.diffusion.sampling import decode, sample_latents
from hfi.diffusion.text import encode_prompts
from hfi.erasure.delta import Delta, applied
from hfi.evaluation import others, prompt_sets
from hfi.evaluation.concept_rate import check_judge, is_concept
from hfi.evaluation.drawing import Drawing, Verdict, distinct, drawings, judged, name_verdicts
from hfi.evaluation.retention import is_right
from hfi.perception.judges import NEITHER, Judge, load_judge
from hfi.seeds import derive

CONCEPT_SETS = ("explicit", "implicit", "variations")


def quick_scores(
    model: Model,
    delta: Delta | Mapping[str, Tensor],
    study_or_concept,
    vocabulary: Vocabulary | None = None,
    judge: str | Judge = "emoji:annotator",
    n: int = 60,
    *,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 64,
    original: dict[str, Verdict] | None = None,
    stays: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
) -> dict:
    """Concept rate, retention and `neither` of the erased model on `n` pictures for each prompt set.

    Args:
        model: the original model; the delta is applied inside.
        study_or_concept: a Concept, or anything with `.concept` or `.config.concept`.
        vocabulary: loaded from the concept when left out.
        judge: a judge or its name. The scoring judge must not choose settings: it is for `hfi evaluate` only.
        n: pictures per set (explicit, implicit, variations, other), one seed per prompt.
        steps, guidance_scale: of sampling; left out, those of the study's `evaluate` settings, or the library's defaults.
        original: a dict that keeps the verdicts on the original model's pictures between calls with one model and judge.
        stays: objects and styles of the prompts that retention is counted on (`others.what_stays`); None: all outside the concept.

    Returns {"concept_rate", "concept_rate_before", "retention", "retention_styles", "neither", "neither_before", "by_set",
    "n"}: `concept_rate` over all three concept sets, `neither` likewise, `retention` of other objects; None where a set is
    empty or nothing was right before.
    """
    concept, config = _settings(study_or_concept)
    vocabulary = vocabulary or load_vocabulary(concept.vocabulary)
    judge = load_judge(judge, vocabulary, str(model.device)) if isinstance(judge, str) else judge
    check_judge(judge, concept, vocabulary)
    own = derive(seed, "quick scores")
    probes = {
        "explicit": prompt_sets.explicit(concept, vocabulary, n, own),
        "implicit": prompt_sets.implicit(concept, vocabulary, n, own),
        "variations": prompt_sets.variations(concept, vocabulary, n, own),
        "other": prompt_sets.other(concept, vocabulary, n, own, names=stays[0], styles=stays[1]),
    }
    guidance_scale = config.guidance_scale if guidance_scale is None else guidance_scale
    config = Evaluate(steps=steps or config.steps, guidance_scale=guidance_scale, sampler=config.sampler)
    rows = [(name, probe, drawings(probe, own, 1, model.content, config)[0]) for name, part in probes.items() for probe in part]
    pictures = distinct(picture for *_, picture in rows)

    def look(wanted: list[Drawing]) -> dict[str, Verdict]:
        return judged(model, wanted, judge, batch_size=batch_size, **config.sampling)

    before = original if original is not None else {}
    before.update(look(distinct(pictures, before)))
    with applied(model, delta):
        after = look(pictures)
    return _scores(rows, before, after, concept, members(concept, vocabulary), n)


def _scores(rows, before: dict[str, Verdict], after: dict[str, Verdict], concept: Concept, names, n: int) -> dict:
    def share(found: dict[str, Verdict], sets: tuple[str, ...]) -> float | None:
        return _mean([is_concept(found[picture.name], concept, names) for name, _, picture in rows if name in sets])

    def neither(found: dict[str, Verdict]) -> float | None:
        return _mean([found[picture.name].object == NEITHER for name, _, picture in rows if name in CONCEPT_SETS])

    def kept(by: str) -> float | None:
        right = [
            [
                is_right(found[picture.name], probe, by)
                for name, probe, picture in rows
                if name == "other" and (by == "object" or probe.style)
            ]
            for found in (before, after)
        ]
        return round(sum(right[1]) / sum(right[0]), 4) if sum(right[0]) else None

    return {
        "concept_rate": share(after, CONCEPT_SETS),
        "concept_rate_before": share(before, CONCEPT_SETS),
        "retention": kept("object"),
        "retention_styles": kept("style"),
        "neither": neither(after),
        "neither_before": neither(before),
        "by_set": {name: {"before": share(before, (name,)), "after": share(after, (name,))} for name in CONCEPT_SETS},
        "n": n,
    }


def round_score(model: Model, study) -> Callable[[Delta, Tensor], tuple[float, float, list[float]]]:
    """What judges the rounds of hardened SDD: (delta, conditions (n, L, D) that attacks found) -> (erasure, damage, drawn (n,)).

    All are in [0, 1] and better when lower. Erasure is the concept rate under prompts or under those conditions, whichever is more, and
    of several concepts in one run that of the worst; damage is what is lost of other objects, or of styles on the same pictures,
    whichever is more; drawn is how often each of those conditions draws the concept, by its part of `erase.hardened.pictures` pictures.
    The judge plays an annotator and must not be the one that scores (`erase.check_erasable`). Nothing is loaded before the first call.
    """
    config, settings, seed = study.config, study.config.erase.hardened, derive(study.config.seed, "hardened rounds")
    concepts: list[_Concept] = []

    def score(delta: Delta, found: Tensor) -> tuple[float, float, list[float]]:
        if not concepts:
            concepts.extend(_concepts(model, study, settings.judge or config.label.simulated_judge))
        seen = [
            quick_scores(
                model,
                delta,
                one.config,
                one.vocabulary,
                one.judge,
                settings.pictures,
                seed=seed,
                batch_size=config.evaluate.batch_size,
                original=one.original,
                stays=one.stays,
            )
            for one in concepts
        ]
        hits = []
        seeds = [derive(seed, "under what was found", number) for number in range(settings.pictures)]
        for start in range(0, settings.pictures if len(found) else 0, config.evaluate.batch_size):
            part = seeds[start : start + config.evaluate.batch_size]
            c = found.to(model.device)[[(start + number) % len(found) for number in range(len(part))]]
            with applied(model, delta):
                pixels = decode(model, sample_latents(model, c, encode_prompts(model, [""]), part, **config.evaluate.sampling))
            each = [[is_concept(v, one.config.concept, one.names) for v in name_verdicts(one.judge, one.judge(pixels))] for one in concepts]
            hits += [any(together) for together in zip(*each, strict=True)]
        kept = [seen[0][name] for name in ("retention", "retention_styles") if seen[0][name] is not None]
        overall = _mean(hits) or 0.0
        drawn = [_mean(own) if (own := hits[number :: len(found)]) else overall for number in range(len(found))]
        return max(*(one["concept_rate"] or 0.0 for one in seen), overall), 1.0 - min(kept, default=1.0), drawn

    return score


@dataclass(frozen=True)
class _Concept:
    """One concept of a run: its settings, what knows it, what has to stay beside it, and what the original model drew."""

    config: StudyConfig
    vocabulary: Vocabulary
    judge: Judge
    names: tuple[str, ...]
    stays: tuple[Sequence[str] | None, Sequence[str] | None]
    original: dict[str, Verdict]


def _concepts(model: Model, study, judge: str) -> list[_Concept]:
    """The study's concept, and those that its run erases as well; what has to stay is asked of the first alone."""
    found: list[_Concept] = []
    for number, concept in enumerate((study.config.concept, *(one.config.concept for one in others.studies_of(study)))):
        vocabulary = load_vocabulary(concept.vocabulary)
        same = [one for one in found if one.config.concept.vocabulary == concept.vocabulary]
        knows = same[0].judge if same else load_judge(judge, vocabulary, str(model.device))
        stays = others.what_stays(concept, vocabulary, *others.erased_elsewhere(study)) if number == 0 else ((), None)
        own = study.config.model_copy(update={"concept": concept})
        found.append(_Concept(own, vocabulary, knows, tuple(members(concept, vocabulary)), stays, {}))
    return found


def _mean(values: list[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _settings(source) -> tuple[Concept, Evaluate]:
    """The concept and the sampling settings of a Concept, a StudyConfig or a Workspace."""
    if isinstance(source, Concept):
        return source, Evaluate()
    config = source if hasattr(source, "concept") else source.config
    return config.concept, getattr(config, "evaluate", Evaluate())
