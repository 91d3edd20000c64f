"""The studies that cells stand on, and the erasures of them: made once, kept under studies/proof/, shared by all tables.

A study is the demo recipe's (harms) or the style recipe's (styles) with the concept replaced and nothing else: their settings were chosen
on the development concepts "weapon" and "fluent-ink", by the annotator judge, and are frozen. People are simulated. A study that differs
from another only after its pictures takes those pictures over.
"""

from __future__ import annotations

import difflib
import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfi.config import StudyConfig, load_config, with_overrides
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.errors import HFIError
from hfi.progress import console
from hfi.workspace import Workspace, digest

from .cells import ROOT

DEVELOPMENT = ("weapon", "fluent-ink")  # settings were chosen on these; everything else chose nothing
HARMS = {  # name -> the word that a user would think of, further words, members (empty: the vocabulary's) and those no prompt names
    "weapon": ("weapon", (), (), ("bow and arrow", "pistol")),
    "alcohol": ("alcohol", (), (), ("sake", "clinking glasses")),
    "fire and explosions": ("fire", (), (), ("sparkler", "firecracker")),
    "medicine": ("medicine", ("medicine", "drugs", "a drug"), ("syringe", "pill", "face with medical mask"), ("pill",)),
}
MORE_HARMS = {  # for ten concepts at once
    "monster": ("monster", ("monster", "monsters"), ("ghost", "alien", "skull", "jack o lantern"), ("alien",)),
    "dirt": ("poo", ("poo", "dirt"), ("pile of poo", "toilet"), ("toilet",)),
}
STYLES = ("fluent-ink", "fxemoji", "emojione-monotone", "fluent-3d")
TRAINING = (  # what every eraser that learns by steps shares with SDD: equal steps, equal tuning
    "steps", "batch_size", "learning_rate", "schedule", "ema_decay", "sampling_steps", "latents", "replay_runs", "redraw", "preservation",
)  # fmt: skip
STEP, PICTURE = 0.44, 0.04  # seconds on 2 cores (as in docs/proof/again): a step of the recipes' SDD, a picture in 8 guided steps
LEARN = 0.08  # a step of a re-inversion at batch 4


@dataclass
class Bench:
    """Where studies lie, on what device, and the models and judges that are loaded already."""

    folder: Path = ROOT / "studies" / "proof"
    device: str = "auto"
    changes: Mapping[str, object] = field(default_factory=dict)  # settings of every study, for trials on tiny ones
    loaded: dict = field(default_factory=dict)

    def model(self, config: StudyConfig):
        from hfi.diffusion.model import study_model

        return self._once(("model", config.model), lambda: study_model(config))

    def judge(self, config: StudyConfig):
        """The judge that only scores."""
        from hfi.perception.judges import load_judge

        name = config.evaluate.judge
        return self._once(
            (name, config.concept.vocabulary), lambda: load_judge(name, load_vocabulary(config.concept.vocabulary), self.device)
        )

    def _once(self, key: tuple, load):
        if key not in self.loaded:
            self.loaded[key] = load()
        return self.loaded[key]


@functools.cache
def vocabulary_of(source: str = "emoji"):
    """A vocabulary, read once: planning asks for it a thousand times."""
    return load_vocabulary(source)


@functools.cache
def _recipe(name: str) -> StudyConfig:
    return load_config(ROOT / "recipes" / name)


def kind_of(topic: str) -> str:
    return "style" if topic in vocabulary_of().styles else "harm"


def natural_word(topic: str) -> str:
    """The one word that a user would type; a style's is its name, which nobody can better."""
    return {**HARMS, **MORE_HARMS}[topic][0] if topic in HARMS or topic in MORE_HARMS else topic


def study_config(topic: str, changes: Mapping[str, object] = {}) -> StudyConfig:  # noqa: B006 - read only
    """The recipe's settings with the concept replaced; a topic is a harm above, a style, or one object of the vocabulary."""
    return _study_config(topic, json.dumps(dict(changes), sort_keys=True))


@functools.cache
def _study_config(topic: str, changes: str) -> StudyConfig:
    more = json.loads(changes)
    if kind_of(topic) == "style":
        return with_overrides(_recipe("style.yaml"), {"name": topic, "concept.name": topic, "invert.initial_word": topic, **more})
    word, words, inside, unlisted = {**HARMS, **MORE_HARMS}.get(topic, (topic.split()[-1], (topic,), (topic,), ()))
    own = {"concept.members": list(inside), "concept.unlisted": list(unlisted), "concept.words": list(words)}
    if topic == "weapon":  # the recipe's own
        own = {}
    return with_overrides(_recipe("demo.yaml"), {"name": topic, "concept.name": topic, "invert.initial_word": word, **own, **more})


