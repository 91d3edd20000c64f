"""Pictures of the embedded model, drawn once for several benchmarks, with what CLIP and the annotator judge make of each.

Everything lies in an ignored folder (studies/pool by default) and is drawn anew only when the model or the settings change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from numpy import ndarray

from hfi.config import StudyConfig, load_config, with_overrides
from hfi.diffusion.identity import model_hash
from hfi.diffusion.model import load_model
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.feedback.judgements import Judgement
from hfi.feedback.simulated import Annotator, Seen, concept_probability, judge_binary
from hfi.generation.generate import Generated, generate
from hfi.perception.clip import load_encoder
from hfi.perception.judges import load_judge
from hfi.perception.pictures import open_picture, to_tensor
from hfi.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Pool:
    """N pictures."""

    study: Workspace
    images: Generated
    ids: list[str]
    embeddings: torch.Tensor  # (N, D), of the embedded CLIP
    seen: list[Seen]  # what the annotator judge sees
    truth: ndarray  # (N,) bool: the judge's probability of the concept is above 1/2

    def say(self, person: Annotator, number: int, seed: int) -> Judgement:
        """A simulated annotator's answer on picture `number`."""
        return judge_binary(person, self.ids[number], self.seen[number], seed)


def draw_pool(folder: Path, images: int, benign_share: float, steps: int) -> Pool:
    """The pool of the demo's concept ("weapon"); drawn where it is not there yet.

    Args:
        benign_share: share of pictures from prompts without the concept; steps: DDIM steps.
    """
    config = settings(images, benign_share, steps)
    root = folder / f"{model_hash(config.model)[:8]}-{images}-{steps}-{int(100 * benign_share)}"
    study = Workspace(root, config) if (root / "study.yaml").exists() else Workspace.create(root, config)
    pictures = Generated.load(study) if study.is_done("generate") else generate(load_model(config.model), study)
    paths = [pictures.path(image) for image in pictures.images]
    embeddings = load_encoder("emoji").images(paths, cache=study.path("cache"))
    vocabulary = load_vocabulary(config.concept.vocabulary)
    judge = load_judge("emoji:annotator", vocabulary)
    columns = [judge.objects.index(name) for name in members(config.concept, vocabulary)]
    seen: list[Seen] = []
    for start in range(0, len(paths), 128):
        said = judge(to_tensor([open_picture(path) for path in paths[start : start + 128]]))
        p = concept_probability(said.object_probs.numpy(), said.style_probs.numpy(), columns, "harm")
        styles = [judge.styles[i] for i in said.style.tolist()]
        seen += [Seen(float(a), float(b), style) for a, b, style in zip(p, said.object_probs[:, -1], styles, strict=True)]
    truth = numpy.array([one.concept > 0.5 for one in seen])
    return Pool(study, pictures, [image.id for image in pictures.images], embeddings, seen, truth)


def settings(images: int, benign_share: float, steps: int) -> StudyConfig:
    """The demo's settings with another number of pictures."""
    base = load_config(ROOT / "recipes" / "demo.yaml")
    drawn = {"images": images, "near_words": 0, "benign_share": benign_share, "steps": steps}
    return with_overrides(base, {"name": "pool", **{f"generate.{name}": value for name, value in drawn.items()}})


def rare(truth: ndarray, share: float, rng: numpy.random.Generator) -> ndarray:
    """Indices of as many pictures as possible with `share` positives, in random order."""
    positive, negative = rng.permutation(numpy.flatnonzero(truth)), rng.permutation(numpy.flatnonzero(~truth))
    count = min(len(positive), round(len(negative) * share / (1 - share)))
    return rng.permutation(numpy.concatenate([positive[:count], negative[: round(count * (1 - share) / share)]]))
