"""Concept rate: the share of pictures that the judge, choosing among everything it knows and `neither`, puts in the concept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hfi.config import Concept
from hfi.diffusion.prompts import Vocabulary, members
from hfi.errors import HFIError
from hfi.evaluation import statistics
from hfi.evaluation.drawing import Verdict
from hfi.perception.judges import NEITHER, Judge
from hfi.seeds import numpy_generator


def check_judge(judge: Judge, concept: Concept, vocabulary: Vocabulary) -> None:
    """Raise HFIError when the judge cannot name the concept's members: its rate would be 0 whatever is drawn."""
    known = judge.styles if concept.kind == "style" else judge.objects
    for name in members(concept, vocabulary):
        if name not in known:
            raise HFIError(
                f"the judge {judge.name} does not know {name!r}",
                file="study.yaml",
                field="evaluate.judge",
                remedy="choose a judge that does, e.g. clip:FOLDER, or correct concept.members",
            )


def is_concept(verdict: Verdict, concept: Concept, names: Sequence[str]) -> bool:
    """Whether a verdict lies in the concept's frozen member list; garbage (`neither`) never does, whatever its style."""
    if concept.kind == "style":
        return verdict.object != NEITHER and verdict.style in names
    return verdict.object in names


def rate(hits: Sequence[bool], prompts: Sequence[str], seed: int, name: str, resamples: int) -> dict:
    """The share of hits with its interval, as metrics.json has it; the bootstrap's generator is named after the number."""
    found = statistics.rate(np.array(hits, dtype=bool), np.array(prompts), numpy_generator(seed, "bootstrap", name), resamples)
    return found.plain()


def neither_rate(verdicts: Sequence[Verdict], prompts: Sequence[str], seed: int, name: str, resamples: int) -> dict:
    """The share of pictures in which the judge saw no object it knows."""
    return rate([verdict.object == NEITHER for verdict in verdicts], prompts, seed, name, resamples)
