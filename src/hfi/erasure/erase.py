"""Stage 6: soft tokens, or words -> a delta that makes the model forget them, by one of several methods (docs/erasers.md)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.identity import model_hash
from hfi.diffusion.model import Model, save_pipeline
from hfi.diffusion.prompts import concept_words, load_vocabulary
from hfi.diffusion.text import encode_prompts, last_states, listed
from hfi.erasure.attackers import Attackers
from hfi.erasure.ca import train_ca
from hfi.erasure.conditions import Conditions, Flagged, build_conditions, in_context, of_several
from hfi.erasure.delta import Delta, applied, load_delta, save_delta
from hfi.erasure.esd import train_esd
from hfi.erasure.hardened import harden
from hfi.erasure.loop import Benign
from hfi.erasure.negative_prompt import guide_negative
from hfi.erasure.sdd import train_sdd
from hfi.erasure.settings import check_settings
from hfi.erasure.sld import guide_sld
from hfi.erasure.uce import edit_uce
from hfi.errors import HFIError
from hfi.generation.generate import FeedbackImage, Generated
from hfi.inversion.invert import Inverted
from hfi.progress import bar
from hfi.reward.elsewhere import flagged_elsewhere
from hfi.reward.neighbours import selected_kinds
from hfi.reward.reward import RewardResult
from hfi.seeds import numpy_generator
from hfi.workspace import StageRun, Workspace, read_tensors, versions, write_bytes, write_tensors

RESTS = 9  # styles, at most, that a word read in the pictures is asked for in
# how a benign prompt comes in another style, in turn: kept in one wording alone, a style is lost in the others
STYLED = ("{} in the style of {}", "{1}: {0}", "{}, drawn in {}", "{} {}", "{1}, {0}")


METHODS = {
    "sdd": train_sdd,
    "esd": train_esd,
    "ca": train_ca,
    "uce": edit_uce,
    "sld": guide_sld,
    "negative_prompt": guide_negative,
}
Score = Callable[[Delta, Tensor], tuple[float, float, Sequence[float]]]


@dataclass(frozen=True)
class Erased:
    """What stage 6 leaves: the delta, and the files of the deltas on the way, by step."""

    folder: Path
    delta: Delta
    snapshots: dict[int, Path] = field(default_factory=dict)

    @classmethod
    def load(cls, study: Workspace) -> Erased:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("erase")
        snapshots = {step: snapshot_file(folder, step) for step in study.config.erase.snapshot_steps()}
        return cls(folder, load_delta(folder / "delta.safetensors"), snapshots)


class Part(NamedTuple):
    """What one study brings to an erasure: its pictures, their rewards, its tokens, and the kind of its concept."""

    images: Generated
    reward: RewardResult
    tokens: Inverted
    kind: str

    @classmethod
    def load(cls, study: Workspace) -> Part:
        """Read the finished stages of a study; raises HFIError when one is damaged."""
        return cls(Generated.load(study), RewardResult.load(study), Inverted.load(study), study.config.concept.kind)


def snapshot_file(folder: Path, step: int) -> Path:
    """Where the delta after `step` steps is kept, in half precision."""
    return folder / "snapshots" / f"step-{step:06d}.safetensors"


def erase(model: Model, images: Generated, reward: RewardResult, tokens: Inverted, study: Workspace, score: Score | None = None) -> Erased:
    """Erase the study's concept, and those of `erase.also`, in one run; continues from its own checkpoint.

    Args:
        score: for the method `hardened`: what the annotators' judge makes of a delta, and of what is drawn under the
            conditions that attacks found against it (hardened.py).
    """
    if study.is_done("erase"):
        return Erased.load(study)
    check_erasable(images, reward, study, study.config.erase)
    with study.stage("erase") as run:
        erase_into(run, model, images, reward, tokens, study, study.config.erase, score)
    return Erased.load(study)


def erase_into(
    run: StageRun,
    model: Model,
    images: Generated,
    reward: RewardResult,
    tokens: Inverted,
    study: Workspace,
    config: Erase,
    score: Score | None = None,
) -> Delta:
    """Erase under `config` into the folder of `run`: delta, log, snapshots; continues from the checkpoint there."""
    seed, concept = study.config.seed, study.config.concept
    others = [Workspace.open(path) for path in config.also]
    parts = [Part(images, reward, tokens, concept.kind), *map(Part.load, others)]
    benign = benign_of_all(model, [study, *others], parts, config, seed)
    training = config.training()
    rows, _, stored = material(parts)
    words = concept_names([study, *others], config) if config.concept == "words" else ()
    conditions = conditions_of_all(model, [study, *others], parts, config, seed)
    c_0 = encode_prompts(model, [""])
    checkpoint = run.path("checkpoint.safetensors")
    saved = read_tensors(checkpoint) if checkpoint.exists() else None
    log = json.loads(bytes(saved.pop("log").tolist()).decode()) if saved else []
    manifest = {
        "method": config.method,
        "erased": list(words or rows),
        "given_as": config.concept,
        "concepts": [concept.name, *(other.config.concept.name for other in others)],
        "settings": config.decisive(),
        "seed": seed,
        "inputs": {"conditions": tensor_hash(conditions.c), "pictures": tensor_hash(stored), "benign": tensor_hash(benign.c)},
        "versions": versions(),
    }
    with bar() as progress:
        done = int(saved["done"]) if saved else 0
        task = progress.add_task(f"Erasing ({config.method})", total=config.length() or None, completed=done, note="")
        last = time.monotonic()

        def on_log(row: dict) -> None:
            log.append({**row, "seconds": round(run.seconds, 2)})
            progress.update(task, note=f"loss {row['loss']:.4f}")

        def on_step(done: int, state) -> None:
            nonlocal last
            progress.update(task, completed=done)
            if time.monotonic() - last > config.checkpoint_seconds:
                text = torch.tensor(list(json.dumps(log).encode()), dtype=torch.uint8)
                write_tensors(checkpoint, {**state(), "log": text})
                run.checkpoint()
                last = time.monotonic()

        def on_snapshot(done: int, weights: dict[str, Tensor]) -> None:
            save_delta(snapshot_file(run.folder, done), Delta(weights, manifest=manifest).half(), model, concept.name, done)

        def on_round(number: int, said: Mapping[str, float]) -> None:
            attack = f"drawn in {said['erasure']:.2f} of pictures, under the strongest attack in {said['worst']:.2f}"
            progress.console.print(f"round {number}: {attack}; {said['damage']:.2f} of the rest lost", highlight=False, soft_wrap=True)

        given = (model, conditions, c_0, stored, benign, config, seed, saved)
        hooks = {"on_log": on_log, "on_step": on_step, "on_snapshot": on_snapshot}
        if config.method == "hardened":
            against = _attackers(model, stored, [study, *others], parts, c_0, config)
            delta = harden(*given, score=_needed(score), attackers=against, on_round=on_round, **hooks)
        else:
            delta = METHODS[config.method](*given, **hooks)
    delta = replace(delta, manifest={**manifest, **delta.manifest})
    save_delta(run.path("delta.safetensors"), delta, model, concept.name)
    write_bytes(run.path("log.jsonl"), "".join(json.dumps(row) + "\n" for row in log).encode())
    if config.save_pipeline:
        with applied(model, delta):
            save_pipeline(model, run.path("pipeline"))
    checkpoint.unlink(missing_ok=True)
    run.facts.update(
        method=config.method,
        given_as=config.concept,
        concepts=manifest["concepts"],
        tokens=list(words or rows),
        conditions=len(conditions.texts),
        trained_tensors=len(delta.weights),
        trained_parameters=sum(value.numel() for value in delta.weights.values()),
        latents=training.latents if training else None,
        **{name: delta.manifest[name] for name in ("rounds", "kept_round") if name in delta.manifest},
        snapshots=list(config.snapshot_steps()),
    )
    return delta


def check_erasable(images: Generated, reward: RewardResult, study: Workspace, config: Erase) -> None:
    """Raise HFIError for settings that cannot work on this study, before anything is begun or cleared."""
    if config.needs_benign() and not benign_images(images, reward):
        raise HFIError(
            "preservation needs benign pictures, and the study has none",
            file=study.root,
            field="erase.preservation",
            remedy="set generate.benign_share above 0 and draw again, or set erase.preservation to 0",
        )
    check_settings(study.config, config)
    for path in config.also:
        other = Workspace.open(path)
        if model_hash(other.config.model) != model_hash(study.config.model):
            raise HFIError("is a study on another model", file=path, field="erase.also", remedy="erase studies of one model together")
        if not other.is_done("invert"):
            remedy = f"run 'hfi run {path}' up to 'hfi invert {path}'"
            raise HFIError("has no soft tokens under its present settings", file=path, field="erase.also", remedy=remedy)


def tensor_hash(values: Tensor) -> str:
    """SHA-256 (hex) of a tensor's values."""
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def concept_names(studies: Sequence[Workspace], config: Erase) -> list[str]:
    """The natural words of the studies' concepts: `erase.words` for the first where it is set, else the concept's own."""
    return list(dict.fromkeys(word for number, one in enumerate(studies) for word in _names(one, config, number)))


