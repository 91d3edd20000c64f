"""Stage 1: prompts of the concept -> pictures, their latents and where each came from (METHOD section 1)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.prompts import feedback_prompts, load_vocabulary
from hfi.diffusion.sampling import decode, sample_latents, to_pil
from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError
from hfi.progress import bar
from hfi.seeds import derive
from hfi.workspace import Workspace, digest, read_tensors, write_bytes, write_tensors


@dataclass(frozen=True)
class FeedbackImage:
    """One picture for people to judge. `id` names the picture whatever study or run it is drawn in."""

    id: str
    file: str  # relative to the stage's folder
    prompt: str
    seed: int
    index: int
    purpose: str  # concept or benign: what the prompt asked for, not what people saw
    object: str | None = None
    style: str | None = None
    model: str = ""
    without: str = ""  # the prompt with the concept's words dropped, as far as something remains


@dataclass(frozen=True)
class Generated:
    """What stage 1 leaves: pictures in a folder, their latents (N, C, h, w) in the same order."""

    folder: Path
    images: tuple[FeedbackImage, ...]

    def path(self, image: FeedbackImage) -> Path:
        return self.folder / image.file

    def latents(self) -> Tensor:
        """z_0 of all pictures (N, C, h, w), float32."""
        return read_tensors(self.folder / "latents.safetensors")["latents"]

    @classmethod
    def load(cls, study: Workspace) -> Generated:
        """Read a finished stage; raises HFIError when it is damaged."""
        folder = study.path("generate")
        return cls(folder, tuple(_read_records(folder / "images.jsonl")))


def plan(model_hash: str, study: Workspace) -> list[FeedbackImage]:
    """Every picture that stage 1 will draw: prompt, seed and name, before any is drawn."""
    config, concept = study.config.generate, study.config.concept
    prompts = feedback_prompts(concept, load_vocabulary(concept.vocabulary), config.images, config.benign_share, study.config.seed)
    images = []
    for index, prompt in enumerate(prompts):
        seed = derive(study.config.seed, "generate", index)
        name = digest([model_hash, prompt.text, seed, config.steps, config.guidance_scale])[:16]
        images.append(
            FeedbackImage(
                name,
                f"images/{name}.png",
                prompt.text,
                seed,
                index,
                prompt.purpose,
                prompt.object,
                prompt.style,
                model_hash[:16],
                prompt.without,
            )
        )
    return images


def generate(model: Model, study: Workspace) -> Generated:
    """Draw the feedback pictures; resumes at the first batch that is not whole.

    Args:
        model: the original model.
        study: settings in `study.config.generate`.
    """
    if study.is_done("generate"):
        return Generated.load(study)
    config = study.config.generate
    images = plan(model.hash, study)
    with study.stage("generate") as run, bar() as progress:
        task = progress.add_task("Drawing pictures to judge", total=len(images), note="")
        c_0 = encode_prompts(model, [""])
        for start in range(0, len(images), config.batch_size):
            batch = images[start : start + config.batch_size]
            part = run.path("parts", f"{start:06d}.safetensors")
            if not part.exists():
                c = encode_prompts(model, [image.prompt for image in batch])
                z_0 = sample_latents(model, c, c_0, [image.seed for image in batch], config.steps, config.guidance_scale)
                for image, picture in zip(batch, to_pil(decode(model, z_0)), strict=True):
                    save_picture(picture, run.path(image.file))
                write_tensors(part, {"latents": z_0})  # last: a batch with its latents is whole
                run.checkpoint()
            progress.update(task, completed=min(start + config.batch_size, len(images)))
        parts = sorted(run.path("parts").glob("*.safetensors"))
        write_tensors(run.path("latents.safetensors"), {"latents": torch.cat([read_tensors(part)["latents"] for part in parts])})
        write_bytes(run.path("images.jsonl"), "".join(json.dumps(asdict(image)) + "\n" for image in images).encode())
        for part in parts:
            part.unlink()
        run.path("parts").rmdir()
        run.facts.update(
            images=len(images), concept_prompts=sum(image.purpose == "concept" for image in images), model=model.name, model_hash=model.hash
        )
    return Generated.load(study)


def save_picture(picture, path: Path) -> None:
    """Write a PNG atomically."""
    import io

    stream = io.BytesIO()
    picture.save(stream, "PNG")
    write_bytes(path, stream.getvalue())


def picture_hash(path: Path) -> str:
    """SHA-256 (hex) of a picture file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_records(path: Path) -> list[FeedbackImage]:
    try:
        return [FeedbackImage(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise HFIError("missing", file=path, remedy="run 'hfi generate' on the study") from None
    except (ValueError, TypeError):
        raise HFIError("half-written or damaged", file=path, remedy="delete the folder and run 'hfi generate' again") from None
