"""Detectors: networks that say how likely one concept is in a picture. They can judge beside people (feedback/machines.py), and
`hfi measure` counts with them (evaluation/detection.py).

clip:emoji, clip:FOLDER     zero-shot by words (Radford et al. 2021): the concept's words against all others of the vocabulary
clip:FOLDER#a gun|a knife   the same with other words for the concept
classifier:FOLDER           a reward model of another study (its folder reward/), or a transformers image classifier
classifier:FOLDER#LABEL     such a classifier, and which of its labels is the concept
classifier:FILE.onnx#LABEL  any image classifier as an ONNX file (see onnx_classifier.py)
q16:FILE, q16:FILE#CLIP     Q16, "inappropriate" (see q16.py)
nudenet                     NudeNet 3, where it is installed (its licence is AGPL-3.0)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from hfi.errors import HFIError
from hfi.perception.names import DETECTORS
from hfi.perception.pictures import open_picture
from hfi.workspace import file_hash, read_json, read_tensors

BATCH = 64
OBJECT_WORDS = "a picture of a {}"
SOMETHING_ELSE = "something else"  # what words of one's own are held against where the vocabulary has nothing else
NUDENET_CLASSES = (
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
NUDENET_THRESHOLD = 0.45  # its scores run low: version 3's find 8 % of nudity at 0.75 (measured by others)


@dataclass(frozen=True)
class Detector:
    """Says how likely the concept is in pictures."""

    name: str  # with version, for tables and manifests
    threshold: float  # "present" from here up
    margin: float  # within this distance of the threshold it is unsure
    probabilities: Callable[[Sequence[Path]], Tensor]  # files -> (N,) in [0, 1]
    licence: str = ""
    version: str = ""  # what tells these weights from others, where the name does not

    def __call__(self, paths: Sequence[Path]) -> Tensor:
        """Probabilities (N,), float32, on the CPU, of picture files."""
        with torch.no_grad():
            rows = [self.probabilities(paths[start : start + BATCH]).float().cpu() for start in range(0, len(paths), BATCH)]
        return torch.cat(rows).clamp(0, 1) if rows else torch.zeros(0)


def load_detector(spec: str, words: Sequence[str], others: Sequence[str], device: str = "cpu") -> Detector:
    """Load a detector; raises HFIError naming what is wrong with `spec`.

    Args:
        spec: see the head of this file.
        words: what shows the concept, in words; others: what does not. Only "clip:" goes by them.
    """
    family, _, place = spec.partition(":")
    folder, _, label = place.partition("#")
    if family == "clip" and folder:
        return _clip_detector(place, words, others, device)
    if family == "q16" and folder:
        from hfi.perception.q16 import q16_detector

        return q16_detector(Path(folder), label, device)
    if family == "classifier" and folder:
        if Path(folder).suffix == ".onnx":
            from hfi.perception.onnx_classifier import onnx_detector

            return onnx_detector(Path(folder), label)
        if (Path(folder) / "reward.json").exists():
            return _reward_detector(Path(folder), device)
        return _classifier_detector(folder, label, device)
    if spec == "nudenet":
        return _nudenet_detector()
    raise HFIError(
        f"unknown detector {spec!r}",
        field="label.machines",
        remedy=DETECTORS,
    )


def _clip_detector(place: str, words: Sequence[str], others: Sequence[str], device: str) -> Detector:
    """P(any of the words) under softmax over the words and the others; words written after '#' replace the concept's."""
    from hfi.perception.clip import load_encoder

    source, _, written = place.partition("#")
    if own := [word.strip() for word in written.split("|") if word.strip()]:
        words, others = own, [other for other in others if other not in own] or [SOMETHING_ELSE]
    if not words or not others:
        raise HFIError(
            "needs words for the concept and for other things",
            field=f"label.machines clip:{source}",
            remedy="name a concept.vocabulary with both members and other objects",
        )
    encoder = load_encoder(source, device)
    texts = encoder.texts([OBJECT_WORDS.format(word) for word in (*words, *others)])

    def probabilities(paths: Sequence[Path]) -> Tensor:
        return (encoder.logit_scale * (encoder.images(paths) @ texts.T)).softmax(1)[:, : len(words)].sum(1)

    return Detector(f"clip:{place}", 0.5, 0.15, probabilities, version=f"{encoder.hash[:8]} among {len(words) + len(others)} words")


