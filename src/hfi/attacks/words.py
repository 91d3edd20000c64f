"""Tokens as attacks see them: which may be chosen, which is nearest to an embedding, and what a row of them reads like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.text import embedding_table, token_ids


def words(model: Model) -> Tensor:
    """Ids (W,) of all tokens but the special ones, which would end or pad a prompt."""
    every = torch.arange(embedding_table(model).shape[0])
    return every[~torch.isin(every, torch.tensor(sorted(model.tokenizer.all_special_ids)))]


def prompt_ids(model: Model, prompt: str) -> list[int]:
    """A prompt's tokens, without beginning and end."""
    return model.tokenizer(prompt, add_special_tokens=False)["input_ids"]


def sequence(model: Model, ids: Sequence[int]) -> Tensor:
    """Ids (L,) as the text encoder takes them: beginning, the ids as far as there is room, end, padding."""
    full = token_ids(model, [""])[0]
    kept = torch.tensor(list(ids)[: len(full) - 2], dtype=full.dtype)
    full[1 : 1 + len(kept)] = kept
    full[1 + len(kept)] = model.tokenizer.eos_token_id
    full[2 + len(kept) :] = model.tokenizer.pad_token_id
    return full


def room(model: Model) -> int:
    """Tokens that fit between beginning and end."""
    return token_ids(model, [""]).shape[1] - 2


def nearest(rows: Tensor, choices: Tensor) -> Tensor:
    """Places (n,) among `choices` (W, D) of the embeddings with the highest cosine to `rows` (n, D) (PEZ, arXiv 2302.03668)."""
    return (F.normalize(rows, dim=-1) @ F.normalize(choices, dim=-1).T).argmax(-1)


def reading(model: Model, ids: Sequence[int]) -> str:
    """The tokens as text. Reading it back may give other tokens."""
    return model.tokenizer.decode(list(ids), skip_special_tokens=True).strip()
