"""Concept rate and retention while an erased model is trained further: on benign pictures, or to forget other concepts.

STUDY/persistence/<key>/      one curve's points as they are measured, and its checkpoint while it is at work
STUDY/persistence/<way>.json  the curve: full, lora or then (docs/attacks.md)

At every point the same prompts and seeds are drawn and judged: some that name the concept, as many that name other things.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from hfi.attacks.found import Run
from hfi.attacks.persistence import fine_tune
from hfi.config import Evaluate
from hfi.diffusion.model import Model, study_model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.diffusion.text import encode_prompts
from hfi.erasure.delta import Delta, applied, load_delta, save_delta
from hfi.erasure.erase import METHODS, Part, benign_material, check_erasable, conditions_of_all, material
from hfi.errors import HFIError
from hfi.evaluation import prompt_sets
from hfi.evaluation.attack_table import check_fits, delta_file
from hfi.evaluation.concept_rate import check_judge, is_concept, neither_rate, rate
from hfi.evaluation.drawing import Verdict, drawings, judged
from hfi.evaluation.others import erased_elsewhere, what_stays
from hfi.evaluation.retention import is_right, retention
from hfi.generation.generate import Generated
from hfi.perception.judges import load_judge
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.seeds import derive
from hfi.workspace import Workspace, digest, file_hash, read_json, write_json

WAYS = ("full", "lora", "then")


class Meter:
    """Draws the same prompts and seeds at every point and says what the judge saw of them."""

    def __init__(self, model: Model, study: Workspace, taken: set[str], then: Sequence[Workspace] = ()):
        """`then`: studies whose concepts are erased later; they and those of the same run are not among what must stay."""
        concept, count = study.config.concept, study.config.persist.prompts
        self.model, self.study, self.seed = model, study, derive(study.config.seed, "persistence", study.config.persist.seed)
        self.config: Evaluate = study.config.evaluate
        vocabulary = load_vocabulary(concept.vocabulary)
        self.names = members(concept, vocabulary)
        self.judge = load_judge(self.config.judge, vocabulary, str(model.device))
        check_judge(self.judge, concept, vocabulary)
        self.asked = prompt_sets.explicit(concept, vocabulary, count, self.seed, taken)
        objects, styles = what_stays(concept, vocabulary, *erased_elsewhere(study, then))
        self.others = prompt_sets.other(concept, vocabulary, count, self.seed, taken, names=objects, styles=styles)
        self.before: list[Verdict] = self.look()

    def look(self) -> list[Verdict]:
        """Verdicts on the pictures that the model draws with its present weights, those that ask for the concept first."""
        wanted = [drawings(probe, self.seed, 1, self.model.content, self.config)[0] for probe in [*self.asked, *self.others]]
        found = judged(self.model, wanted, self.judge, batch_size=self.config.batch_size, **self.config.sampling)
        return [found[one.name] for one in wanted]

    def point(self, label: str, seen: list[Verdict]) -> dict:
        """{"label", "concept_rate", "neither", "retention"}, with intervals."""
        concept, resamples, count = self.study.config.concept, self.config.bootstrap, len(self.asked)
        named = [probe.text for probe in [*self.asked, *self.others]]
        kept = [zip(side[count:], self.others, strict=True) for side in (self.before, seen)]
        right = [[is_right(one, probe, "object") for one, probe in pairs] for pairs in kept]
        hits = [is_concept(one, concept, self.names) for one in seen[:count]]
        return {
            "label": label,
            "concept_rate": rate(hits, named[:count], self.seed, f"persistence {label}", resamples),
            "neither": neither_rate(seen[:count], named[:count], self.seed, f"persistence neither {label}", resamples),
            "retention": retention(*right, named[count:], self.seed, f"persistence {label}", resamples),
        }


def persist(study: Workspace, ways: Sequence[str] = ("full",), delta: Path | None = None, then: Sequence[Path] = ()) -> list[dict]:
    """Train the study's erased model further and measure it after each round; returns the curves, one for each way.

    Args:
        ways: full, lora: rounds of fine-tuning on the study's benign pictures; then: other concepts are erased after this one.
        delta: another delta than the study's own.
        then: for "then": studies, whose tokens are erased on top of what is there, or files of deltas, which are added to it.
    """
    file = delta_file(study, delta)
    for other in then:
        check_other(other)
    change, config = load_delta(file), study.config
    model = study_model(config)
    check_fits(file, model)
    images, reward = Generated.load(study), RewardResult.load(study)
    flagged = set(reward.flagged)
    benign = [one for one in images.images if one.purpose == "benign" and one.id not in flagged and one.prompt]
    if not benign and set(ways) - {"then"}:
        raise HFIError("has no benign pictures to train on", file=study.root, field="generate.benign_share", remedy="set it above 0")
    taken = {one.prompt.lower() for one in images.images}
    meters = {later: Meter(model, study, taken, [Workspace.open(other) for other in then if other.is_dir()] if later else ())
              for later in dict.fromkeys(way == "then" for way in ways)}  # fmt: skip
    curves = []
    for way in ways:
        meter = meters[way == "then"]
        depends = {
            "way": [way, [_named(other) for other in then] if way == "then" else config.persist.model_dump(mode="json")],
            "prompts": config.persist.prompts,
            "delta": file_hash(file),
            "model": model.hash,
            "dtype": str(model.dtype),
            "judge": meter.judge.name,
            "sampling": config.evaluate.drawn_with,
            "concept": [config.concept.model_dump(mode="json"), study.files()],
            "pictures": [(study.manifest(name) or {}).get("digest") for name in ("generate", "reward")],
            "seed": [config.seed, config.persist.seed],
        }
        if config.erase.also or way == "then":
            depends["others"] = [probe.text for probe in meter.others]
        folder = study.path("persistence", digest(depends)[:16])
        with applied(model, change), bar() as progress:
            measured = lambda number, label, folder=folder, meter=meter: _measured(folder, number, label, meter)  # noqa: E731
            points = [measured(0, "erased")]
            if way == "then":
                points += _erase_others(model, then, study, folder, measured, progress)
            else:
                latents, c = images.latents()[[one.index for one in benign]], encode_prompts(model, [one.prompt for one in benign])
                points += _rounds(model, latents, c, study, folder, way == "lora", measured, progress)
        curve = {
            "way": way,
            "simulated": True,
            "judge": meter.judge.name,
            "concept": config.concept.name,
            "delta": file_hash(file),
            "benign_pictures": len(benign),
            "before": meter.point("original", meter.before),
            "points": points,
        }
        write_json(study.path("persistence", f"{way}.json"), curve)
        curves.append(curve)
    return curves


def _rounds(model: Model, latents, c, study: Workspace, folder: Path, lora: bool, measured: Callable, progress) -> list[dict]:
    """One point a round."""
    config, found = study.config.persist, {}
    words = f"Training on benign pictures ({'LoRA' if lora else 'all weights'})"
    files = [folder / f"point-{k}.json" for k in range(1, config.rounds + 1)]
    if all(file.exists() for file in files):
        return [read_json(file)["point"] for file in files]
    task = progress.add_task(words, total=config.rounds * config.steps, note="")
    run = Run(
        folder / "checkpoint.safetensors",
        config.checkpoint_seconds,
        lambda done, total, note: progress.update(task, completed=done, note=note),
    )

    def on_round(number: int, loss: float) -> None:
        found[number] = measured(number, f"round {number}")

    fine_tune(model, latents, c, config, derive(study.config.seed, "persistence", study.config.persist.seed), run, on_round, lora)
    for leftover in (run.file, run.clock):
        leftover.unlink(missing_ok=True)
    return [found.get(k) or read_json(file)["point"] for k, file in enumerate(files, 1)]


def _measured(folder: Path, number: int, label: str, meter: Meter) -> dict:
    """The point, read back where it was measured before."""
    file = folder / f"point-{number}.json"
    if not file.exists():
        seen = meter.look()
        write_json(file, {"point": meter.point(label, seen), "verdicts": [list(asdict(one).values()) for one in seen]})
    return read_json(file)["point"]


def check_other(path: Path) -> None:
    """Raise HFIError for something that cannot be erased next."""
    if path.is_file():
        return
    other = Workspace.open(path)
    if not other.is_done("invert"):
        raise HFIError("has no soft tokens yet", file=path, field="--then", remedy=f"run 'hfi run {path}' up to 'hfi invert {path}'")
    if other.config.erase.method not in METHODS:
        file = path / "erase" / "delta.safetensors"
        raise HFIError("is hardened in rounds, which starts from the original", file=path, field="--then", remedy=f"give --then {file}")
    check_erasable(Generated.load(other), RewardResult.load(other), other, other.config.erase)


def _named(path: Path) -> list[str]:
    if path.is_file():
        return ["delta", file_hash(path)]
    other = Workspace.open(path)
    return ["study", other.manifest("invert")["digest"], other.key("erase")]


def _erase_others(model: Model, then: Sequence[Path], study: Workspace, folder: Path, measured: Callable, progress) -> list[dict]:
    """One point for each other concept, erased on top of all that was there before."""
    points = []
    with ExitStack() as stack:
        for number, path in enumerate(then, 1):
            if path.is_file():
                check_fits(path, model)
                delta, label = load_delta(path), f"+ {path.stem}"
            else:
                file, other = folder / f"then-{number}.safetensors", Workspace.open(path)
                if not file.exists():
                    delta = erase_on_top(model, other, folder / f"then-{number}.checkpoint.safetensors", progress)
                    save_delta(file, delta, model, other.config.concept.name)
                delta, label = load_delta(file), f"+ {other.config.concept.name}"
            stack.enter_context(applied(model, delta))
            points.append(measured(number, label))
    return points


def erase_on_top(model: Model, other: Workspace, checkpoint: Path, progress) -> Delta:
    """The delta of another study's erasure, begun at the weights that the model has now, by that study's method and settings."""
    if other.config.model != model.name:
        raise HFIError("is a study on another model", file=other.root, field="--then", remedy="give studies on one model")
    config, seed, part = other.config.erase, other.config.seed, Part.load(other)
    stored = material([part])[-1]
    conditions = conditions_of_all(model, [other], [part], config, seed)
    benign, steps = benign_material(model, part.images, part.reward, config, seed), config.length()
    task = progress.add_task(f"Erasing {other.config.concept.name} as well ({config.method})", total=steps or None, note="")
    run = Run(checkpoint, config.checkpoint_seconds, lambda done, total, note: progress.update(task, completed=done))
    delta = METHODS[config.method](
        model,
        conditions,
        encode_prompts(model, [""]),
        stored,
        benign,
        config,
        seed,
        run.saved(),
        on_step=lambda done, state: run.step(done, steps, "", state),
    )
    for leftover in (run.file, run.clock):
        leftover.unlink(missing_ok=True)
    return delta
