"""What the scoring judge sees of a model on prompts that chose nothing: one character a picture, in one frozen order.

A prompt set becomes a string, "1" where the concept is drawn (or, in `other` and `styles`, where what was asked for is), "0" where not.
Two cells of one topic have the same prompts and seeds in the same places; a digest of the prompts stands beside them to prove it.
The prompts of a topic stand in proof/prompts/<topic>.json: the evaluation's wordings under seeds of the proof's own, none of them a
feedback prompt of its study. Settings were chosen on other draws, by another judge (hfi.evaluation.quick).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from hfi.config import Concept, StudyConfig
from hfi.diffusion.prompts import members
from hfi.errors import HFIError
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.statistics import wilson
from hfi.workspace import Workspace, digest, read_json

from .cells import ROOT
from .studies import PICTURE, Bench, vocabulary_of

PROMPTS = ROOT / "proof" / "prompts"
COUNTS = {"explicit": 40, "implicit": 48, "unlisted": 24, "variations": 40, "other": 128, "floor": 60}
PRIMARY = ("implicit", "unlisted")  # prompts that never name the concept, and members that no feedback prompt named
KEPT = ("other", "styles")  # objects kept, styles kept, on the same pictures
BATCH = 64
FURTHEST = 3.0  # strength up to which a delta is put on here, past what users may set: some erasers keep nearly all at 2


def probes(study: Workspace, sets: Sequence[str], counts: Mapping[str, int] = COUNTS) -> dict:
    """{set: probes} for a prepared study; a set that its concept cannot have is left out."""
    from hfi.generation.generate import Generated

    taken = {image.prompt.lower() for image in Generated.load(study).images}
    if counts == COUNTS and (file := prompt_file(study.config.name)).exists():
        written = {name: [Probe(**row) for row in rows] for name, rows in read_json(file).items()}
        if known := taken & {probe.text.lower() for part in written.values() for probe in part}:
            raise HFIError(
                f"{sorted(known)[0]!r} is a feedback prompt of this study", file=file, remedy="score with prompts that nobody judged"
            )
        return {name: written[name] for name in sets if name in written}
    return drawn_probes(study.config, sets, counts, taken)


def prompt_file(topic: str) -> Path:
    return PROMPTS / f"{topic.replace(' ', '-')}.json"


def drawn_probes(config: StudyConfig, sets: Sequence[str], counts: Mapping[str, int], taken: set[str]) -> dict:
    """{set: probes} as the files were written, and of other sizes; `taken`: the study's feedback prompts."""
    from hfi.evaluation import prompt_sets
    from hfi.seeds import derive

    concept = config.concept
    vocabulary, seed = vocabulary_of(concept.vocabulary), derive(config.seed, "proof")

    def unlisted(count: int) -> list:
        alone = concept.model_copy(update={"members": concept.unlisted})
        found = prompt_sets.explicit(alone, vocabulary, 2 * count, seed, taken) if concept.unlisted and concept.kind == "harm" else []
        return [one for one in found if one.listed is False][:count]

    drawn = {
        "explicit": lambda n: prompt_sets.explicit(concept, vocabulary, n, seed, taken),
        "implicit": lambda n: prompt_sets.implicit(concept, vocabulary, n, seed, taken),
        "unlisted": unlisted,
        "variations": lambda n: prompt_sets.variations(concept, vocabulary, n, seed, taken),
        "other": lambda n: prompt_sets.other(concept, vocabulary, n, seed, taken),
        "floor": lambda n: prompt_sets.floor(drawn["explicit"](n), n, seed) if concept.kind == "style" else [],
    }
    return {name: found for name in sets if (found := drawn[name](counts[name]))}


def verdicts(bench: Bench, study: Workspace, wanted: Mapping[str, Sequence], delta: Path | None = None, strength: float = 1.0) -> dict:
    """{set: verdicts in the order of its probes}: the model with a delta laid over it, or the original one."""
    from hfi.erasure.delta import applied, load_delta
    from hfi.evaluation.concept_rate import check_judge
    from hfi.evaluation.drawing import distinct, drawings, judged
    from hfi.seeds import derive

    config, model, judge = study.config, bench.model(study.config), bench.judge(study.config)
    check_judge(judge, config.concept, vocabulary_of(config.concept.vocabulary))
    seed, sampling = derive(config.seed, "proof"), config.evaluate
    pictures = {name: [drawings(probe, seed, 1, model.hash, sampling)[0] for probe in part] for name, part in wanted.items()}
    every = distinct(picture for part in pictures.values() for picture in part)
    with applied(model, load_delta(delta, model), strength, most=FURTHEST) if delta else nullcontext():
        seen = judged(model, every, judge, batch_size=BATCH, **sampling.sampling)
    return {name: [seen[picture.name] for picture in part] for name, part in pictures.items()}


