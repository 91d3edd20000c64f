"""CLIP and SigLIP embeddings of pictures and texts, L2-normalised; pictures' embeddings are cached on disk by content."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hfi.diffusion.identity import model_hash
from hfi.diffusion.model import pick_device, quiet_loading
from hfi.errors import HFIError
from hfi.perception.names import check_encoder
from hfi.perception.pictures import open_picture
from hfi.progress import bar
from hfi.workspace import digest, file_hash, read_tensors, write_tensors

BATCH = 64
SAVE_SECONDS = 60.0  # most embedding work that an interruption can cost


@dataclass
class Encoder:
    """A CLIP or SigLIP model with its tokenizer and its PIL image processor (pinned: other backends resize differently)."""

    name: str
    hash: str  # over weights and image processing: what an embedding depends on, beside the picture
    model: Any
    tokenizer: Any
    processor: Any
    device: torch.device
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        config = self.model.config
        return config.vision_config.hidden_size if config.model_type == "siglip" else config.projection_dim

    @property
    def logit_scale(self) -> float:
        """CLIP's learned inverse temperature, exp(t)."""
        return float(self.model.logit_scale.exp())

    def images(self, pictures: Sequence[str | Path | Image.Image] | Tensor, cache: Path | None = None) -> Tensor:
        """Embeddings (N, D), float32, L2-normalised, on the CPU.

        Args:
            pictures: files, PIL pictures, or a tensor (N, 3, H, W) in [0, 1].
            cache: a folder of cached embeddings; a damaged or foreign cache is made anew.
        """
        if isinstance(pictures, Tensor):
            from hfi.diffusion.sampling import to_pil

            pictures = to_pil(pictures)
        if cache is None:
            return self._embed_all(list(pictures), None, None)
        file = Path(cache) / f"clip-{self.hash[:16]}.safetensors"
        keys = [_picture_key(picture) for picture in pictures]
        known = _read_cache(file, self.width)
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        if missing:
            self._embed_all(list(missing.values()), list(missing), (file, known))
        return torch.stack([known[key] for key in keys]) if keys else torch.zeros(0, self.width)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts, float32, L2-normalised, on the CPU; each text is encoded once."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            length = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
            ids = self.tokenizer(part, padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(self.device)
            if self.model.config.model_type == "siglip":  # learned on padded texts without a mask
                ids = {"input_ids": ids["input_ids"]}
            with torch.no_grad():
                rows = self.model.get_text_features(**ids).pooler_output.float()
            self._texts.update(zip(part, torch.nn.functional.normalize(rows, dim=-1).cpu(), strict=True))
        return torch.stack([self._texts[text] for text in texts]) if texts else torch.zeros(0, self.width)

    def _embed_all(self, pictures: list, keys: list[str] | None, store: tuple[Path, dict] | None) -> Tensor:
        rows, saved = [], time.monotonic()
        with bar() as progress:
            task = progress.add_task("Embedding pictures", total=len(pictures), note="")
            for start in range(0, len(pictures), BATCH):
                part = pictures[start : start + BATCH]
                opened = [open_picture(item) if isinstance(item, (str, Path)) else item.convert("RGB") for item in part]
                pixels = self.processor(images=opened, return_tensors="pt")["pixel_values"].to(self.device)
                with torch.no_grad():
                    out = self.model.get_image_features(pixel_values=pixels).pooler_output.float()
                rows.append(torch.nn.functional.normalize(out, dim=-1).cpu())
                if store is not None and keys is not None:
                    store[1].update(zip(keys[start : start + BATCH], rows[-1], strict=True))
                    if time.monotonic() - saved > SAVE_SECONDS:
                        _write_cache(*store)
                        saved = time.monotonic()
                progress.update(task, completed=min(start + BATCH, len(pictures)))
        if store is not None:
            _write_cache(*store)
        return torch.cat(rows) if rows else torch.zeros(0, self.width)


def load_encoder(source: str | Path, device: str = "cpu") -> Encoder:
    """Load 'emoji' (the embedded CLIP), a transformers folder or a hub id of a CLIP or SigLIP; only safetensors are read.

    Raises HFIError naming what cannot be loaded.
    """
    from transformers import (
        AutoConfig,
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        SiglipImageProcessorPil,
        SiglipModel,
    )

    kinds = {"clip": (CLIPModel, CLIPTokenizer, CLIPImageProcessorPil), "siglip": (SiglipModel, AutoTokenizer, SiglipImageProcessorPil)}
    source = str(source)
    if source == "emoji":
        from hfi import emoji

        place: str | Path = emoji.clip_folder()
    else:
        place = source
    folder = Path(place) if Path(place).exists() else None
    if source == "emoji" and folder is None:
        raise HFIError(
            "the embedded CLIP is missing", file=place, field="encoder", remedy="reinstall the package, or run 'make emoji-model'"
        )
    check_encoder(source, "encoder")
    try:
        with warnings.catch_warnings(), quiet_loading():
            warnings.simplefilter("ignore")
            local = {"local_files_only": folder is not None}
            kind = AutoConfig.from_pretrained(str(place), **local).model_type
            if kind not in kinds:
                raise ValueError(f"it is a {kind} model")
            network, words, pictures = kinds[kind]
            model, report = network.from_pretrained(
                str(place), use_safetensors=True, output_loading_info=True, dtype=torch.float32, **local
            )
            tokenizer = words.from_pretrained(str(place), **local)
            processor = pictures.from_pretrained(str(place), **local)
    except Exception as error:  # the libraries raise many kinds here; all mean the same to the user
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:140]
        raise HFIError(
            f"not a CLIP that can be loaded ({first})",
            file=source,
            field="encoder",
            remedy="give a folder with a CLIPModel or SiglipModel in "
            "safetensors, its tokenizer and preprocessor_config.json, or check the hub id and the network",
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise HFIError(
            f"lacks {len(missing)} weights, the first is {missing[0]}",
            file=source,
            field="encoder",
            remedy="give a complete model, not one of its halves",
        )
    model.requires_grad_(False).eval().to(pick_device(device))
    key = digest([model_hash(str(place)), type(processor).__name__, _plain(processor.to_dict())])
    return Encoder(source, key, model, tokenizer, processor, pick_device(device))


def _plain(settings: dict) -> dict:
    """Image-processor settings that change pixels."""
    names = {"processor_class", "image_processor_type"}
    return {key: value for key, value in settings.items() if not key.startswith("_") and key not in names}


def _picture_key(picture: str | Path | Image.Image) -> str:
    """SHA-256 (hex) of a file's bytes, or of a PIL picture's pixels."""
    if isinstance(picture, (str, Path)):
        try:
            return file_hash(Path(picture))
        except OSError:
            open_picture(picture)  # says in one line what is wrong
            raise
    picture = picture.convert("RGB")
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def _read_cache(file: Path, width: int) -> dict[str, Tensor]:
    """Cached embeddings {picture key: (D,)}; empty when there are none that can be read."""
    if not file.exists():
        return {}
    try:
        found = read_tensors(file)
        keys, rows = found["keys"], found["embeddings"]
    except (HFIError, KeyError):
        return {}
    if rows.ndim != 2 or rows.shape[1] != width or len(keys) != len(rows):
        return {}
    return {bytes(key.tolist()).hex(): row for key, row in zip(keys, rows, strict=True)}


def _write_cache(file: Path, known: dict[str, Tensor]) -> None:
    keys = torch.tensor([list(bytes.fromhex(key)) for key in known], dtype=torch.uint8)
    write_tensors(file, {"keys": keys, "embeddings": torch.stack(list(known.values()))})
