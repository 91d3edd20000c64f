"""Which pictures of the top-K are alike, by the reward's own encoder."""

from __future__ import annotations

from torch import Tensor

from hfi.generation.generate import Generated
from hfi.perception.clip import load_encoder
from hfi.reward.reward import RewardResult
from hfi.workspace import Workspace


def nearest_selected(images: Generated, reward: RewardResult, study: Workspace) -> list[list[int]]:
    """Of each picture of a study's top-K (K) the numbers of all K, itself first, then the nearest."""
    by_id, encoder = {image.id: image for image in images.images}, load_encoder(study.config.reward.encoder, study.config.device)
    chosen = [images.path(by_id[picture.image_id]) for picture in reward.selected]
    return nearest_first(encoder.images(chosen, cache=study.path("cache")))


def nearest_first(embeddings: Tensor) -> list[list[int]]:
    """Of each of the embeddings (K, D; L2-normalised) the numbers of all, itself first, then its nearest by cosine."""
    alike = embeddings @ embeddings.T
    alike.fill_diagonal_(float("inf"))  # of two copies each comes first for itself
    return alike.argsort(dim=1, descending=True, stable=True).tolist()