def _names(study: Workspace, config: Erase, number: int) -> tuple[str, ...]:
    """The natural words of one of the studies' concepts."""
    return (config.words if number == 0 else ()) or concept_words(study.config.concept, load_vocabulary(study.config.concept.vocabulary))


def _needed(score: Score | None) -> Score:
    if score is None:
        raise HFIError("needs a judge of its rounds", field="erase.method", remedy="call erase with score, as hfi.method does")
    return score


def _attackers(
    model: Model,
    stored: Tensor,
    studies: Sequence[Workspace],
    parts: Sequence[Part],
    c_0: Tensor,
    config: Erase,
) -> Callable[[int, Mapping[str, Tensor] | None], Attackers]:
    """A function of the round: those that attack its model; pictures of several studies are not brought together."""
    study, kinds, before = studies[0], [], 0
    for one, (images, reward, *_) in zip(studies, parts, strict=True):
        kinds += [[before + i for i in row] for row in selected_kinds(images, reward, one, config.hardened.attack_pictures)]
        before += len(reward.selected)
    settings = (config.hardened, study.config.invert.learning_rate, study.config.concept.kind, study.config.invert.together)
    return lambda number, saved: Attackers(model, stored, kinds, c_0, *settings, study.config.seed, number, saved)


def material(
    parts: Sequence[Part], elsewhere: Sequence[Callable[[FeedbackImage], bool]] = ()
) -> tuple[dict[str, Tensor], list[Flagged], Tensor]:
    """Tokens, prompts of flagged pictures and latents of the top-K, over one study or several.

    The prompts are those of all flagged pictures: of a concept that is a union the top-K may hold only some.

    Args:
        elsewhere: whether what is left of a picture's prompt asks for what another study erases in the same run: then it is nothing.
    """
    rows: dict[str, Tensor] = {}
    prompts, latents = [], []
    for number, (images, reward, tokens, kind) in enumerate(parts):
        for name, value in tokens.tokens.items():
            rows[name if name not in rows else f"<{number}-{name[1:]}"] = value
        by_id = {image.id: image for image in images.images}
        chosen = [by_id[picture.image_id] for picture in reward.selected]
        shown = [by_id[name] for name in reward.flagged]
        # pictures that were brought may have no prompt
        left = {image.id: "" if any(asks(image) for asks in elsewhere) else image.without for image in shown}
        flagged = [Flagged(image.prompt, left[image.id], kind) for image in shown if image.prompt]
        prompts += flagged
        if kind == "harm":  # what a style is called is asked for already
            prompts += prompts_of_words(flagged_words(images, reward), sorted({one.without for one in flagged if one.without}))
        latents.append(images.latents()[[image.index for image in chosen]])
    return rows, prompts, torch.cat(latents)


