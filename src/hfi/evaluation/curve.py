"""Concept rate and retention over the steps of the erasure: the same few prompts and seeds, drawn at every snapshot.

The prompts are the first `evaluate.curve_prompts` of `explicit` and of `other` (both sets take their subjects in turn, so the
first ones are a fair part of the whole), one seed each. Step 0 and the last step need no picture of their own: they are
among those drawn before and after.
"""

from __future__ import annotations

from hfi.diffusion.prompts import members
from hfi.evaluation.concept_rate import is_concept, neither_rate, rate
from hfi.evaluation.drawing import Drawing
from hfi.evaluation.measure import Pictures
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.retention import is_right, retention
from hfi.workspace import Workspace


def folder_of(step: int) -> str:
    """The folder of what a snapshot draws, and its side in verdicts.jsonl."""
    return f"step-{step:06d}"


def subset(pictures: Pictures, set_name: str) -> list[tuple[Probe, Drawing, str]]:
    """(probe, its first picture, what names the prompt) of the first `evaluate.curve_prompts` prompts of a set."""
    probes = pictures.sets.get(set_name, [])[: pictures.config.curve_prompts]
    return [(probe, pictures.of(probe, set_name)[0], probe.text) for probe in probes]


def curve(pictures: Pictures, study: Workspace, vocabulary, snapshots: tuple[int, ...]) -> list[dict] | None:
    """One point a step, from 0 to the last: {"step", "concept_rate", "neither", "retention"}; None where no snapshot was drawn."""
    config, seed = study.config.evaluate, study.config.seed
    if not snapshots or not config.curve_prompts:
        return None
    names = members(study.config.concept, vocabulary)
    asked, others = subset(pictures, "explicit"), subset(pictures, "other")
    sides = {0: "before", **{step: folder_of(step) for step in snapshots}, study.config.erase.length(): "after"}

    def point(step: int, side: str) -> dict:
        seen = [pictures.verdicts[side][picture.name] for _, picture, _ in asked]
        prompts = [prompt for *_, prompt in asked]
        hits = [is_concept(verdict, study.config.concept, names) for verdict in seen]
        right = [
            [is_right(pictures.verdicts[which][picture.name], probe, "object") for probe, picture, _ in others]
            for which in ("before", side)
        ]
        kept = retention(*right, [prompt for *_, prompt in others], seed, f"curve {step}", config.bootstrap)
        if side == "before" and kept["value"] is not None:
            kept |= {"low": 1.0, "high": 1.0, "interval": "1 by definition"}
        return {
            "step": step,
            "concept_rate": rate(hits, prompts, seed, f"curve {step}", config.bootstrap),
            "neither": neither_rate(seen, prompts, seed, f"curve neither {step}", config.bootstrap),
            "retention": kept,
        }

    return [point(step, side) for step, side in sides.items()]
