"""Stage 6: soft tokens -> a delta that makes the model forget them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hfi.config import Erase
from hfi.diffusion.model import Model, save_pipeline
from hfi.diffusion.text import encode_prompts
from hfi.erasure.conditions import Conditions, Flagged, build_conditions, in_context
from hfi.erasure.delta import applied, load_delta, save_delta
from hfi.erasure.sdd import Benign, train_sdd
from hfi.errors import HFIError
from hfi.generation.generate import Generated
from hfi.inversion.invert import Inverted
from hfi.progress import bar
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace, read_tensors, write_bytes, write_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

RESTS = 9  # styles, at most, that a word read in the pictures is asked for in


@dataclass(frozen=True)
class Erased:
    """What stage 6 leaves: the delta, by parameter name, and the files of the deltas on the way, by step."""

    folder: Path
    delta: dict[str, Tensor]
    snapshots: dict[int, Path] = field(default_factory=dict)

    @classmethod
    def load(cls, study: Workspace) -> Erased:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("erase")
        snapshots = {step: snapshot_file(folder, step) for step in study.config.erase.snapshot_steps()}
        return cls(folder, load_delta(folder / "delta.safetensors"), snapshots)


def snapshot_file(folder: Path, step: int) -> Path:
    """Where the delta after `step` steps is kept, in half precision."""
    return folder / "snapshots" / f"step-{step:06d}.safetensors"


def erase(model: Model, images: Generated, reward: RewardResult, tokens: Inverted, study: Workspace) -> Erased:
    """Erase the study's concept, and those of `erase.also`, in one run; continues from its own checkpoint."""
    if study.is_done("erase"):
        return Erased.load(study)
    config = study.config.erase
    others = [_open_other(path) for path in config.also]
    seed = study.config.seed
    benign = benign_material(model, images, reward, config, seed)
    if config.preservation and not len(benign.latents):
        raise HFIError(
            "preservation needs benign pictures, and the study has none",
            file=study.root,
            field="erase.preservation",
            remedy="set generate.benign_share above 0 and draw again, or set erase.preservation to 0",
        )
    with study.stage("erase") as run, bar() as progress:
        rows, prompts, stored = material([(images, reward, tokens, study.config.concept.kind), *others])
        conditions = conditions_of(model, rows, prompts, config, seed)
        c_0 = encode_prompts(model, [""])
        checkpoint = run.path("checkpoint.safetensors")
        saved = read_tensors(checkpoint) if checkpoint.exists() else None
        log = json.loads(bytes(saved.pop("log").tolist()).decode()) if saved else []
        task = progress.add_task("Erasing", total=config.steps, completed=int(saved["done"]) if saved else 0, note="")
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

        def on_snapshot(done: int, delta: dict[str, Tensor]) -> None:
            half = {name: value.half() for name, value in delta.items()}
            save_delta(snapshot_file(run.folder, done), half, model, study.config.concept.name, done)

        delta = train_sdd(model, conditions, c_0, stored, benign, config, seed, saved, on_log, on_step, on_snapshot)
        save_delta(run.path("delta.safetensors"), delta, model, study.config.concept.name)
        write_bytes(run.path("log.jsonl"), "".join(json.dumps(row) + "\n" for row in log).encode())
        if config.save_pipeline:
            with applied(model, delta):
                save_pipeline(model, run.path("pipeline"))
        checkpoint.unlink(missing_ok=True)
        run.facts.update(
            tokens=list(rows),
            conditions=len(conditions.texts),
            trained_tensors=len(delta),
            trained_parameters=sum(value.numel() for value in delta.values()),
            latents=config.latents,
            snapshots=list(config.snapshot_steps()),
        )
    return Erased.load(study)


def material(parts: Sequence[tuple[Generated, RewardResult, Inverted, str]]) -> tuple[dict[str, Tensor], list[Flagged], Tensor]:
    """Tokens, prompts of flagged pictures and latents of the top-K, over one study or several; the last of a part is its concept's kind.

    The prompts are those of all flagged pictures: of a concept that is a union the top-K may hold only some.
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
        flagged = [Flagged(image.prompt, image.without, kind) for image in shown if image.prompt]
        prompts += flagged
        if kind == "harm":  # what a style is called is asked for already
            prompts += prompts_of_words(reward.words, sorted({one.without for one in flagged if one.without}))
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


def conditions_of(model: Model, tokens: dict[str, Tensor], flagged: Sequence[Flagged], config: Erase, seed: int) -> Conditions:
    """The conditions c_s that the settings ask for."""
    return build_conditions(model, tokens, config.templates, flagged, config.flagged_prompts, config.context_variants, seed)


def benign_material(model: Model, images: Generated, reward: RewardResult, config: Erase, seed: int) -> Benign:
    """Feedback pictures whose prompts do not ask for the concept, and that nobody flagged, with those prompts encoded.

    Three options of ours add conditions, each on a latent of one of those pictures: with `near_copies` the quarter of them with the
    highest reward, the concept's neighbours, counts so many times more; with `context_variants` every prompt comes again between random
    words; and with `reward.kept_words` come the words that CLIP reads in no flagged picture, half of them in a style: what they draw
    is to stay, whatever the state.
    """
    flagged = set(reward.flagged)
    benign = [image for image in images.images if image.purpose == "benign" and image.id not in flagged]
    if not benign:
        return Benign(images.latents()[:0], torch.empty(0))
    near = sorted(benign, key=lambda image: (-reward.scores[image.id], image.id))[: len(benign) // 4]
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
    return Benign(torch.cat([latents, again, under_words]), encode_prompts(model, [*prompts, *more, *words]))


def _open_other(path: Path) -> tuple[Generated, RewardResult, Inverted, str]:
    other = Workspace.open(path)
    return Generated.load(other), RewardResult.load(other), Inverted.load(other), other.config.concept.kind
