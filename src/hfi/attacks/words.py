"""Tokens as attacks see them: which may be chosen, which is nearest to an embedding, and what a row of them reads like.

A row of ids is a prompt for all text encoders of a model, which need one vocabulary: the CLIPs of SD XL, and of an SD 3 without T5, share
theirs. A token's embedding is then its rows in all tables side by side (ours; the papers attack models of one text encoder).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hfi.diffusion.families import require
from hfi.diffusion.model import Model
from hfi.diffusion.text import token_ids
from hfi.errors import HFIError

OTHER_ATTACKS = "use reinversion, embedding, noise or stored, which every family has"


def words(model: Model) -> Tensor:
    """Ids (W,) of all tokens but the special ones, which would end or pad a prompt; raises HFIError as `check_searchable` does."""
    check_searchable(model)
    every = torch.arange(model.encoders[0].table.shape[0])
    special = {one for encoder in model.encoders for one in encoder.tokenizer.all_special_ids}
    return every[~torch.isin(every, torch.tensor(sorted(special)))]


def check_searchable(model: Model) -> None:
    """Raise HFIError where the text encoders read different vocabularies, so that no row of ids is a prompt for all of them."""
    first, *others = model.encoders
    if any(encoder.name == "t5" for encoder in others):
        require(model.family, "token_search", "attack", model.name, OTHER_ATTACKS)
    for encoder in others:
        if encoder.table.shape[0] != first.table.shape[0] or encoder.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            names = f"{first.name} and {encoder.name}"
            raise HFIError(f"its text encoders {names} have different vocabularies", file=model.name, field="attack", remedy=OTHER_ATTACKS)


def prompt_ids(model: Model, prompt: str) -> list[int]:
    """A prompt's tokens, without beginning and end."""
    return model.tokenizer(prompt, add_special_tokens=False)["input_ids"]


def sequence(model: Model, ids: Sequence[int]) -> Tensor:
    """Ids (L,) as the text encoders take them: beginning, the ids as far as there is room, end, padding; several side by side."""
    parts = token_ids(model, [""])[0].split([encoder.length for encoder in model.encoders])
    for encoder, full in zip(model.encoders, parts, strict=True):
        kept = torch.tensor(list(ids)[: len(full) - 2], dtype=full.dtype)
        full[1 : 1 + len(kept)] = kept
        full[1 + len(kept)] = encoder.tokenizer.eos_token_id
        full[2 + len(kept) :] = encoder.tokenizer.pad_token_id
    return torch.cat(parts)


def room(model: Model) -> int:
    """Tokens that fit between beginning and end."""
    return min(encoder.length for encoder in model.encoders) - 2


def nearest(rows: Tensor, choices: Tensor) -> Tensor:
    """Places (n,) among `choices` (W, D) of the embeddings with the highest cosine to `rows` (n, D) (PEZ, arXiv 2302.03668)."""
    return (F.normalize(rows, dim=-1) @ F.normalize(choices, dim=-1).T).argmax(-1)


def reading(model: Model, ids: Sequence[int]) -> str:
    """The tokens as text. Reading it back may give other tokens."""
    return model.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
