"""Judges name the object and the style of a picture; they choose among all that the vocabulary knows, and `neither`.

emoji:scorer      the embedded judge that only scores, once, at the end
emoji:annotator   the embedded judge that plays simulated annotators and chooses settings
clip:FOLDER       zero-shot by words, for any vocabulary and any CLIP (folder or hub id)
look:FOLDER       tells drops from none, for a look that no word names (training/emoji/look.py; ours)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hfi.diffusion.prompts import Vocabulary
from hfi.errors import HFIError
from hfi.perception.names import JUDGES

NEITHER = "neither"
EMOJI_JUDGES = ("scorer", "annotator")
SIDE = 64  # pictures that the embedded judges look at
MINIMUM_COSINE = 0.18  # clip: judges say `neither` when no object's words are nearer than this (ours; not calibrated)
OBJECT_WORDS, STYLE_WORDS = "a picture of a {}", "a picture in the style of {}"


@dataclass(frozen=True)
class Verdicts:
    """What a judge said of B pictures."""

    object: Tensor  # (B,) long, index into judge.objects; the last one is `neither`
    style: Tensor  # (B,) long, index into judge.styles; -1 where the vocabulary has no styles
    object_probs: Tensor  # (B, n + 1), rows sum to 1
    style_probs: Tensor  # (B, s)


@dataclass(frozen=True)
class Judge:
    """Names pictures; `objects` ends in "neither"."""

    name: str
    objects: tuple[str, ...]
    styles: tuple[str, ...]
    probabilities: Callable[[Tensor], tuple[Tensor, Tensor]]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Verdicts:
        """Verdicts on pictures (B, 3, H, W) in [0, 1], float32, on the CPU."""
        object_probs, style_probs = (probs.float().cpu() for probs in self.probabilities(pictures))
        style = style_probs.argmax(1) if style_probs.shape[1] else torch.full((len(pictures),), -1)
        return Verdicts(object_probs.argmax(1), style, object_probs, style_probs)


def load_judge(spec: str, vocabulary: Vocabulary, device: str = "cpu") -> Judge:
    """Load "emoji:scorer", "emoji:annotator", "clip:FOLDER" or "look:FOLDER"; raises HFIError for anything else."""
    family, _, name = spec.partition(":")
    if family == "emoji" and name in EMOJI_JUDGES:
        return _emoji_judge(name, vocabulary, device)
    if family == "clip" and name:
        return _clip_judge(name, vocabulary, device)
    if family == "look" and name:
        return _look_judge(name, device)
    raise HFIError(f"unknown judge {spec!r}", field="judge", remedy=JUDGES)


def _emoji_judge(name: str, vocabulary: Vocabulary, device: str) -> Judge:
    try:
        from hfi.emoji import judge as emoji_judge

        network: Any = emoji_judge.load_judge(name)
    except (ImportError, OSError) as error:
        raise HFIError(
            f"the embedded judge cannot be loaded ({str(error)[:100]})",
            field=f"judge emoji:{name}",
            remedy="reinstall the package, or run 'make emoji-model'",
        ) from error
    objects = tuple(network.objects)
    objects = objects if objects[-1] == NEITHER else (*objects, NEITHER)
    unknown = [word for word in (*vocabulary.objects, *vocabulary.styles) if word not in {*objects, *network.styles}]
    if unknown:
        raise HFIError(
            f"does not know {unknown[0]!r} ({len(unknown)} of the vocabulary's words)",
            field=f"judge emoji:{name}",
            remedy="use the vocabulary 'emoji', or a judge clip:FOLDER that goes by words",
        )
    return Judge(f"emoji:{name}", objects, tuple(network.styles), _probabilities(network, device))


def _look_judge(source: str, device: str) -> Judge:
    """A network of the embedded judges' kind from a folder; its objects are what its config.json says ("drops", "none")."""
    try:
        from hfi.emoji.judge import load_folder

        network = load_folder(Path(source), source)
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise HFIError(
            f"no judge can be loaded from it ({str(error).splitlines()[0][:100]})",
            file=source,
            field=f"judge look:{source}",
            remedy="run 'make look-model', then give training/emoji/runs/look/judge-annotator or judge-scorer",
        ) from error
    return Judge(f"look:{source}", tuple(network.objects), tuple(network.styles), _probabilities(network, device))


def _probabilities(network: Any, device: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """What asks an embedded judge's network: pictures (B, 3, H, W) in [0, 1] -> probabilities of objects and of styles."""
    from hfi.diffusion.model import pick_device

    place = pick_device(device)
    inner = getattr(network, "network", network)
    if isinstance(inner, torch.nn.Module):
        inner.to(place)

    def probabilities(pictures: Tensor) -> tuple[Tensor, Tensor]:
        if pictures.shape[-2:] != (SIDE, SIDE):
            pictures = torch.nn.functional.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
        out = network(pictures.to(place))
        return out.object_probs, out.style_probs

    return probabilities


def _clip_judge(source: str, vocabulary: Vocabulary, device: str) -> Judge:
    """Zero-shot (Radford et al. 2021, arXiv 2103.00020); `neither` is a class of constant cosine MINIMUM_COSINE."""
    from hfi.perception.clip import load_encoder

    encoder = load_encoder(source, device)
    objects = encoder.texts([OBJECT_WORDS.format(name) for name in vocabulary.objects])
    styles = encoder.texts([STYLE_WORDS.format(name) for name in vocabulary.styles])

    def probabilities(pictures: Tensor) -> tuple[Tensor, Tensor]:
        seen = encoder.images(pictures)
        cosine = torch.cat([seen @ objects.T, torch.full((len(seen), 1), MINIMUM_COSINE)], dim=1)
        return (encoder.logit_scale * cosine).softmax(1), (encoder.logit_scale * (seen @ styles.T)).softmax(1)

    return Judge(f"clip:{source}", (*vocabulary.objects, NEITHER), tuple(vocabulary.styles), probabilities)