def oracle_words(topic: str) -> list[str]:
    """The names of all members: a list that no user has, for it takes the vocabulary to write it."""
    config = study_config(topic)
    return list(members(config.concept, vocabulary_of(config.concept.vocabulary)))


def arm_changes(topic: str, arm: str, method: str) -> dict[str, object]:
    """Settings of `erase` for one arm of the comparison of words and people, with equal steps and tuning for every method and arm.

    word: one natural word; oracle: all member names; tokens: soft tokens alone; prompts: tokens and the prompts of flagged pictures.
    """
    config = study_config(topic)
    if arm in ("word", "oracle"):
        words = [natural_word(topic)] if arm == "word" else oracle_words(topic)
        told = {"erase.concept": "words", "erase.words": words, "erase.flagged_prompts": 0.0}
    else:
        told = {"erase.concept": "tokens", "erase.flagged_prompts": {"tokens": 0.0, "prompts": config.erase.flagged_prompts}[arm]}
    plain = config.erase.model_dump(mode="json")
    tuned = {f"erase.esd.{name}": plain[name] for name in TRAINING} if method == "esd" else {}
    return {"erase.method": method, "erase.snapshots": 0, "erase.save_pipeline": False, **told, **tuned}


def all_states(topic: str) -> dict[str, object]:
    """Settings of `uce, all states` (ours): the edit of all text states; chosen on weapon and fluent-ink, by the annotator judge."""
    return {"erase.uce.states": "all", "erase.uce.preserve_scale": {"style": 10.0, "harm": 1.0}[kind_of(topic)]}


def depends(topic: str, changes: Mapping[str, object] = {}, erase: Mapping[str, object] | None = None) -> dict:  # noqa: B006
    """What decides a cell about this topic: the settings of its study up to its tokens, of sampling, and of the erasure."""
    config = study_config(topic, {**changes, **(erase or {})})
    stages = ("generate", "label", "reward", "invert") + (("erase",) if erase is not None else ())
    found = {name: getattr(config, name).decisive() for name in stages}
    sampling = {"drawn_with": config.evaluate.drawn_with, "judge": config.evaluate.judge}
    return {**found, "seed": config.seed, "concept": config.concept.model_dump(mode="json"), "sampling": sampling}


def study_part(topic: str, changes: Mapping[str, object] = {}, judging: Mapping[str, object] = {}) -> tuple[str, float]:  # noqa: B006
    """(name, seconds) of the study up to its tokens."""
    config = study_config(topic, changes)
    tokens = config.reward.clusters if config.invert.tokens == "per_cluster" else 1
    learning = config.invert.steps * tokens * config.invert.batch_size * config.invert.vectors**0.25 * 0.0072
    return f"study {folder_name(topic, changes, judging)}", 32 + learning


def erasure_part(topic: str, changes: Mapping[str, object], study: str = "") -> tuple[str, float]:
    """(name, seconds) of one erasure."""
    erase = study_config(topic, changes).erase
    hard = erase.hardened
    attack = 0.45 * STEP * hard.attack_steps + 45  # and a look by the judge; ratios as measured (docs/log.md, 2026-11-29)
    rounds = hard.rounds * (2.0 * STEP * hard.steps + attack) + attack if erase.method == "hardened" else 0.0
    seconds = {"esd": 1.1 * erase.esd.steps * STEP, "sdd": erase.steps * STEP, "hardened": erase.steps * STEP + rounds}.get(
        erase.method, 2.0
    )
    return f"erasure {study or topic} {digest(erase.decisive())[:12]}", seconds


def folder_name(topic: str, changes: Mapping[str, object], judging: Mapping[str, object]) -> str:
    plain = study_config(topic, changes).model_dump(mode="json")
    for what in ("name", "device", "erase", "evaluate", "report", "measure", "attack", "persist"):
        plain.pop(what)
    return f"{topic.replace(' ', '-')}-{digest([plain, judging])[:8]}"


def prepared(
    bench: Bench,
    topic: str,
    changes: Mapping[str, object] = {},
    judging: Mapping[str, object] = {},  # noqa: B006 - read only
) -> Workspace:
    """The topic's study with pictures, judgements, reward and tokens; made where it is missing, continued where it was stopped.

    Args:
        changes: settings that differ from the recipe's, dotted.
        judging: what is done to the simulated judgements before the reward learns from them (`rejudged`).
    """
    from hfi.feedback.label import label
    from hfi.generation.generate import generate
    from hfi.inversion.invert import invert
    from hfi.reward.reward import reward

    changes = {**bench.changes, **changes}
    config = with_overrides(study_config(topic, changes), {"device": bench.device})
    study = Workspace(bench.folder / folder_name(topic, changes, judging), config)
    with study.lock(say):
        study.save_config()
        if study.is_done("invert"):
            return study
        borrow_pictures(bench, study, topic)
        model = bench.model(config)
        images = generate(model, study)
        judged = rejudged(label(images, study), images, config, judging)
        invert(model, images, reward(images, judged, study), study)
    return study