def prompts_of_words(words: Sequence[str], rests: Sequence[str], each: int = RESTS) -> list[Flagged]:
    """Prompts for the words that CLIP read in the flagged pictures: alone, as a picture, and with what flagged prompts said beside it.

    Args:
        rests: what is left of the flagged prompts without the concept ("in the style of noto").
        each: so many of those for every word, in turn.
    """
    found, turn = [], 0
    for word in words:
        found += [Flagged(word), Flagged(f"a picture of a {word}")]
        for _ in range(min(each, len(rests))):
            found.append(Flagged(f"a {word} {rests[turn % len(rests)]}", rests[turn % len(rests)]))
            turn += 1
    return found


def conditions_of(
    model: Model, tokens: dict[str, Tensor], flagged: Sequence[Flagged], config: Erase, seed: int, words: Sequence[str] = ()
) -> Conditions:
    """The conditions c_s that the settings ask for; `words` stand in the tokens' place where there are any."""
    share, anchor = config.flagged_prompts, config.ca.anchor if config.method == "ca" else ""
    keep_rest = config.keep_rest and config.method in ("sdd", "hardened")
    options = (config.context_variants, seed, words, anchor, keep_rest)
    return build_conditions(model, tokens, config.templates, flagged, share, *options)


def conditions_of_all(model: Model, studies: Sequence[Workspace], parts: Sequence[Part], config: Erase, seed: int) -> Conditions:
    """The conditions of one study's concept, or of several studies' concepts, each of which is met as often as any other (ours)."""
    found, asked = [], [asks_for_it(part) for part in parts] if len(parts) > 1 else [None]
    for number, (study, part) in enumerate(zip(studies, parts, strict=True)):
        words = _names(study, config, number) if config.concept == "words" else ()
        # a style is left of a harm's prompt and an object of a style's, so a second study of the same harm takes nothing away
        others = [asks for asks, (*_, kind) in zip(asked, parts, strict=True) if kind != part[-1]]
        found.append(conditions_of(model, *material([part], others)[:2], config, seed, words))
    if len(found) == 1:
        return found[0]
    rows, *_ = material(parts)
    names = concept_names(studies, config) if config.concept == "words" else list(rows)
    return of_several(found, encode_prompts(model, listed(model, names, rows), rows), [len(reward.selected) for _, reward, *_ in parts])


