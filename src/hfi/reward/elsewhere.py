"""What the people of another study would flag of this study's pictures, by the reward that learned from them (ours).

Where several concepts are erased in one run, a picture that is benign in one study may show what another study is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hfi.generation.generate import FeedbackImage, Generated
from hfi.perception.clip import load_encoder
from hfi.reward.model import RewardModel
from hfi.reward.reward import RewardResult, scores_of
from hfi.workspace import Workspace

LEAST = 0.1  # of the flagged pictures, the share whose rewards may lie below what counts as flagged


def flagged_elsewhere(images: Generated, shown: Sequence[FeedbackImage], cache: Path, others: Sequence[Workspace]) -> set[str]:
    """Ids of the pictures that another study's reward holds for its concept.

    Args:
        shown: the pictures asked about, of `images`.
        cache: the folder of the study's embeddings.
        others: studies with a finished reward. What counts is a reward at least that of all but a tenth of their own flagged pictures.
    """
    found: set[str] = set()
    embeddings: dict[str, Tensor] = {}
    for other in others if shown else ():
        result, source = RewardResult.load(other), other.config.reward.encoder
        if not result.flagged:
            continue
        if source not in embeddings:
            encoder = load_encoder(source, other.config.device)
            embeddings[source] = encoder.images([images.path(image) for image in shown], cache=cache)
        own = sorted(result.scores[name] for name in result.flagged)
        rewards = scores_of(RewardModel.load(result.folder), embeddings[source])
        bar = own[int(LEAST * len(own))]
        found |= {image.id for image, r in zip(shown, rewards.tolist(), strict=True) if r >= bar}
    return found
