"""Further measures (`hfi measure`): what users of other tools expect, on a finished evaluation, published prompts and benchmarks.

STUDY/measures.json           the numbers, with the versions of what gave them
STUDY/measures/scores-*.json  a detector's score of every picture: another threshold needs no second look
STUDY/measures/prompts-*/     pictures of a published prompt file, before and after, and the judge's verdicts
STUDY/measures/hub-*/ ...     the same of a benchmark's prompts (benchmarks.py)

This is no stage: it changes no manifest and makes none stale. Numbers of an earlier evaluation are not shown any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from hfi.config import StudyConfig
from hfi.diffusion.model import study_model
from hfi.diffusion.prompts import concept_words, load_vocabulary, members
from hfi.errors import HFIError
from hfi.evaluation import detection, distances, quality
from hfi.evaluation.benchmarks import BENCHMARKS, draw_benchmark
from hfi.evaluation.measures_file import FILE, PARTS, evaluated
from hfi.evaluation.published import chosen, draw_prompt_file
from hfi.perception.clip import load_encoder
from hfi.perception.detectors import BATCH, Detector
from hfi.progress import bar
from hfi.workspace import Workspace, digest, read_json, versions, write_json

SETS = ("explicit", "implicit", "variations", "tokens", "other", "neighbours")
TOGETHER = ("explicit", "implicit", "variations")  # "concept": the sets that ask for it in words
SAVE_SECONDS = 60.0  # most looking that an interruption can cost
LIBRARIES = ("torchmetrics", "onnxruntime", "nudenet", "torchvision", "torch-fidelity")


@dataclass(frozen=True)
class PictureSet:
    """Pictures before and after in one order, and the texts that asked for them."""

    name: str
    before: list[Path]
    after: list[Path]
    texts: list[str]


def measure(study: Workspace) -> dict:
    """Measure everything that `measure` in the settings names; write STUDY/measures.json and, as `measures`, into STUDY/metrics.json.

    Raises HFIError where the evaluation is not done, nothing is asked for, or a detector or network cannot be had.
    """
    check(study)
    config, started = study.config.measure, time.perf_counter()
    wanted = [(path, *chosen(study, path)) for path in config.prompts]
    detectors, far = load_measures(study)
    published = []
    named = [name for name in BENCHMARKS if name in config.measures]
    model = study_model(study.config) if config.prompts or named else None
    for path, file, prompts in wanted:
        found, files, texts = draw_prompt_file(model, study, path, file, prompts)
        published.append((found, PictureSet(found["file"], files["before"], files["after"], texts)))
    benchmarks = {name: draw_benchmark(model, study, name) for name in named}
    sets = picture_sets(study)
    every = [*sets.values(), *(one for _, one in published)]
    seen = {name: _Scores(study, detector, every) for name, detector in detectors.items()}
    benign = sets.get("other")
    result = {
        "evaluated": evaluated(study),
        "simulated": True,  # networks count, not people
        "detectors": {name: _detected(study, detectors[name], seen[name], sets) for name in detectors},
        "distances": {name: far[name](benign) for name in far} if benign else {},
        "prompts": [
            {
                **found,
                "detectors": {name: _change(study, detectors[name], seen[name], one) for name in detectors},
                "distances": {name: far[name](one) for name in far},
            }
            for found, one in published
        ],
        "benchmarks": benchmarks,
        "versions": {**versions(), **_libraries()},
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(study.path(FILE), result)
    if study.path("metrics.json").exists():
        metrics = read_json(study.path("metrics.json"))
        write_json(study.path("metrics.json"), {**metrics, "measures": {part: result[part] for part in PARTS}})  # type: ignore[dict-item]
    return result


def check(study: Workspace) -> None:
    """Raise HFIError unless something is asked for and the evaluation is done under the present settings."""
    if not study.config.measure.measures and not study.config.measure.prompts:
        raise HFIError(
            "nothing is asked for", file="study.yaml", field="measure", remedy=f"e.g. hfi measure {study.root} --with nudenet@0.45"
        )
    if not study.is_done("evaluate"):
        raise HFIError(
            "needs a finished evaluation under the present settings", file=study.root, field="measure", remedy=f"run 'hfi run {study.root}'"
        )


def load_measures(study: Workspace) -> tuple[dict[str, Detector], dict[str, Callable[[PictureSet], dict]]]:
    """The detectors by their full name, and the distances by theirs; all are loaded before anything slow begins."""
    config, device = study.config, study.config.device
    words, others = _words(config)
    detectors: dict[str, Detector] = {}
    far: dict[str, Callable[[PictureSet], dict]] = {}
    for spec in config.measure.measures:
        if spec in BENCHMARKS:
            continue
        if spec.partition(":")[0] in distances.DISTANCES:
            name, function = _distance(study, spec)
            far[name] = function
        else:
            detector = detection.load_measure(spec, words, others, device)
            detectors[detection.measure_name(detector)] = detector
    return detectors, far


def picture_sets(study: Workspace) -> dict[str, PictureSet]:
    """The prompt sets of the evaluation that have pictures before and after; "concept" is TOGETHER, each picture once."""
    folder = study.path("evaluate")
    frozen = read_json(folder / "prompts.json")["sets"]  # type: ignore[index]
    found = {name: _set(folder, name, frozen[name]) for name in SETS if frozen.get(name)}
    together = [probe for name in TOGETHER for probe in frozen.get(name, ())]
    return {"concept": _set(folder, "concept", together), **found} if together else found


def _set(folder: Path, name: str, probes: Sequence[dict]) -> PictureSet:
    rows = {picture: probe["text"] for probe in probes for picture in probe["pictures"]}
    before, after = ([folder / side / f"{picture}.png" for picture in rows] for side in ("before", "after"))
    return PictureSet(name, before, after, list(rows.values()))


def _words(config: StudyConfig) -> tuple[list[str], list[str]]:
    """Words for the concept, and for all else that the vocabulary knows: what clip: detectors without words of their own go by."""
    vocabulary = load_vocabulary(config.concept.vocabulary)
    named = members(config.concept, vocabulary)
    if config.concept.kind == "style":
        return list(named), [style for style in vocabulary.styles if style not in named]
    words = dict.fromkeys([*concept_words(config.concept, vocabulary), *named])
    return list(words), [name for name in vocabulary.objects if name not in named]


class _Scores:
    """A detector's scores of all pictures of all sets; looks only at those that no earlier run looked at."""

    def __init__(self, study: Workspace, detector: Detector, sets: Sequence[PictureSet]):
        self.root = study.root
        key = digest([detection.measure_name(detector).rpartition("@")[0], evaluated(study)])[:16]
        file = study.path("measures", f"scores-{key}.json")
        self.known: dict[str, float] = read_json(file) if file.exists() else {}  # type: ignore[assignment]
        files = list(dict.fromkeys(path for one in sets for path in (*one.before, *one.after)))
        missing, saved = [path for path in files if self._name(path) not in self.known], time.monotonic()
        with bar() as progress:
            task = progress.add_task(f"Looking: {detector.name}", total=len(missing), note="")
            for start in range(0, len(missing), BATCH):
                part = missing[start : start + BATCH]
                self.known.update(zip(map(self._name, part), (round(score, 6) for score in detector(part).tolist()), strict=True))
                if time.monotonic() - saved > SAVE_SECONDS:
                    write_json(file, self.known)
                    saved = time.monotonic()
                progress.update(task, completed=start + len(part))
        if missing:
            write_json(file, self.known)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def of(self, files: Sequence[Path]) -> np.ndarray:
        return np.array([self.known[self._name(path)] for path in files])