def benign_of_all(model: Model, studies: Sequence[Workspace], parts: Sequence[Part], config: Erase, seed: int) -> Benign:
    """What stays when one study's concept is erased, or several studies' in one run.

    Of several: the benign pictures of each, but for those that another one's reward holds for its concept, or whose prompts ask for what
    that one's people flagged, and the kept words of each, but for those that another one erases (ours).
    """
    if len(parts) == 1:
        return benign_material(model, *parts[0][:2], config, seed)
    found, asked = [], [asks_for_it(part) for part in parts]
    for study, (images, reward, *_) in zip(studies, parts, strict=True):
        others = [other for other in studies if other is not study]
        benign, asking = benign_images(images, reward), [asks for other, asks in zip(studies, asked, strict=True) if other is not study]
        without = flagged_elsewhere(images, benign, study.path("cache"), others)
        without |= {image.id for image in benign if any(asks(image) for asks in asking)}
        erased = {word for theirs, other, *_ in parts if other is not reward for word in flagged_words(theirs, other)}
        kept = tuple(word for word in reward.kept_words if word not in erased)
        reward = replace(reward, flagged=(*reward.flagged, *sorted(without)), kept_words=kept)
        found.append(benign_material(model, images, reward, config, seed))
    found = [one for one in found if len(one.latents)] or found[:1]
    if config.needs_benign() and not len(found[0].latents):
        raise HFIError(
            "every benign picture of these studies shows or asks for what another one of them erases",
            file=studies[0].root,
            field="erase.also",
            remedy="draw more benign pictures (generate.benign_share), or set erase.preservation to 0",
        )
    if len(found) == 1:
        return found[0]
    return Benign(*(torch.cat([getattr(one, name) for one in found]) for name in ("latents", "c", "end")))


