"""Which pictures are alike, by the reward's own encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hfi.generation.generate import FeedbackImage, Generated
from hfi.perception.clip import load_encoder
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace


def selected_kinds(images: Generated, reward: RewardResult, study: Workspace, size: int) -> list[list[int]]:
    """The numbers of a study's top-K in kinds of at most `size` that are alike (`kinds_of`)."""
    by_id, encoder = {image.id: image for image in images.images}, load_encoder(study.config.reward.encoder, study.config.device)
    chosen = [images.path(by_id[picture.image_id]) for picture in reward.selected]
    return kinds_of(encoder.images(chosen, cache=study.path("cache")), size)


def nearest_first(embeddings: Tensor) -> list[list[int]]:
    """Of each of the embeddings (K, D; L2-normalised) the numbers of all, itself first, then its nearest by cosine."""
    alike = embeddings @ embeddings.T
    alike.fill_diagonal_(float("inf"))  # of two copies each comes first for itself
    return alike.argsort(dim=1, descending=True, stable=True).tolist()


def groups_of(pictures: Sequence[FeedbackImage], images: Generated, study: Workspace, size: int) -> list[list[int]]:
    """Numbers of a study's pictures in groups of `size` that are alike (`closest_groups`)."""
    encoder = load_encoder(study.config.reward.encoder, study.config.device)
    return closest_groups(encoder.images([images.path(one) for one in pictures], cache=study.path("cache")), size)


def kinds_of(embeddings: Tensor, size: int) -> list[list[int]]:
    """All numbers of the embeddings (K, D; L2-normalised) once, in groups: the closest `size` of what is left, time and again.

    Unlike `closest_groups` it leaves nothing out; what is like little else ends up in the last ones.
    """
    left, found = list(range(len(embeddings))), []
    while left:
        own = embeddings[left]
        near = torch.tensor(nearest_first(own))[:, :size]
        closeness = (own @ own.T).gather(1, near).mean(1).tolist()
        middle = max(range(len(left)), key=lambda i: (closeness[i], -i))
        found.append([left[i] for i in near[middle]])
        left = [one for one in left if one not in {*found[-1]}]
    return found


def closest_groups(embeddings: Tensor, size: int) -> list[list[int]]:
    """Groups of `size` (or all) of the embeddings (K, D; L2-normalised): one and its nearest, those that are closest together first.

    Of groups that share a third or more only the closest stays; some of the embeddings are in none.
    """
    near = [row[:size] for row in nearest_first(embeddings)]
    closeness = [float((embeddings[row] @ embeddings[row[0]]).mean()) for row in near]
    found: list[list[int]] = []
    for own in sorted(range(len(near)), key=lambda i: (-closeness[i], i)):
        if all(3 * len({*near[own]} & {*other}) < len(near[own]) for other in found):
            found.append(near[own])
    return found