def _change(study: Workspace, detector: Detector, seen: _Scores, one: PictureSet) -> dict:
    """The rates at the threshold and the sweep on one set."""
    scores, seed, resamples = (seen.of(one.before), seen.of(one.after)), study.config.seed, study.config.evaluate.bootstrap
    return {
        **detection.change(*scores, one.texts, detector.threshold, seed, resamples),
        "sweep": detection.sweep(*scores, one.texts, seed, resamples),
    }


def _detected(study: Workspace, detector: Detector, seen: _Scores, sets: dict[str, PictureSet]) -> dict:
    about = {"threshold": detector.threshold, "version": detector.version, "licence": detector.licence}
    return {**about, "sets": {name: _change(study, detector, seen, one) for name, one in sets.items()}}


def _distance(study: Workspace, spec: str) -> tuple[str, Callable[[PictureSet], dict]]:
    """A distance by its full name, which says its feature network, and the function that measures a set of pictures with it."""
    kind, _, network = spec.partition(":")
    seed, resamples = study.config.seed, study.config.evaluate.bootstrap
    if kind == "lpips":
        distance = distances.lpips_distance(network or "alex")

        def lpips(one: PictureSet) -> dict:
            return distances.lpips(distance, one.before, one.after, one.texts, seed, resamples)

        return f"lpips {network or 'alex'}", lpips
    if network == "inception" and kind in ("fid", "kid"):
        distances.torchmetrics_image(kind)

        def with_inception(one: PictureSet) -> dict:
            return _plain(distances.inception(one.before, one.after, kind), one, 2048)

        return f"{kind} inception-v3", with_inception
    if kind in ("fid", "kid"):
        distances.torchmetrics_image(kind)
    encoder = load_encoder(network or study.config.reward.encoder, study.config.device)
    cache = study.path("measures", "embeddings")

    def embedded(one: PictureSet) -> dict:
        if len(one.before) < 2:
            return {"value": None, "n": len(one.before)}
        x, y = (encoder.images(files, cache) for files in (one.before, one.after))
        if kind == "clip_score":
            texts = encoder.texts(one.texts)
            sides = (("before", x), ("after", y))
            return {side: quality.clip_score(z, texts, one.texts, seed, side, resamples) for side, z in sides}
        if kind == "kid":
            return {**_plain(distances.kid(x, y), one, encoder.width), "pairs_left_out": round(distances.kid_of_pairs(x, y), 6)}
        return _plain(distances.fid(x, y) if kind == "fid" else quality.cmmd(x, y), one, encoder.width)

    return f"{kind} clip:{Path(encoder.name).name}-{encoder.hash[:8]}", embedded


def _plain(value: float, one: PictureSet, width: int) -> dict:
    found = {"value": round(value, 6), "n": len(one.before), "features": width, "interval": distances.NO_INTERVAL}
    return found if width == 2048 else {**found, "note": distances.NOT_INCEPTION}


def _libraries() -> dict[str, str]:
    found = {}
    for package in LIBRARIES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
