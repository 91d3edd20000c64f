"""Learn r_psi from judgements: a split by picture, AdamW, both losses at once; the same seed gives the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hfi.errors import Diverged
from hfi.progress import bar
from hfi.reward.losses import bradley_terry, mse
from hfi.reward.model import RewardModel
from hfi.seeds import derive, generator

FULL_BATCH = 4096  # up to so many pictures (or pairs) every step sees all of them
LOG_EVERY = 10


@dataclass(frozen=True)
class Examples:
    """Judgements as tensors; rows are indices into the embeddings."""

    rows: Tensor  # (n,) long: judged pictures
    y: Tensor  # (n,) soft labels, in [0, 1]
    weight: Tensor  # (n,) what each picture counts, from 0 up
    pairs: Tensor  # (p, 2) long: (put first, put after)
    groups: Tensor  # (p,) long: the ranking that a pair comes from
    pair_weight: Tensor  # (p,) what each pair counts, from 0 up

    def __len__(self) -> int:
        return len(self.rows) + len(self.pairs)


def held_out_pictures(labels: Mapping[str, float], ranked: Iterable[str], share: float, seed: int) -> set[str]:
    """The pictures kept from training: `share` of those judged present, of those judged absent and of the rest.

    A picture is in or out with all its judgements, so no picture is learned from and tested on.
    """
    strata: dict[bool | None, list[str]] = {}
    for name in sorted({*labels, *ranked}):
        strata.setdefault(labels[name] > 0.5 if name in labels else None, []).append(name)
    chosen: set[str] = set()
    for names in strata.values():
        ordered = sorted(names, key=lambda name: derive(seed, "held out", name))
        chosen.update(ordered[: round(share * len(ordered))])
    return chosen


def gather(
    index: Mapping[str, int], labels: Mapping[str, tuple[float, float]], orders: Sequence[tuple[tuple[str, ...], float]], keep: set[str]
) -> Examples:
    """The judgements that speak of pictures in `keep` only; a pair with one picture outside belongs to no part.

    Args:
        index: row of each picture in the embeddings.
        labels: {picture: (soft label, weight)}; orders: (pictures, the concept strongest first; weight). Weight 0 teaches nothing
            and is left out.
    """
    names = [name for name in sorted(labels) if name in keep and labels[name][1] > 0]
    pairs, groups, counts = [], [], []
    for number, (order, weight) in enumerate(orders):
        found = list(itertools.combinations([index[name] for name in order if name in keep], 2)) if weight > 0 else []
        pairs += found
        groups += [number] * len(found)
        counts += [weight] * len(found)
    return Examples(
        torch.tensor([index[name] for name in names], dtype=torch.long),
        torch.tensor([labels[name][0] for name in names], dtype=torch.float32),
        torch.tensor([labels[name][1] for name in names], dtype=torch.float32),
        torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        torch.tensor(groups, dtype=torch.long),
        torch.tensor(counts, dtype=torch.float32),
    )


def loss(model: RewardModel, embeddings: Tensor, examples: Examples, ranking_size: int) -> Tensor:
    """L_MSE + L_NLL over the examples there are; embeddings (N, D) of all pictures."""
    total = embeddings.new_zeros(())
    if len(examples.rows):
        total = total + mse(model(embeddings[examples.rows]), examples.y, examples.weight)
    if len(examples.pairs):
        involved, place = examples.pairs.unique(return_inverse=True)  # each picture once through the MLP
        r = model(embeddings[involved])
        # index_select, for the gradient of plain indexing adds up in whatever order the threads come
        r_plus, r_minus = r.index_select(0, place[:, 0]), r.index_select(0, place[:, 1])
        total = total + bradley_terry(r_plus, r_minus, ranking_size, examples.pair_weight)
    return total


def fit(
    embeddings: Tensor,
    train: Examples,
    held_out: Examples,
    *,
    hidden: Sequence[int],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    ranking_size: int,
    seed: int,
) -> tuple[RewardModel, dict[str, list]]:
    """Fit r_psi on the CPU in float32.

    Args:
        embeddings: (N, D) of all pictures, L2-normalised.
        train, held_out: examples by picture; the second is only looked at.

    Returns the model and {"train": [[step, loss], ...], "held_out": ...}. Raises Diverged on NaN.
    """
    model = RewardModel(embeddings.shape[1], hidden, seed)
    model.fit_scale(embeddings[torch.cat([train.rows, train.pairs.flatten()]).unique()])
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    curves: dict[str, list] = {"train": [], "held_out": []}
    with bar() as progress:
        task = progress.add_task("Learning the reward", total=steps, note="")
        for step in range(steps):
            value = loss(model, embeddings, _batch(train, seed, step), ranking_size)
            if not torch.isfinite(value):
                raise Diverged("the reward's loss became NaN or infinite", field="reward.learning_rate", remedy="choose a smaller one")
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            if step % LOG_EVERY == 0 or step == steps - 1:
                curves["train"].append([step, round(value.item(), 6)])
                if len(held_out):
                    with torch.no_grad():
                        curves["held_out"].append([step, round(loss(model, embeddings, held_out, ranking_size).item(), 6)])
                progress.update(task, completed=step + 1, note=f"loss {value.item():.4f}")
    return model.eval(), curves


def _batch(examples: Examples, seed: int, step: int) -> Examples:
    """All examples, or a random FULL_BATCH of each sort where there are more."""
    rows, pairs = len(examples.rows), len(examples.pairs)
    if max(rows, pairs) <= FULL_BATCH:
        return examples
    random = generator(seed, "reward", "batch", step)
    some = torch.randint(rows, (min(rows, FULL_BATCH),), generator=random) if rows > FULL_BATCH else torch.arange(rows)
    others = torch.randint(pairs, (min(pairs, FULL_BATCH),), generator=random) if pairs > FULL_BATCH else torch.arange(pairs)
    return Examples(
        examples.rows[some],
        examples.y[some],
        examples.weight[some],
        examples.pairs[others],
        examples.groups[others],
        examples.pair_weight[others],
    )
