"""One attack on one model: choose what to be after, search, draw, judge; cell by cell, so that a stopped run goes on.

STUDY/attacks/<method>/<key>.json     one cell: one attack, one seed, one model; the key is a hash of all that it depends on
STUDY/attacks/<method>/<key>/         its pictures
STUDY/attacks/<method>/found-<key>/   what the search found, and its checkpoint while it is at work
STUDY/attacks/attacks.json            the table over all cells: hfi.evaluation.attack_table
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hfi.attacks import embedding, noise, p4d, reinversion, ringabell, stored, unlearndiffatk
from hfi.attacks.budget import BLIND, TOGETHER, title
from hfi.attacks.found import Found, Run, Target
from hfi.diffusion.model import Model, predict_noise
from hfi.diffusion.sampling import decode, noised_start, sample_latents, to_pil
from hfi.diffusion.text import encode_prompts
from hfi.erasure.trainable import swapped
from hfi.errors import HFIError, disk_errors
from hfi.evaluation.comeback import attack_pictures
from hfi.evaluation.drawing import name_verdicts, settings
from hfi.generation.generate import Generated
from hfi.perception.judges import Judge
from hfi.reward.neighbours import groups_of
from hfi.seeds import derive
from hfi.workspace import Workspace, digest, file_hash, read_json, read_tensors, write_json, write_tensors

ATTACKS = {
    "plain": stored.plain,
    "stored": stored.attack,
    "ringabell": ringabell.attack,
    "noise": noise.attack,
    "p4d": p4d.attack,
    "unlearndiffatk": unlearndiffatk.attack,
    "reinversion": reinversion.attack,
    "embedding": embedding.attack,
}
PER_PROMPT = {"plain", "stored", "ringabell", "p4d", "unlearndiffatk"}  # their papers count prompts that succeed


@dataclass(frozen=True)
class Side:
    """One model under attack, with the weights that it has now. name: erased, original or control; identity: a hash of its weights."""

    name: str
    model: Model
    identity: str


def choose_targets(model: Model, study: Workspace, images: Generated, reward, number: int = 0) -> Target:
    """Flagged pictures that inversion never saw, as `attack.choose` says; the model must have its original weights.

    Args:
        number: of the attack, of several with other random draws: of pictures that are alike each has a group of its own, in turn.

    Raises HFIError when the study has none with a prompt.
    """
    pictures = [one for one in attack_pictures(images, reward) if one.prompt and one.purpose != "benign"]
    if not pictures:
        raise HFIError(
            "has no picture of the concept with a prompt outside its top-K",
            file=study.root,
            field="attack.targets",
            remedy="draw more pictures (generate.images), or lower reward.top_k, and run the study again",
        )
    count = min(study.config.attack.targets, len(pictures))
    if study.config.attack.choose == "alike":
        groups = groups_of(pictures, images, study, count)
        chosen = [pictures[i] for i in groups[(study.config.attack.seed + number) % len(groups)]]
    else:
        chosen = [pictures[len(pictures) * k // count] for k in range(count)]
    prompts = tuple(one.prompt for one in chosen)
    return Target(
        latents=images.latents()[[one.index for one in chosen]],
        prompts=prompts,
        seeds=tuple(one.seed for one in chosen),
        numbers=tuple(range(count)),
        pairs=prompt_pairs(images, reward),
        kind=study.config.concept.kind,
        original=predictions_now(model, encode_prompts(model, prompts)),
    )


def prompt_pairs(images: Generated, reward) -> tuple[tuple[str, str], ...]:
    """Prompts of flagged pictures with the concept and without it, those first from which something remains."""
    by_id = {image.id: image for image in images.images}
    shown = [by_id[name] for name in reward.flagged]
    pairs = dict.fromkeys((one.prompt, one.without) for one in shown if one.prompt and one.purpose != "benign")
    return tuple(sorted(pairs, key=lambda pair: not pair[1]))


def predictions_now(model: Model, c: Tensor) -> Callable[[Tensor, Tensor, Sequence[int]], Tensor]:
    """A function that predicts under c (N, L, D) with the weights that the model has at this moment, whatever is laid over them later."""
    parameters = dict(model.network.named_parameters())
    weights = {name: parameter.data for name, parameter in parameters.items()}  # laying a delta over them moves pointers only

    def original(z_t: Tensor, t: Tensor, places: Sequence[int]) -> Tensor:
        with swapped(parameters, weights):
            return predict_noise(model, z_t, t, c[list(places)].to(z_t.device))

    return original


def attack_seed(study: Workspace, method: str, number: int) -> int:
    """The seed of one attack of several."""
    return derive(study.config.seed, "attack", study.config.attack.seed, method, number)


def find(side: Side, method: str, variant: dict, target: Target, study: Workspace, seed: int, progress) -> Found:
    """What the attack finds, read back where it was found before; continues from its own checkpoint.

    An attack that never sees the UNet is made once for all models with one text encoder and its result shared.
    """
    config = study.config.attack
    section = getattr(config, method, None)
    own = attack_seed(study, method, seed)
    depends = {
        "method": [method, variant, section and section.model_dump(mode="json", exclude=_told_apart(method))],
        "file": file_hash(section.file) if method == "stored" else None,
        "model": side.model.hash if method in BLIND else side.identity,
        "dtype": str(side.model.dtype),
        "target": _described(target),
        "seed": own,
        "together": config.batch_size,
    }
    folder = study.path("attacks", method, f"found-{digest(depends)[:16]}")
    size = len(target) if method in TOGETHER else config.batch_size
    starts = range(0, len(target), size)
    words = f"{title(method, variant)}, seed {seed + 1}, {side.name}"
    task, parts = None, []
    for number, start in enumerate(starts):
        file = folder / f"part-{start:04d}.safetensors"
        if not file.exists():
            if task is None:
                task = progress.add_task(words, total=len(starts), completed=number, note="")
            run = Run(
                folder / f"checkpoint-{start:04d}.safetensors",
                config.checkpoint_seconds,
                lambda done, total, note: progress.update(task, completed=number + done / total, note=note),  # noqa: B023
            )
            found = ATTACKS[method](side.model, target.part(start, start + size), section, own, run, **variant)
            save_found(file, found)
            for leftover in (run.file, run.clock):
                leftover.unlink(missing_ok=True)
        parts.append(load_found(file))
    if task is not None:
        progress.remove_task(task)
    return joined(parts)


def _told_apart(method: str) -> set[str]:
    """Settings that list the variants, each of which names its own, and a file, whose contents count."""
    return {"reinversion": {"vectors"}, "p4d": {"variants"}, "noise": {"shares"}, "stored": {"file"}}.get(method, set())


def _described(target: Target) -> str:
    pictures = digest([[round(float(x), 6) for x in row] for row in target.latents.flatten(1)])
    return digest([pictures, target.prompts, target.seeds, target.pairs, target.kind])


def _owners(target: Target) -> dict[str, str]:
    """Number of each target -> what names it, the same for one picture in any group."""
    rows = zip(target.numbers, target.latents.flatten(1), target.prompts, target.seeds, strict=True)
    return {str(number): digest([[round(float(x), 6) for x in row], prompt, seed])[:8] for number, row, prompt, seed in rows}


def save_found(path: Path, found: Found) -> None:
    """Write what an attack found as safetensors; words and numbers in the header."""
    plain = {name: getattr(found, name) for name in ("texts", "owners", "final", "queries", "seconds", "share", "losses")}
    tensors = {"c": found.c} | ({} if found.z_0 is None else {"z_0": found.z_0})
    write_tensors(path, tensors, {"format": "pt", "kind": "hfi-attack", "found": json.dumps(plain)})


def load_found(path: Path) -> Found:
    """Read it back; raises HFIError when it is damaged."""
    from safetensors import safe_open

    tensors = read_tensors(path)
    with safe_open(path, "pt") as stream:
        plain = json.loads(stream.metadata()["found"])
    lists = {name: tuple(plain.pop(name)) for name in ("texts", "owners", "final")}
    losses = tuple(map(tuple, plain.pop("losses")))
    return Found(c=tensors["c"], z_0=tensors.get("z_0"), losses=losses, **lists, **plain)


def joined(parts: Sequence[Found]) -> Found:
    """Several batches of one attack as one."""
    queries: dict[str, int] = {}
    for part in parts:
        for name, count in part.queries.items():
            queries[name] = queries.get(name, 0) + count
    together = {name: sum((getattr(part, name) for part in parts), ()) for name in ("texts", "owners", "final", "losses")}
    return Found(
        c=torch.cat([part.c for part in parts]),
        queries=queries,
        seconds=sum(part.seconds for part in parts),
        z_0=None if parts[0].z_0 is None else torch.cat([part.z_0 for part in parts]),
        share=parts[0].share,
        **together,
    )


@dataclass(frozen=True)
class Picture:
    """One picture to draw under the condition `place`; `owner` names its target or prompt."""

    place: int
    owner: int
    final: bool
    seed: int


def plan_pictures(found: Found, target: Target, method: str, count: int, seed: int, number: int = 0) -> list[Picture]:
    """`count` pictures spread over the final conditions, at least one each, and one for each that is not final.

    The first picture of a target has the seed that its own picture was drawn with, as in the papers, in the first attack of several:
    drawn so in each, where nothing is found the same picture would count several times.

    Args:
        number: of the attack, of several with other random draws.
    """
    each = max(1, math.ceil(count / max(1, sum(found.final))))
    own = dict(zip(target.numbers, target.seeds, strict=True)) if number == 0 and method in PER_PROMPT - {"stored"} else {}
    drawn = []
    for place, (owner, final) in enumerate(zip(found.owners, found.final, strict=True)):
        for k in range(each if final else 1):
            drawn.append(Picture(place, owner, final, own[owner] if k == 0 and owner in own else derive(seed, "attacked", owner, k)))
    return drawn


def cell(side: Side, method: str, variant: dict, target: Target, study: Workspace, judge: Judge, seed: int, is_hit, progress) -> dict:
    """One attack with one seed on one model, as plain data; read back where it was done before."""
    config, sampling = study.config.attack, study.config.evaluate
    section = getattr(config, method, None)
    depends = {
        "method": [method, variant, section and section.model_dump(mode="json", exclude=_told_apart(method))],
        "file": file_hash(section.file) if method == "stored" else None,
        "model": side.identity,
        "computed_with": settings(side.model)["dtype"],
        "target": _described(target),
        "seed": attack_seed(study, method, seed),
        "pictures": [config.pictures, *sampling.drawn_with, *(["fresh seeds"] if seed and method in PER_PROMPT else [])],
        "judge": judge.name,
        "concept": study.config.concept.model_dump(mode="json"),
    }
    if files := study.files():  # a vocabulary of one's own says what counts
        depends["files"] = files
    key = digest(depends)[:16]
    file = study.path("attacks", method, f"{key}.json")
    about = {"owners": {} if method == "stored" else _owners(target), "targets": [] if method == "stored" else list(target.prompts)}
    if file.exists():
        return {**read_json(file), **about, "side": side.name}  # a control may be the original itself; of before, it did not say them
    found = find(side, method, variant, target, study, seed, progress)
    plan = plan_pictures(found, target, method, config.pictures, attack_seed(study, method, seed), seed)
    folder = study.path("attacks", method, key)
    task = progress.add_task(f"Drawing {title(method, variant)}, seed {seed + 1}, {side.name}", total=len(plan), note="")
    rows = []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(plan), sampling.batch_size):
        batch = plan[start : start + sampling.batch_size]
        pixels = draw(side.model, found, batch, sampling.sampling)
        for k, (one, image, verdict) in enumerate(zip(batch, to_pil(pixels), name_verdicts(judge, judge(pixels)), strict=True), start):
            path = folder / f"{k:04d}.png"
            with disk_errors(path):
                image.save(path, "PNG", compress_level=1)
            rows.append(
                {
                    "file": f"{key}/{path.name}",
                    "owner": one.owner,
                    "place": one.place,
                    "final": one.final,
                    "hit": bool(is_hit(verdict)),
                    "object": verdict.object,
                    "style": verdict.style,
                }
            )
        progress.update(task, completed=start + len(batch))
    progress.remove_task(task)
    result = {
        "key": key,
        "method": method,
        "variant": variant,
        "title": title(method, variant),
        "side": side.name,
        "model": side.identity,
        "seed": seed,
        "queries": found.queries,
        "seconds": round(found.seconds, 2),
        **about,
        "texts": list(found.texts),
        "losses": [list(pair) for pair in found.losses],
        "pictures": rows,
    }
    write_json(file, result)
    return result


@torch.no_grad()
def draw(model: Model, found: Found, batch: Sequence[Picture], sampling: Mapping) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1], in 8-bit steps, under what an attack found; `sampling`: of hfi.config.Sampling."""
    places, seeds = [one.place for one in batch], [one.seed for one in batch]
    c, c_0 = found.c[places].to(model.device), encode_prompts(model, [""])
    steps, sampler = sampling["steps"], sampling["sampler"]
    start = None if found.z_0 is None else noised_start(model, found.z_0[places], found.share, seeds, steps, sampler)
    return (decode(model, sample_latents(model, c, c_0, seeds, start=start, **sampling)) * 255).round() / 255