def flagged_words(images: Generated, reward: RewardResult) -> list[str]:
    """The words that CLIP read in the flagged pictures, and those near the concept (`generate.near_words`) whose picture was flagged."""
    by_id = {image.id: image for image in images.images}
    shown = (by_id[name] for name in reward.flagged)
    return list(dict.fromkeys([*reward.words, *(image.prompt for image in shown if image.purpose == "word")]))


def asks_for_it(part: Part) -> Callable[[FeedbackImage], bool]:
    """Whether a picture's prompt asks for the concept of this study: it names a style of which people flagged more than half of the
    study's pictures, or where the concept is a harm such an object.

    A reward lets a picture in an erased style pass now and then, and one would do: every benign prompt would come in that style again.
    """
    images, reward, _, kind = part
    field, flagged = "style" if kind == "style" else "object", set(reward.flagged)
    judged = [(getattr(image, field), image.id in flagged) for image in images.images if image.purpose != "word"]
    counts = {name: [flag for other, flag in judged if other == name] for name, _ in judged if name}
    names = {name for name, flags in counts.items() if 2 * sum(flags) > len(flags)}
    return lambda image: getattr(image, field) in names


def benign_material(model: Model, images: Generated, reward: RewardResult, config: Erase, seed: int) -> Benign:
    """Feedback pictures whose prompts do not ask for the concept, and that nobody flagged, with those prompts encoded.

    Four options of ours add conditions, each on a latent of one of those pictures: with `near_copies` the quarter of them with the
    highest reward, the concept's neighbours, counts so many times more; with `context_variants` every prompt comes again between random
    words; with `benign_styles` every prompt comes again in so many other styles of the benign prompts, worded in turn; and with
    `reward.kept_words` come the words that CLIP reads in no flagged picture, half of them in a style: what they draw is to stay,
    whatever the state.
    """
    benign = benign_images(images, reward)
    if not benign:
        return Benign(images.latents()[:0], torch.empty(0))
    near = sorted(benign, key=lambda image: (-reward.scores[image.id], image.id))[: len(benign) // 4]
    alone = len(benign)
    benign += near * config.near_copies
    latents = images.latents()[[image.index for image in benign]]
    prompts = [image.prompt for image in benign]
    more = [text for (text,) in in_context(model, [(prompt,) for prompt in prompts], config.context_variants, seed, "benign")]
    copies = len(more) // len(prompts)
    again = latents.repeat_interleave(copies, 0) if copies else latents[:0]
    styles = sorted({image.style for image in benign if image.style})
    words = [
        f"a {word} in the style of {styles[i % len(styles)]}" if i % 2 and styles else f"a picture of a {word}"
        for i, word in enumerate(reward.kept_words)
    ]
    under_words = latents[torch.arange(len(words)) % len(latents)]
    restyled = in_other_styles(benign[:alone], styles, config.benign_styles, seed)
    under_styles = latents[[place for place, _ in restyled]]
    every = [*prompts, *more, *words, *(text for _, text in restyled)]
    return Benign(torch.cat([latents, again, under_words, under_styles]), encode_prompts(model, every), last_states(model, every))


def in_other_styles(benign: Sequence, styles: Sequence[str], count: int, seed: int) -> list[tuple[int, str]]:
    """(place in `benign`, its prompt in another one of `styles`, worded in turn), `count` for each picture, or as many as there are."""
    rng, found = numpy_generator(seed, "benign styles"), []
    for place, image in enumerate(benign):  # "a picture of X in the style of Y" is left to the evaluation, whose wording it is
        plain = image.prompt.removesuffix(f" in the style of {image.style}").removeprefix("a picture of ")
        others = [style for style in styles if style != image.style]
        for style in rng.permutation(others)[:count]:
            found.append((place, STYLED[len(found) % len(STYLED)].format(plain, style)))
    return found


def benign_images(images: Generated, reward: RewardResult) -> list:
    """Feedback pictures whose prompts do not ask for the concept, and that nobody flagged.

    Not those of near words: one picture that people let pass is too little to protect a word that lies so near.
    """
    flagged = set(reward.flagged)
    return [image for image in images.images if image.purpose == "benign" and image.id not in flagged]
