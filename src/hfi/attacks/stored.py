"""Prompts that are there already: from a file, and the targets' own, with which every other attack is compared."""

from __future__ import annotations

from hfi.attacks.budget import read_prompts
from hfi.attacks.found import Found, Run, Target
from hfi.config import StoredAttack
from hfi.diffusion.model import Model
from hfi.diffusion.text import encode_prompts


def attack(model: Model, target: Target, config: StoredAttack, seed: int, run: Run) -> Found:
    """The prompts of `config.file`; nothing is searched, so `seed` changes only what is drawn."""
    return _as_they_are(model, read_prompts(config.file)[: config.limit], run)


def plain(model: Model, target: Target, config: object, seed: int, run: Run) -> Found:
    """The targets' own prompts: no attack at all."""
    return _as_they_are(model, list(target.prompts), run, target.numbers)


def _as_they_are(model: Model, prompts: list[str], run: Run, owners: tuple[int, ...] | None = None) -> Found:
    owners = owners or tuple(range(len(prompts)))
    return Found(encode_prompts(model, prompts), tuple(prompts), owners, (True,) * len(prompts), {"text": len(prompts)}, run.seconds)