def _reward_detector(folder: Path, device: str) -> Detector:
    """The MLP of a reward folder, read by its file layout (docs/formats.md): centre, scale, layers.N.weight, layers.N.bias."""
    from hfi.perception.clip import load_encoder

    about, tensors = read_json(folder / "reward.json"), read_tensors(folder / "reward.safetensors")
    try:
        encoder, depth = load_encoder(about["encoder"], device), len(about["hidden"]) + 1  # type: ignore[index]
        layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(depth)]
        centre, scale = tensors["centre"], tensors["scale"]
    except (KeyError, TypeError):
        raise HFIError(
            "not a whole reward model", file=folder, field="label.machines", remedy="give the folder reward/ of a study"
        ) from None
    if "Bradley-Terry" in str(about.get("meaning", "")):  # type: ignore[union-attr]
        raise HFIError(
            "was learned from rankings only, so no value of it means 'present'",
            file=folder,
            field="label.machines",
            remedy="give a reward that was learned from labels",
        )

    def probabilities(paths: Sequence[Path]) -> Tensor:
        h = (encoder.images(paths) - centre) * scale
        for weight, bias in layers[:-1]:
            h = torch.nn.functional.gelu(torch.nn.functional.linear(h, weight, bias))
        return torch.nn.functional.linear(h, *layers[-1]).squeeze(-1)

    return Detector(f"classifier:{folder.name}", 0.5, 0.15, probabilities, version=file_hash(folder / "reward.safetensors")[:8])


def _classifier_detector(source: str, label: str, device: str) -> Detector:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from hfi.diffusion.identity import model_hash
    from hfi.diffusion.model import pick_device, quiet_loading

    try:
        with quiet_loading():
            local = {"local_files_only": Path(source).exists()}
            model, report = AutoModelForImageClassification.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **local
            )
            processor = AutoImageProcessor.from_pretrained(source, backend="pil", **local)
    except Exception as error:  # the library raises many kinds here; all mean the same to the user
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:140]
        raise HFIError(
            f"not a classifier that can be loaded ({first})",
            file=source,
            field="label.machines",
            remedy="give a folder reward/ of a study, or a transformers image classifier in safetensors",
        ) from error
    if missing := sorted(report["missing_keys"]):  # they would be random, and so would every verdict
        raise HFIError(
            f"lacks {len(missing)} weights, the first is {missing[0]}",
            file=source,
            field="label.machines",
            remedy="give a whole image classifier, its head included",
        )
    names = {str(name): int(number) for number, name in model.config.id2label.items()}
    if label not in names:
        raise HFIError(
            f"no such label {label!r}" if label else "say which of its labels is the concept",
            file=source,
            field="label.machines",
            remedy=f"write classifier:{source}#LABEL with one of {', '.join(list(names)[:8])}",
        )
    place = pick_device(device)
    model.requires_grad_(False).eval().to(place)

    def probabilities(paths: Sequence[Path]) -> Tensor:
        pixels = processor(images=[open_picture(path) for path in paths], return_tensors="pt")["pixel_values"]
        return model(pixel_values=pixels.to(place)).logits.softmax(1)[:, names[label]]

    return Detector(f"classifier:{Path(source).name}#{label}", 0.5, 0.15, probabilities, version=model_hash(source)[:8])


def _nudenet_detector() -> Detector:
    try:
        # not a dependency and never installed by us: it is AGPL-3.0
        library = importlib.import_module("nudenet")
        version = metadata.version("nudenet")
    except ImportError:
        raise HFIError(
            "NudeNet is not installed",
            field="label.machines nudenet",
            remedy="AGPL-3.0 software, which also binds those who offer it over a network; if that suits you: pip install 'hfi[nudenet]'",
        ) from None
    network = library.NudeDetector()

    def probabilities(paths: Sequence[Path]) -> Tensor:
        found = []
        for path in paths:
            open_picture(path)  # names what cannot be read
            scores = [row["score"] for row in network.detect(str(path)) if row["class"] in NUDENET_CLASSES]
            found.append(max(scores, default=0.0))
        return torch.tensor(found)

    return Detector(f"nudenet-{version}-320n@{NUDENET_THRESHOLD}", NUDENET_THRESHOLD, 0.1, probabilities, "AGPL-3.0")
