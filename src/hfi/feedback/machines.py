"""Machines as annotators: a detector judges every picture, marked `machine`, beside people or alone.

What it says are judgements like any others: the aggregation learns how far the machine is right from where people judged
the same pictures. Near its threshold it answers "unsure", and its scores in STUDY/machines/ let the queue ask people first about those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store
from hfi.progress import bar
from hfi.workspace import Workspace, digest, write_bytes

if TYPE_CHECKING:
    from hfi.generation.generate import Generated

BATCH = 256  # pictures looked at, and answers written, together: what an interruption can cost
PREFIX = "machine-"  # pseudonyms of the detectors that a study runs itself; imported machines have other ones


@dataclass(frozen=True)
class Machine:
    """One detector at work in a study."""

    pseudonym: str  # changes with all that its answers depend on
    spec: str
    name: str
    licence: str


def judge_by_machines(store: Store, images: Generated, study: Workspace) -> list[Machine]:
    """Let the detectors of `label.machines` judge the pictures that they have not judged yet; returns them."""
    specs = study.config.label.machines
    if not specs:
        return []
    from hfi.perception.clip import load_encoder
    from hfi.perception.clusters import alike
    from hfi.perception.detectors import load_detector

    words, others = concept_and_others(study)
    paths = {image.id: images.path(image) for image in images.images}
    encoder = load_encoder(study.config.reward.encoder, study.config.device)
    clusters = alike(encoder.images(list(paths.values()), cache=study.path("cache")).numpy(), study.config.seed)
    machines = []
    for number, spec in enumerate(specs, 1):
        detector = load_detector(spec, words, others, study.config.device)
        pseudonym = f"{PREFIX}{number}-{digest([spec, detector.name, detector.threshold, detector.margin, words, others])[:6]}"
        machines.append(Machine(pseudonym, spec, detector.name, detector.licence))
        scores = _known_scores(study, pseudonym)
        done = {row.images[0] for row in store.judgements(("machine",)) if row.annotator == pseudonym}
        todo = [name for name in paths if name not in done or name not in scores]
        with bar() as progress:
            task = progress.add_task(f"{detector.name} looks", total=len(todo), note="")
            for start in range(0, len(todo), BATCH):
                part = todo[start : start + BATCH]
                found = detector([paths[name] for name in part]).tolist()
                scores.update(zip(part, found, strict=True))
                fresh = [(name, p) for name, p in zip(part, found, strict=True) if name not in done]
                store.record_many(
                    Judgement((name,), pseudonym, "machine", answer(p, detector.threshold, detector.margin)) for name, p in fresh
                )
                progress.update(task, completed=start + len(part))
        lines = []
        for name, cluster in zip(paths, clusters, strict=True):
            doubt = round(unsure(scores[name], detector.threshold), 6)
            lines.append(json.dumps({"image": name, "score": scores[name], "uncertainty": doubt, "cluster": int(cluster)}))
        write_bytes(score_path(study, pseudonym), ("\n".join(lines) + "\n").encode())
    return machines


def answer(p: float, threshold: float, margin: float) -> str:
    """What a detector says of a picture of probability p: present, absent, or unsure near its threshold."""
    if abs(p - threshold) < margin:
        return "unsure"
    return "present" if p >= threshold else "absent"


def unsure(p: float, threshold: float) -> float:
    """How unsure a detector is, in [0, 1/2]: 1/2 at the threshold, 0 at either end."""
    return 0.5 * (p / threshold if p < threshold else (1 - p) / (1 - threshold))


def concept_and_others(study: Workspace) -> tuple[list[str], list[str]]:
    """Words for the concept, and for all else that the vocabulary knows."""
    from hfi.diffusion.prompts import concept_words, load_vocabulary, members

    concept = study.config.concept
    vocabulary = load_vocabulary(concept.vocabulary)
    if concept.kind == "style":
        return [concept.name], [style for style in vocabulary.styles if style != concept.name]
    named = members(concept, vocabulary)
    return list(dict.fromkeys([*concept_words(concept, vocabulary), *named])), [name for name in vocabulary.objects if name not in named]


def score_path(study: Workspace, pseudonym: str):
    """Where a machine's scores of all pictures lie."""
    return study.path("machines", f"{pseudonym}.jsonl")


def _known_scores(study: Workspace, pseudonym: str) -> dict[str, float]:
    try:
        lines = score_path(study, pseudonym).read_text(encoding="utf-8").splitlines()
        return {row["image"]: float(row["score"]) for row in map(json.loads, lines)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # looked at again