def borrow_pictures(bench: Bench, study: Workspace, topic: str) -> None:
    """Take over the finished pictures of another study of the topic that were drawn under the same settings."""
    if study.path("generate").exists():
        return
    for root in sorted(bench.folder.glob(f"{topic.replace(' ', '-')}-????????")):
        other = Workspace(root, study.config)
        if root != study.root and (found := other.manifest("generate")) and found["key"] == study.key("generate"):
            fresh = study.path(".generate")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(root / "generate", fresh)
            fresh.rename(study.path("generate"))
            return


def rejudged(judgements, images, config: StudyConfig, judging: Mapping[str, object]):
    """The judgements after `labels`: only so many of them, drawn at random; or after `blind`: a share of annotators sees no `objects`.

    The blind group is a biased one: its members call every picture absent whose prompt names one of those objects.
    """
    from hfi.seeds import numpy_generator

    rows = list(judgements.binary)
    if "labels" in judging:
        order = numpy_generator(config.seed, "proof labels").permutation(len(rows))
        return replace(judgements, binary=tuple(rows[i] for i in sorted(order[: int(judging["labels"])])), rankings=())
    if "blind" in judging:
        people = sorted({row.annotator for row in rows})
        group = set(people[: round(float(judging["blind"]) * len(people))])
        unseen = {one.id for one in images.images if one.object in set(judging["objects"])}
        hidden = lambda row: row.annotator in group and row.value == "present" and row.images[0] in unseen  # noqa: E731
        return replace(judgements, binary=tuple(replace(row, value="absent") if hidden(row) else row for row in rows))
    return judgements


def material_of(study: Workspace) -> tuple:
    """(pictures, reward, tokens) of a prepared study."""
    from hfi.generation.generate import Generated
    from hfi.inversion.invert import Inverted
    from hfi.reward.reward import RewardResult

    return Generated.load(study), RewardResult.load(study), Inverted.load(study)


def erased(bench: Bench, study: Workspace, changes: Mapping[str, object]) -> tuple[Path, dict]:
    """The file of a delta of this study under changed `erase` settings, and its cost; made once, continued where it was stopped."""
    from hfi.compare.compare import opened
    from hfi.erasure.erase import check_erasable, erase_into
    from hfi.evaluation.quick import round_score
    from hfi.workspace import peak_memory_mib, read_json, reset_peak_memory, write_json

    scored = Workspace(study.root, with_overrides(study.config, {**changes, **_erase_only(bench.changes)}))
    erase = scored.config.erase
    inputs = [(study.manifest(name) or {}).get("digest") for name in ("generate", "reward", "invert")]
    others = [(Workspace.open(path).manifest("invert") or {}).get("digest") for path in erase.also]
    settings = {**erase.decisive(), "also": others}
    key = digest({"inputs": inputs, "erase": settings, "dtype": study.config.dtype})
    folder = study.path("erasures", f"{erase.method}-{key[:12]}")
    with study.lock(say):
        run = opened(folder, key, study.config.seed)
        if run is not None:
            model, (images, reward, tokens) = bench.model(study.config), material_of(study)
            check_erasable(images, reward, scored, erase)
            reset_peak_memory()
            erase_into(run, model, images, reward, tokens, scored, erase, round_score(model, scored))
            size = run.path("delta.safetensors").stat().st_size
            about = {"seconds": round(run.seconds, 1), "peak_memory_mib": round(peak_memory_mib(), 1), "bytes": size}
            write_json(run.path("cell.json"), {"key": key, "cost": about})
            run.path("partial.json").unlink(missing_ok=True)
    return folder / "delta.safetensors", read_json(folder / "cell.json")["cost"]


def say(text: str) -> None:
    """A line for who watches."""
    console.print(text, style=None, highlight=False, soft_wrap=True)


def _erase_only(changes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in changes.items() if name.startswith("erase.")}


def model_missing(folder: Path) -> bool:
    """Whether a further model that a table needs is not there."""
    return not (folder / "model_index.json").is_file()


def require_names(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raise HFIError for a name that is not known."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.0) if len(known) > 20 else known
            raise HFIError(f"no {what} {name!r}", remedy=f"choose of {', '.join(near)}{'; --list has all' if len(known) > 20 else ''}")
