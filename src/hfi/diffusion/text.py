"""Text conditions c: prompts through the text encoder, with soft tokens v* standing in for words.

A soft token is written `<name>` in a prompt and stands for n embedding rows. The vocabulary is not touched: the rows are
laid over the encoder's embedding output, so the same code serves frozen and learning rows. In a family with several text
encoders a row holds the columns of each, side by side in the order of `model.encoders`; `split_rows` takes them apart.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hfi.diffusion.families import FAMILIES
from hfi.diffusion.memory import awake
from hfi.diffusion.model import Model, TextEncoder
from hfi.diffusion.networks import pooled_row, with_pooled
from hfi.errors import HFIError

PLACEHOLDER = re.compile(r"(<[^<>\s]+>)")
MAX_CACHE = 2**30  # bytes of conditions that a model remembers, on its device


def embedding_table(model: Model) -> Tensor:
    """The text encoders' embedding tables side by side (V, D); for encoders of one vocabulary."""
    return model.encoders[0].table if len(model.encoders) == 1 else torch.cat([encoder.table for encoder in model.encoders], 1)


def token_width(model: Model) -> int:
    """D of a soft token's rows: the widths of all text encoders together."""
    return sum(encoder.table.shape[1] for encoder in model.encoders)


def split_rows(model: Model, rows: Tensor) -> dict[str, Tensor]:
    """A soft token's rows (n, D) as {text encoder: (n, D_i)}."""
    parts = rows.split([encoder.table.shape[1] for encoder in model.encoders], -1)
    return {encoder.name: part for encoder, part in zip(model.encoders, parts, strict=True)}


def table_statistics(model: Model) -> tuple[Tensor, Tensor]:
    """Mean and spread (D,) of every column over the vocabularies, float32, on the CPU."""
    tables = [encoder.table.detach().float().cpu() for encoder in model.encoders]
    return torch.cat([table.mean(0) for table in tables]), torch.cat([table.std(0) for table in tables])


def word_rows(model: Model, word: str, count: int) -> Tensor | None:
    """Rows (count, D) that a word has in the embedding tables, repeated in turn; None where a vocabulary lacks it."""
    found = []
    for encoder in model.encoders:
        ids = encoder.tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids:
            return None
        found.append(encoder.table.detach().float().cpu()[[ids[i % len(ids)] for i in range(count)]])
    return torch.cat(found, 1)


