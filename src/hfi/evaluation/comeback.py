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
    """The flagged pictures of highest reward outside the top-K, at most as many as the top-K has; none where it took them all."""
    selected, flagged = {picture.image_id for picture in reward.selected}, set(reward.flagged)
    rest = [image for image in images.images if image.id in flagged and image.id not in selected]
    return sorted(rest, key=lambda image: (-reward.scores[image.id], image.id))[: len(selected)]


def learn_tokens(
    model: Model, images: Generated, pictures: list[FeedbackImage], study: Workspace, run: StageRun, progress
) -> dict[str, Tensor]:
    """`evaluate.reinversions` tokens, learned with the settings of `invert` against the weights the model has now."""
    config, invert = study.config.evaluate, study.config.invert
    if not pictures or not config.reinversions:
        return {}
    latents = images.latents()[[image.index for image in pictures]]
    task = progress.add_task("Trying to bring it back", total=config.reinversions * config.reinversion_steps, note="")
    names = [f"<again-{index + 1}>" for index in range(config.reinversions)]
    files = [run.path("reinversion", f"again-{index + 1}.safetensors") for index in range(config.reinversions)]
    for first in range(0, config.reinversions, invert.together):
        indices = range(first, min(first + invert.together, config.reinversions))
        if all(files[index].exists() for index in indices):
            continue
        checkpoint = run.path("reinversion", f"{first + 1}.checkpoint.safetensors")
        before, each = first * config.reinversion_steps, len(indices)
        rows = reinvert(
            model,
            latents,
            indices,
            run,
            checkpoint,
            invert,
            config.reinversion_steps,
            study.config.seed,
            study.config.concept.kind,
            lambda done, _: progress.update(task, completed=before + done * each),  # noqa: B023 - called at once
        )
        for index, value in zip(indices, rows, strict=True):
            write_tensors(files[index], {names[index]: value}, {"format": "pt", "learned_against": "the erased model"})
        run.checkpoint()
        checkpoint.unlink(missing_ok=True)
    return {name: read_tensors(file)[name] for name, file in zip(names, files, strict=True)}
