"""Does the concept come back? Fresh tokens learned against the erased model from pictures that inversion never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from hfi.attacks.reinversion import reinvert
from hfi.diffusion.model import Model
from hfi.generation.generate import FeedbackImage, Generated
from hfi.workspace import StageRun, Workspace, read_tensors, write_tensors

if TYPE_CHECKING:
    from hfi.reward.reward import RewardResult


def attack_pictures(images: Generated, reward: RewardResult) -> list[FeedbackImage]:
    """The feedback pictures of highest reward outside the top-K, as many as the top-K has."""
    selected = {picture.image_id for picture in reward.selected}
    rest = [image for image in images.images if image.id not in selected and image.id in reward.scores]
    return sorted(rest, key=lambda image: (-reward.scores[image.id], image.id))[: len(selected)]


def learn_tokens(
    model: Model, images: Generated, pictures: list[FeedbackImage], study: Workspace, run: StageRun, progress
) -> dict[str, Tensor]:
    """`evaluate.reinversions` tokens, learned with the settings of `invert` against the weights the model has now.

    Each finished token is a file, so an interruption costs at most the one being learned.
    """
    config, invert = study.config.evaluate, study.config.invert
    if not pictures or not config.reinversions:
        return {}
    latents = images.latents()[[image.index for image in pictures]]
    task = progress.add_task("Trying to bring it back", total=config.reinversions * config.reinversion_steps, note="")
    tokens = {}
    for index in range(config.reinversions):
        name = f"<again-{index + 1}>"
        file = run.path("reinversion", f"again-{index + 1}.safetensors")
        if not file.exists():
            rows = reinvert(
                model,
                latents,
                invert.vectors,
                config.reinversion_steps,
                study.config.seed,
                index,
                invert.learning_rate,
                invert.batch_size,
                invert.initial_word,
                kind=study.config.concept.kind,
                on_step=lambda: progress.advance(task),
            )
            write_tensors(file, {name: rows}, {"format": "pt", "learned_against": "the erased model"})
            run.checkpoint()
        tokens[name] = read_tensors(file)[name]
        progress.update(task, completed=(index + 1) * config.reinversion_steps)
    return tokens
