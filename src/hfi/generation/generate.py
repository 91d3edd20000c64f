"""Stage 1: prompts of the concept -> pictures, their latents and where each came from (METHOD section 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from hfi.diffusion.model import Model
from hfi.diffusion.prompts import Prompt, feedback_prompts, load_vocabulary
from hfi.diffusion.sampling import decode, encode_images, sample_latents, to_pil
from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError
from hfi.generation.brought import FOLDER as BROUGHT
from hfi.generation.brought import brought
from hfi.generation.near import near_misses, near_words
from hfi.progress import bar
from hfi.seeds import derive
from hfi.workspace import StageRun, Workspace, digest, read_json, read_tensors, write_bytes, write_json, write_tensors


@dataclass(frozen=True)
class FeedbackImage:
    """One picture for people to judge. `id` names the picture whatever study or run it is drawn in."""

    id: str
    file: str  # relative to the stage's folder
    prompt: str
    seed: int
    index: int
    purpose: str  # concept, benign or word (near_words): what the prompt asked for, not what people saw; brought: nobody asked for it
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


def plan(model: Model, study: Workspace, words: Sequence[str] = ()) -> list[FeedbackImage]:
    """Every picture that stage 1 will draw: prompt, seed and name, before any is drawn; those of `words` (`near_words`) come last."""
    config, concept = study.config.generate, study.config.concept
    vocabulary = load_vocabulary(concept.vocabulary)
    near = near_misses(model, concept, vocabulary, config.near_benign)
    prompts = feedback_prompts(concept, vocabulary, config.images, config.benign_share, study.config.seed, near)
    prompts += [Prompt(word, word, purpose="word") for word in words]
    images = []
    for index, prompt in enumerate(prompts):
        seed = derive(study.config.seed, "generate", index)
        name = digest([model.content, prompt.text, seed, *config.drawn_with])[:16]
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
                model.content[:16],
                prompt.without,
            )
        )
    return images


def generate(model: Model, study: Workspace) -> Generated:
    """Draw the feedback pictures; resumes at the first batch that is not whole.

    Where people brought pictures (STUDY/pictures), those are taken instead: cut to the model's size, their latents from its
    autoencoder. Then only the benign share is drawn beside them.

    Args:
        model: the original model.
        study: settings in `study.config.generate`.
    """
    if study.is_done("generate"):
        return Generated.load(study)
    config = study.config.generate
    own = take_brought(study)
    with study.stage("generate") as run, bar() as progress:
        drawn = plan(model, study, () if own else words_to_judge(model, study, run, progress))
        if own:
            drawn = [image for image in drawn if image.purpose == "benign"]
        images = [replace(image, index=index) for index, image in enumerate([*own, *drawn])]
        doing = "Encoding pictures that were brought" if own else "Drawing pictures to judge"
        task = progress.add_task(doing, total=len(images), note="")
        c_0 = encode_prompts(model, [""])
        starts = [*range(0, len(own), config.batch_size), *range(len(own), len(images), config.batch_size)]
        for start, end in zip(starts, [*starts[1:], len(images)], strict=True):
            batch = images[start:end]
            part = run.path("parts", f"{start:06d}.safetensors")
            if not part.exists() and start < len(own):
                z_0 = encode_brought(model, study, batch, run.folder)
                write_tensors(part, {"latents": z_0})
                run.checkpoint()
            elif not part.exists():
                c = encode_prompts(model, [image.prompt for image in batch])
                z_0 = sample_latents(model, c, c_0, [image.seed for image in batch], **config.sampling)
                for image, picture in zip(batch, to_pil(decode(model, z_0)), strict=True):
                    save_picture(picture, run.path(image.file))
                write_tensors(part, {"latents": z_0})  # last: a batch with its latents is whole
                run.checkpoint()
            progress.update(task, completed=end)
        parts = sorted(run.path("parts").glob("*.safetensors"))
        write_tensors(run.path("latents.safetensors"), {"latents": torch.cat([read_tensors(part)["latents"] for part in parts])})
        write_bytes(run.path("images.jsonl"), "".join(json.dumps(asdict(image)) + "\n" for image in images).encode())
        for part in parts:
            part.unlink()
        run.path("parts").rmdir()
        run.facts.update(
            images=len(images),
            concept_prompts=sum(image.purpose == "concept" for image in images),
            **({"words": words} if (words := sum(image.purpose == "word" for image in images)) else {}),
            **({"brought": len(own)} if own else {}),
            model=model.name,
            model_hash=model.hash,
        )
    return Generated.load(study)


def words_to_judge(model: Model, study: Workspace, run: StageRun, progress: Progress) -> list[str]:
    """`near_words` under the study's settings; kept in the stage's folder, so that a resumed run draws the same ones."""
    config, concept, file = study.config.generate, study.config.concept, run.path("words.json")
    if not config.near_words or concept.kind == "style":
        return []
    if not file.exists():
        vocabulary = load_vocabulary(concept.vocabulary)
        task = progress.add_task("Looking for words near the concept", total=None, note="")
        found = near_words(
            model,
            concept,
            vocabulary,
            config.near_words,
            study.config.seed,
            config.batch_size,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
        write_json(file, found)
    return list(read_json(file))


def take_brought(study: Workspace) -> list[FeedbackImage]:
    """The pictures that people brought, as pictures of this stage; their prompts are as far as known, "" otherwise."""
    return [FeedbackImage(row["id"], f"images/{row['id']}.png", row["prompt"], 0, i, "brought") for i, row in enumerate(brought(study))]


def encode_brought(model: Model, study: Workspace, images: list[FeedbackImage], folder: Path) -> Tensor:
    """Latents (B, C, h, w) of brought pictures; the middle square, at the model's size, is also written to the stage's folder."""
    from PIL import Image, ImageOps

    from hfi.perception.pictures import open_picture, to_tensor

    height, width = (side * 2 ** (len(model.vae.config.block_out_channels) - 1) for side in model.latent_shape[1:])
    pictures = []
    for image in images:
        picture = open_picture(study.path(BROUGHT, image.file))
        pictures.append(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
        save_picture(pictures[-1], folder / image.file)
    return encode_images(model, to_tensor(pictures)).cpu()


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
