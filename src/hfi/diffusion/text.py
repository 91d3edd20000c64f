"""Text conditions c: prompts through the text encoder, with soft tokens v* standing in for words.

A soft token is written `<name>` in a prompt and stands for n embedding rows. The vocabulary is not touched: the rows are
laid over the encoder's embedding output, so the same code serves frozen and learning rows.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.errors import HFIError

PLACEHOLDER = re.compile(r"(<[^<>\s]+>)")
MAX_CACHE = 20_000


def embedding_table(model: Model) -> Tensor:
    """The text encoder's embedding table (V, D)."""
    return model.text_encoder.get_input_embeddings().weight


def token_ids(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Token ids (B, L); the rows of soft tokens are numbered from V upward, in the order of `tokens`.

    Raises HFIError for a soft token of another width than the text encoder's.
    """
    tokenizer, width = model.tokenizer, embedding_table(model).shape[1]
    first, vocabulary = {}, embedding_table(model).shape[0]
    for name, rows in (tokens or {}).items():
        if rows.ndim != 2 or rows.shape[1] != width:
            raise HFIError(
                f"has width {rows.shape[-1]}, the model's text encoder has {width}",
                field=f"soft token {name}",
                remedy="use tokens that were inverted on this model",
            )
        first[name] = range(vocabulary, vocabulary + len(rows))
        vocabulary += len(rows)
    length = tokenizer.model_max_length if tokenizer.model_max_length < 10_000 else model.text_encoder.config.max_position_embeddings
    batch = []
    for prompt in prompts:
        ids: list[int] = []
        for piece in PLACEHOLDER.split(prompt):
            if piece in first:
                ids.extend(first[piece])
            elif piece.strip():
                ids.extend(tokenizer(piece, add_special_tokens=False)["input_ids"])
        ids = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
        batch.append(ids + [tokenizer.pad_token_id] * (length - len(ids)))
    return torch.tensor(batch)


@contextlib.contextmanager
def _rows_laid_over(model: Model, rows: Tensor | None) -> Iterator[None]:
    """While open, ids at or above V look up `rows` (n, D) instead of the embedding table; gradients reach the rows."""
    if rows is None:
        yield
        return
    table = model.text_encoder.get_input_embeddings()
    limit, seen = table.weight.shape[0], {}

    def before(_, args):
        seen["ids"] = args[0]
        return (args[0].clamp(max=limit - 1), *args[1:])

    def after(_, __, output):
        soft = seen["ids"] >= limit
        return torch.where(soft.unsqueeze(-1), rows[(seen["ids"] - limit).clamp(min=0)].to(output.dtype), output)

    hooks = [table.register_forward_pre_hook(before), table.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def encode_ids(model: Model, ids: Tensor, tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Conditions c (B, L, D) in float32 for ids from `token_ids`; differentiable in the soft tokens."""
    rows = torch.cat([value.to(model.device) for value in tokens.values()]) if tokens else None
    with _rows_laid_over(model, rows):
        return model.text_encoder(ids.to(model.device))[0].float()


def encode_prompts(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Conditions c (B, L, D) of prompts, without gradient; each text is encoded once per model."""
    with torch.no_grad():
        plain = [prompt for prompt in dict.fromkeys(prompts) if prompt not in model.text_cache and not _uses(prompt, tokens)]
        for start in range(0, len(plain), 64):
            part = plain[start : start + 64]
            for prompt, c in zip(part, encode_ids(model, token_ids(model, part)), strict=True):
                if len(model.text_cache) < MAX_CACHE:
                    model.text_cache[prompt] = c
        soft = list(dict.fromkeys(prompt for prompt in prompts if prompt not in model.text_cache))
        fresh = {}
        for start in range(0, len(soft), 64):
            part = soft[start : start + 64]
            fresh.update(zip(part, encode_ids(model, token_ids(model, part, tokens), tokens), strict=True))
        return torch.stack([model.text_cache[prompt] if prompt in model.text_cache else fresh[prompt] for prompt in prompts])


def text_embeddings(model: Model, prompts: Sequence[str]) -> Tensor:
    """One vector (B, D) for each prompt: the text encoder's state at the end of the text, float32, not normalised."""
    ends = (token_ids(model, prompts) == model.tokenizer.eos_token_id).int().argmax(1)
    c = encode_prompts(model, prompts)
    return c[torch.arange(len(prompts)), ends.to(c.device)]


def last_states(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """The text encoder's state (B, D) at the last word of each prompt, or row of its last soft token; of the empty prompt at its start."""
    ends = (token_ids(model, prompts, tokens) == model.tokenizer.eos_token_id).int().argmax(1)
    c = encode_prompts(model, prompts, tokens)
    return c[torch.arange(len(prompts)), ends.to(c.device) - 1]


def listed(model: Model, names: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> list[str]:
    """The names as lists "a, b, c", in as few prompts as the text encoder's length allows."""
    prompts: list[str] = []
    for name in names:
        longer = f"{prompts[-1]}, {name}" if prompts else name
        whole = bool(token_ids(model, [longer], tokens)[0, -2] == model.tokenizer.pad_token_id)  # padding: nothing was cut off
        if prompts and whole:
            prompts[-1] = longer
        else:
            prompts.append(name)
    return prompts


def _uses(prompt: str, tokens: Mapping[str, Tensor] | None) -> bool:
    return any(piece in (tokens or {}) for piece in PLACEHOLDER.findall(prompt))
