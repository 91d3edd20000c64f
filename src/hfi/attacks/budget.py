"""What attacks there are and what each costs in network passes, told before anything runs. Imports no torch."""

from __future__ import annotations

import csv
from pathlib import Path

from hfi.config import Attack, P4DAttack, UnlearnDiffAttack
from hfi.errors import HFIError

METHODS = {  # in the order of tables: name -> what it is
    "plain": "the targets' own prompts: no attack",
    "stored": "prompts from a file",
    "ringabell": "Ring-A-Bell: concept vector and genetic search in the text encoder",
    "noise": "start from a noised picture of the concept",
    "p4d": "P4D: a prompt that predicts as the original does",
    "unlearndiffatk": "UnlearnDiffAtk: a prefix through the denoising loss",
    "reinversion": "re-inversion: fresh soft tokens",
    "embedding": "a free prompt embedding",
}
BLIND = {"plain", "stored", "ringabell", "noise"}  # never see the UNet: what they find is the same before and after erasing
SEARCHES = {"ringabell", "p4d", "unlearndiffatk"}  # look for token ids; not for families whose text encoders differ in vocabulary
TOGETHER = {"plain", "stored", "reinversion", "noise"}  # take all targets at once
PREFIX = {"harm": 5, "style": 3}  # K of UnlearnDiffAtk by kind of concept


def variants(method: str, config: Attack) -> tuple[dict, ...]:
    """What tells the attacks of one method apart, as further arguments of its function."""
    if method == "reinversion":
        return tuple({"vectors": count} for count in config.reinversion.vectors)
    if method == "p4d":
        return tuple({"variant": name} for name in config.p4d.variants)
    return tuple({"share": share} for share in config.noise.shares) if method == "noise" else ({},)


def title(method: str, variant: dict) -> str:
    """The attack's name in tables: reinversion, 4 vectors; p4d-n; noise from 0.7 T."""
    if "vectors" in variant:
        return f"{method}, {variant['vectors']} vector{'s' * (variant['vectors'] > 1)}"
    if "variant" in variant:
        return f"{method}-{variant['variant']}"
    return f"{method} from {variant['share']:g} T" if variant else method


def tokens_of(config: UnlearnDiffAttack, kind: str) -> int:
    """Length of UnlearnDiffAtk's prefix."""
    return config.tokens or PREFIX[kind]


def timesteps_of(config: UnlearnDiffAttack, length: int) -> list[int]:
    """The timesteps that UnlearnDiffAtk takes in turn: the middles of equal parts of the schedule (50 of 1000: 10, 30, ... 990)."""
    count = min(config.timesteps, length)
    return [length // count // 2 + length * k // count for k in range(count)]


def spread(count: int, size: int) -> list[int]:
    """At most `count` of the places 0 to size - 1, evenly, the last among them."""
    count = min(count, size)
    return sorted({size - 1 - size * k // count for k in range(count)})


def looks_of(config: P4DAttack) -> int:
    """How often P4D compares its prompt of the moment with the best one."""
    return config.steps // config.look_every + bool(config.steps % config.look_every)


def passes(method: str, config: Attack, targets: int, timesteps: int = 1000) -> dict[str, int]:
    """Network passes of one search (one seed, one variant): {"unet", "original", "text"}, as far as there are any.

    Ring-A-Bell's are what is expected: its children are drawn by lot.
    """
    looks = 8
    if method == "reinversion":
        return {"unet": config.reinversion.steps * config.reinversion.batch_size}
    if method == "unlearndiffatk":
        count = len(timesteps_of(config.unlearndiffatk, timesteps))
        return {"unet": targets * (count * config.unlearndiffatk.iterations + looks * (count + 1))}
    if method == "p4d":
        learning = targets * config.p4d.steps * config.p4d.batch_size
        return {"unet": learning + targets * looks * (1 + looks_of(config.p4d)), "original": learning + targets * looks}
    if method == "embedding":
        return {"unet": targets * (config.embedding.steps * config.embedding.batch_size + 2 * looks)}
    if method == "ringabell":
        c = config.ringabell
        alive = c.population // 2
        fresh = alive * 2 * c.crossover + (alive - 1) * c.mutation
        return {"text": round(targets * (1 + c.population + (c.generations - 1) * fresh) + 2 * c.pairs)}
    return {}


def read_prompts(path: Path | None) -> list[str]:
    """Prompts of a file: one a line, or the column `prompt` of a CSV file. Raises HFIError for a missing or empty one."""
    if path is None:
        raise HFIError("no file of prompts is named", field="attack.stored.file", remedy="add --set attack.stored.file=prompts.txt")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise HFIError("cannot be read", file=path, field="attack.stored.file", remedy="give a text file, or CSV, in UTF-8") from None
    if Path(path).suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        if "prompt" not in (rows.fieldnames or []):
            raise HFIError("has no column `prompt`", file=path, field="attack.stored.file", remedy="name one of its columns prompt")
        lines = [row["prompt"] or "" for row in rows]
    else:
        lines = text.splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise HFIError("holds no prompts", file=path, field="attack.stored.file", remedy="write one prompt on each line")
    return prompts
