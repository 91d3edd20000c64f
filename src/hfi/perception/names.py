"""What settings call judges, encoders and detectors, checked without loading any: a slip is found before anything begins or is cleared."""

from __future__ import annotations

from pathlib import Path

from hfi.config import StudyConfig
from hfi.diffusion.prompts import Vocabulary, load_vocabulary
from hfi.errors import HFIError

JUDGES = "use emoji:scorer, emoji:annotator, clip:FOLDER or look:FOLDER"
ENCODERS = "use 'emoji', a transformers CLIP folder or a hub id like openai/clip-vit-base-patch32"
DETECTORS = "use clip:emoji, clip:FOLDER, classifier:FOLDER, classifier:FOLDER#LABEL, classifier:FILE.onnx#LABEL, q16:FILE or nudenet"


def check_networks(config: StudyConfig) -> None:
    """Raise HFIError for a network that the settings name and that cannot be, or that does not know the concept's vocabulary.

    What a hub id holds is not asked.
    """
    vocabulary = load_vocabulary(config.concept.vocabulary)
    check_encoder(config.reward.encoder, "reward.encoder")
    check_judge_name(config.evaluate.judge, vocabulary, "evaluate.judge")
    if config.label.source == "simulated":
        check_judge_name(config.label.simulated_judge, vocabulary, "label.simulated_judge")
    for spec in config.label.machines:
        check_detector(spec, "label.machines")


def check_judge_name(spec: str, vocabulary: Vocabulary, field: str) -> None:
    """Raise HFIError unless a judge can have this name, and where it is an embedded one knows all words of the vocabulary."""
    family, _, name = spec.partition(":")
    if family == "emoji" and name in ("scorer", "annotator"):
        known = load_vocabulary("emoji")
        unknown = [word for word in (*vocabulary.objects, *vocabulary.styles) if word not in {*known.objects, *known.styles}]
        if unknown:
            raise HFIError(
                f"{spec} does not know {unknown[0]!r} ({len(unknown)} of the vocabulary's words)",
                field=field,
                remedy="set it to a judge that goes by words, e.g. clip:openai/clip-vit-large-patch14",
            )
    elif family == "clip" and name:
        check_encoder(name, field)
    elif family == "look" and name:
        if not Path(name).is_dir():
            raise HFIError("no such folder", file=name, field=field, remedy=JUDGES)
    else:
        raise HFIError(f"unknown judge {spec!r}", field=field, remedy=JUDGES)


def check_encoder(source: str, field: str) -> None:
    """Raise HFIError unless it is the embedded encoder, a folder that is there, or may be a hub id."""
    is_path = source.startswith((".", "/", "~")) or source.count("/") != 1
    if source != "emoji" and is_path and not Path(source).exists():
        raise HFIError("unknown CLIP", file=source, field=field, remedy=ENCODERS)


def check_detector(spec: str, field: str) -> None:
    """Raise HFIError for what is no detector's name."""
    family, _, place = spec.partition(":")
    if family == "clip" and place:
        check_encoder(place.partition("#")[0], field)
    elif spec != "nudenet" and not (family in ("q16", "classifier") and place):
        raise HFIError(f"unknown detector {spec!r}", field=field, remedy=DETECTORS)
