"""Quick scores of a delta, without a study or files: for choosing settings (annotator judge) and for benchmarks.

Pictures' seeds are other than those of the final evaluation and prompts are drawn anew from the same wordings, so that
settings are not chosen on the pictures that score them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from hfi.config import Concept, Evaluate
from hfi.diffusion.model import Model
from hfi.diffusion.prompts import Vocabulary, load_vocabulary, members
from hfi.erasure.delta import applied
from hfi.evaluation import prompt_sets
from hfi.evaluation.concept_rate import check_judge, is_concept
from hfi.evaluation.drawing import Drawing, Verdict, distinct, drawings, judged
from hfi.evaluation.retention import is_right
from hfi.perception.judges import NEITHER, Judge, load_judge
from hfi.seeds import derive

CONCEPT_SETS = ("explicit", "implicit", "variations")


def quick_scores(
    model: Model,
    delta: Mapping[str, Tensor],
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
        "other": prompt_sets.other(concept, vocabulary, n, own),
    }
    steps, guidance_scale = steps or config.steps, config.guidance_scale if guidance_scale is None else guidance_scale
    config = Evaluate(steps=steps, guidance_scale=guidance_scale)
    rows = [(name, probe, drawings(probe, own, 1, model.hash, config)[0]) for name, part in probes.items() for probe in part]
    pictures = distinct(picture for *_, picture in rows)

    def look(wanted: list[Drawing]) -> dict[str, Verdict]:
        return judged(model, wanted, judge, steps, guidance_scale, batch_size)

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


def _mean(values: list[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _settings(source) -> tuple[Concept, Evaluate]:
    """The concept and the sampling settings of a Concept, a StudyConfig or a Workspace."""
    if isinstance(source, Concept):
        return source, Evaluate()
    config = source if hasattr(source, "concept") else source.config
    return config.concept, getattr(config, "evaluate", Evaluate())