def token_ids(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Token ids (B, L), those of several text encoders side by side; the rows of soft tokens are numbered from V upward,
    in the order of `tokens`.

    Raises HFIError for a soft token of another width than the text encoders'.
    """
    width = token_width(model)
    for name, rows in (tokens or {}).items():
        if rows.ndim != 2 or rows.shape[1] != width:
            raise HFIError(
                f"has width {rows.shape[-1]}, the model's text encoder has {width}",
                field=f"soft token {name}",
                remedy="use tokens that were inverted on this model",
            )
    return torch.cat([_ids_of(encoder, prompts, tokens or {}) for encoder in model.encoders], 1)


def _ids_of(encoder: TextEncoder, prompts: Sequence[str], tokens: Mapping[str, Tensor]) -> Tensor:
    """Token ids (B, L) of one text encoder, as its tokenizer would give them for a prompt without soft tokens."""
    tokenizer, first, vocabulary = encoder.tokenizer, {}, encoder.table.shape[0]
    for name, rows in tokens.items():
        first[name] = range(vocabulary, vocabulary + len(rows))
        vocabulary += len(rows)
    begin = [tokenizer.bos_token_id] if encoder.name != "t5" else []
    batch = []
    for prompt in prompts:
        ids: list[int] = []
        for piece in PLACEHOLDER.split(prompt):
            if piece in first:
                ids.extend(first[piece])
            elif piece.strip():
                ids.extend(tokenizer(piece, add_special_tokens=False)["input_ids"])
        ids = [*begin, *ids[: encoder.length - 1 - len(begin)], tokenizer.eos_token_id]
        batch.append(ids + [tokenizer.pad_token_id] * (encoder.length - len(ids)))
    return torch.tensor(batch)


@contextlib.contextmanager
def _rows_laid_over(encoder: TextEncoder, ids: Tensor, rows: Tensor | None) -> Iterator[Tensor]:
    """While open, ids (B, L) at or above V look up `rows` (n, D) instead of the embedding table; gradients reach the rows.

    Yields the ids to call the encoder with: none of them above V, for CLIP's end of text may be its highest id.
    """
    if rows is None:
        yield ids
        return
    limit = encoder.table.shape[0]
    soft, places = ids >= limit, (ids - limit).clamp(min=0)

    def after(_, __, output):
        return torch.where(soft.unsqueeze(-1), rows[places].to(output.dtype), output)

    hook = encoder.embedding.register_forward_hook(after)
    try:
        yield ids.masked_fill(soft, 0)
    finally:
        hook.remove()


def encode_ids(model: Model, ids: Tensor, tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Conditions c (B, L, D) in float32 for ids from `token_ids`; differentiable in the soft tokens."""
    rows = split_rows(model, torch.cat([value.to(model.device) for value in tokens.values()])) if tokens else {}
    parts = ids.to(model.device).split([encoder.length for encoder in model.encoders], 1)
    found = {}
    for encoder, part in zip(model.encoders, parts, strict=True):
        with awake(model, encoder.network), _rows_laid_over(encoder, part, rows.get(encoder.name)) as known:
            found[encoder.name] = encoder.network(known, output_hidden_states=model.family in {"sdxl", "sd3"} and encoder.name != "t5")
    return _assemble(model, found)


def _assemble(model: Model, found: Mapping[str, Any]) -> Tensor:
    """What the text encoders gave as one tensor c (B, L, D), float32, as the family's own pipeline puts it together."""
    if model.family == "sd":
        return found["clip"][0].float()
    if model.family == "flux":
        return with_pooled(found["t5"][0].float(), found["clip_l"].pooler_output.float())
    # the last layer but one of both CLIPs, side by side
    words = torch.cat([found[name].hidden_states[-2] for name in ("clip_l", "clip_g")], -1).float()
    if model.family == "sdxl":
        return with_pooled(words, found["clip_g"].text_embeds.float())
    width = model.network.config.joint_attention_dim
    words = torch.nn.functional.pad(words, (0, width - words.shape[-1]))
    # without T5 its rows are zeros; SD3 was trained so
    more = found["t5"][0].float() if "t5" in found else words.new_zeros(len(words), FAMILIES["sd3"].encoders[2].length, width)
    return with_pooled(torch.cat([words, more], 1), torch.cat([found[name].text_embeds for name in ("clip_l", "clip_g")], -1).float())


def encode_prompts(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """Conditions c (B, L, D) of prompts, without gradient; the last texts without soft tokens are remembered."""
    with torch.no_grad():
        wanted = list(dict.fromkeys(prompts))
        soft = dict.fromkeys(prompt for prompt in wanted if _uses(prompt, tokens))
        found = {prompt: model.text_cache[prompt] for prompt in wanted if prompt in model.text_cache and prompt not in soft}
        plain = [prompt for prompt in wanted if prompt not in found and prompt not in soft]
        for told, given in ((plain, None), (list(soft), tokens)):
            for start in range(0, len(told), 64):
                part = told[start : start + 64]
                for prompt, c in zip(part, encode_ids(model, token_ids(model, part, given), given), strict=True):
                    found[prompt] = torch.zeros_like(c) if model.empty_is_zero and not prompt else c
                    if given is None:
                        _remember(model, prompt, found[prompt])
        return torch.stack([found[prompt] for prompt in prompts])


def _remember(model: Model, prompt: str, c: Tensor) -> None:
    """Keep a condition for the next call; the oldest make room."""
    while model.text_cache and (len(model.text_cache) + 1) * c.nbytes > MAX_CACHE:
        model.text_cache.pop(next(iter(model.text_cache)))
    model.text_cache[prompt] = c.clone()  # not a view of its whole batch


def whole_words(tokenizer, shortest: int = 3) -> list[str]:
    """The whole words of a CLIP tokenizer's vocabulary with at least `shortest` letters, sorted."""
    whole = {piece.removesuffix("</w>") for piece in tokenizer.get_vocab() if piece.endswith("</w>")}
    return sorted(word for word in whole if word.isalpha() and len(word) >= shortest)


def text_embeddings(model: Model, prompts: Sequence[str]) -> Tensor:
    """One vector (B, D) for each prompt, float32, not normalised: the pooled one, else the text encoder's state at the end of the text."""
    if model.pooled:
        return pooled_row(model, encode_prompts(model, prompts))
    ends = (token_ids(model, prompts) == model.tokenizer.eos_token_id).int().argmax(1)
    c = encode_prompts(model, prompts)
    return c[torch.arange(len(prompts)), ends.to(c.device)]


def last_states(model: Model, prompts: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> Tensor:
    """The text encoder's state (B, D) at the last word of each prompt, or row of its last soft token; of the empty prompt at its start."""
    first = model.encoders[0]  # of several text encoders the one whose states come first
    ends = (_ids_of(first, prompts, tokens or {}) == first.tokenizer.eos_token_id).int().argmax(1)
    c = encode_prompts(model, prompts, tokens)
    last = ends.to(c.device).clamp(max=c.shape[1]) - 1  # FLUX's states are T5's, which may be shorter; there nothing reads a last word
    return c[torch.arange(len(prompts)), last]


def listed(model: Model, names: Sequence[str], tokens: Mapping[str, Tensor] | None = None) -> list[str]:
    """The names as lists "a, b, c", in as few prompts as the (first) text encoder's length allows."""
    prompts, first = [], model.encoders[0]
    for name in names:
        longer = f"{prompts[-1]}, {name}" if prompts else name
        whole = bool(_ids_of(first, [longer], tokens or {})[0, -2] == first.tokenizer.pad_token_id)  # padding: nothing was cut off
        if prompts and whole:
            prompts[-1] = longer
        else:
            prompts.append(name)
    return prompts


def _uses(prompt: str, tokens: Mapping[str, Tensor] | None) -> bool:
    return any(piece in (tokens or {}) for piece in PLACEHOLDER.findall(prompt))