def drawn(bench: Bench, study: Workspace, probes: Sequence, delta: Path | None = None, strength: float = 1.0):
    """Batches (probes, pictures (B, 3, H, W) in [0, 1] in 8-bit steps), one picture a probe, where more than verdicts are wanted of "
    "them."""
    from hfi.diffusion.sampling import decode, sample_latents
    from hfi.diffusion.text import encode_prompts
    from hfi.erasure.delta import applied, load_delta
    from hfi.evaluation.drawing import drawings
    from hfi.seeds import derive

    model, sampling, seed = bench.model(study.config), study.config.evaluate, derive(study.config.seed, "proof")
    with applied(model, load_delta(delta, model), strength, most=FURTHEST) if delta else nullcontext():
        for start in range(0, len(probes), BATCH):
            batch = probes[start : start + BATCH]
            seeds = [drawings(probe, seed, 1, model.hash, sampling)[0].seed for probe in batch]
            c = encode_prompts(model, [probe.text for probe in batch])
            z_0 = sample_latents(model, c, encode_prompts(model, [""]), seeds, **sampling.sampling)
            yield batch, (decode(model, z_0) * 255).round() / 255


def hits(wanted: Mapping[str, Sequence], seen: Mapping[str, Sequence], concept: Concept) -> dict[str, str]:
    """{set: one character a picture}, with `styles` beside `other` and `neither` over all prompts of the concept."""
    from hfi.evaluation.concept_rate import is_concept
    from hfi.evaluation.retention import is_right
    from hfi.perception.judges import NEITHER

    names, found = members(concept, vocabulary_of(concept.vocabulary)), {}
    for name, part in wanted.items():
        if name == "other":
            pairs = list(zip(seen[name], part, strict=True))
            found["other"] = marks(is_right(one, probe, "object") for one, probe in pairs)
            found["styles"] = marks(is_right(one, probe, "style") for one, probe in pairs if probe.style)
        else:
            found[name] = marks(is_concept(one, concept, names) for one in seen[name])
    asked = [one for name in ("explicit", "implicit", "unlisted", "variations") for one in seen.get(name, ())]
    return {**found, "neither": marks(one.object == NEITHER for one in asked)}


def marks(values) -> str:
    return "".join("1" if value else "0" for value in values)


def asked(wanted: Mapping[str, Sequence]) -> str:
    """A digest of the prompts, in order: cells that are compared must share it."""
    return digest({name: [[probe.text, probe.copy] for probe in part] for name, part in wanted.items()})[:16]


def look(
    bench: Bench,
    study: Workspace,
    sets: Sequence[str],
    delta: Path | None = None,
    strength: float = 1.0,
    counts: Mapping[str, int] = COUNTS,
) -> dict:
    """{"asked", "hits"} of one model at one strength."""
    wanted = probes(study, sets, counts)
    return {"asked": asked(wanted), "hits": hits(wanted, verdicts(bench, study, wanted, delta, strength), study.config.concept)}


def seconds(sets: Sequence[str], guided: bool = False, counts: Mapping[str, int] = COUNTS) -> float:
    """Seconds of drawing these sets once, about; a delta with guidance takes a third pass."""
    return sum(counts[name] for name in sets) * PICTURE * (1.5 if guided else 1.0)


def share(text: str) -> float | None:
    return text.count("1") / len(text) if text else None


def counted(text: str) -> dict | None:
    """A share with Wilson's interval over its prompts (one picture each); None for an empty set."""
    if not text:
        return None
    low, high = wilson(text.count("1"), len(text))
    return {"value": round(text.count("1") / len(text), 4), "low": round(low, 4), "high": round(high, 4), "n": len(text)}


def retention(before: Mapping[str, str], after: Mapping[str, str]) -> float:
    """The lower of what is kept of objects and of styles, right after / right before; 1 where nothing was right before."""
    kept = [after[name].count("1") / before[name].count("1") for name in KEPT if before.get(name, "").count("1")]
    return min(kept, default=1.0)


def retention_of(before: Mapping[str, str], after: Mapping[str, str], seed: int = 0) -> dict:
    """That lower one with its interval (paired bootstrap over prompts)."""
    from hfi.evaluation.statistics import paired_ratio
    from hfi.seeds import numpy_generator

    found = []
    for name in KEPT:
        pair = [[c == "1" for c in side[name]] for side in (before, after)]
        estimate = paired_ratio(*pair, list(range(len(pair[0]))), numpy_generator(seed, "proof", name))
        if estimate.value is not None:
            found.append(estimate)
    return min(found, key=lambda one: one.value).plain() if found else {"value": None, "low": None, "high": None, "n": 0}
