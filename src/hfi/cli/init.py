"""`hfi init`: a new study's folder with its settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes
from hfi.config import StudyConfig, dump_config

CLIP = "openai/clip-vit-large-patch14"  # the one whose text half SD 1 reads with


def settings_text() -> str:
    """Every setting with its default and where that comes from, one paragraph each."""
    return "\n\n".join(_lines(StudyConfig)).replace("[", "\\[")


def _lines(section: type, prefix: str = "") -> list[str]:
    lines = []
    for name, field in section.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            lines += _lines(field.annotation, f"{prefix}{name}.")
        else:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            lines.append(f"{prefix}{name} = {default}: {field.description}")
    return lines


EPILOG = f"""Examples:

hfi init studies/mine --from recipes/demo.yaml --set generate.images=400

hfi init studies/sd14 --model CompVis/stable-diffusion-v1-4 --concept weapon

hfi init studies/mine --concept weapon --images my_pictures (sorted into folders yes and no, or an imagefolder)

Every setting, its default and where that comes from:

{settings_text()}"""


def init(study: Study,
         from_: Annotated[Path | None, typer.Option("--from", metavar="RECIPE", help="Start from a recipe (.yaml), or from the "
                                                             "settings of another study.")] = None,
         model: Annotated[str | None, typer.Option(help="'emoji' (embedded), a diffusers folder, a hub id or a .safetensors file.")] = None,
         concept: Annotated[str | None, typer.Option(help="What people are asked to look for: a harm, or the name of a style.")] = None,
         images: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Start from pictures of your own instead of drawing some; "
                                                     "those in folders yes and no, or with metadata, are taken as judged.")] = None,
         annotator: Annotated[str | None, typer.Option(help="Who judged the pictures of --images.")] = None,
         seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
         debug: Debug = False) -> None:
    """Make a study: write its study.yaml, and take pictures of your own into it."""
    from hfi.cli.studies import check_settings
    from hfi.config import load_config, with_overrides
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    if annotator is not None and images is None:
        raise HFIError("goes with --images", file="command line", field="--annotator", remedy="name the folder with --images FOLDER")
    if images is not None and not images.is_dir():
        raise HFIError("is no folder", file=images, field="--images", remedy="give a folder of pictures, e.g. with folders yes and no")
    if from_ and from_.is_dir():
        from_ = from_ / "study.yaml"
    base = load_config(from_) if from_ else StudyConfig(name=study.resolve().name)
    asked = changes(seed, device, dtype, set_, model=model)
    if concept is not None:
        asked = {**_concept(base, concept, asked.get("concept.vocabulary")), **asked}
    if images is not None and not (asked.get("erase.preservation") or base.erase.preservation):
        asked = {"generate.benign_share": 0.0, **asked}  # nothing is drawn beside them unless erasing needs benign pictures
    config = with_overrides(base, asked) if asked else base
    if instead := _instead_of_embedded(base, config, asked):
        config = with_overrides(config, instead)
        what = ", ".join(f"{name}={value}" for name, value in instead.items())
        print(f"{what}: what is embedded knows emoji alone; --set chooses others", file=sys.stderr)
    check_settings(config)
    named = {f"concept.{name}": getattr(config.concept, name) for name in ("vocabulary", "prompts")}
    files = {name: value for name, value in named.items() if value and Path(value).is_file()}
    if files:  # wherever the study's commands are called from
        config = with_overrides(config, {name: str(Path(value).resolve()) for name, value in files.items()})
    if dry_run:
        print(f"would write {study / 'study.yaml'}:\n{dump_config(config)}", end="")
        return
    made = Workspace.create(study, config)
    if images is not None:
        _take(made, images, annotator)
        return
    print(f"wrote {study / 'study.yaml'}; edit it, then: hfi run {study}")


def _instead_of_embedded(base: StudyConfig, config: StudyConfig, asked: dict[str, object]) -> dict[str, object]:
    """Settings in place of the embedded encoder and judges for another model than the embedded one, and for words that they do not know;
    none for what was asked for."""
    if config.model == "emoji" and config.concept.vocabulary == "emoji":
        return {}
    found: dict[str, object] = {}
    if config.evaluate.judge.startswith("emoji:"):
        found["evaluate.judge"] = f"clip:{CLIP}"
    if config.model != "emoji":
        if config.reward.encoder == "emoji":
            found["reward.encoder"] = CLIP
        if config.label.source == "simulated":
            found["label.source"] = "people"
    return {name: value for name, value in found.items() if name not in asked}


def _take(study, images: Path, annotator: str | None) -> None:
    """Take pictures, and what is said of them, into a new study."""
    from hfi.feedback.interchange import import_judgements

    with study.lock():
        found = import_judgements(study, images, annotator)
    print(f"{images}: {found['pictures']} pictures taken, {found['added']} judgements with them")
    then = f"hfi run {study.root}" if found["added"] or found["known"] else f"hfi label {study.root}"
    print(f"wrote {study.root / 'study.yaml'}; edit it, then: {then}")


def _concept(base: StudyConfig, name: str, vocabulary: object) -> dict[str, object]:
    """Settings of another concept; the recipe's member lists belong to its own."""
    from hfi.diffusion.prompts import load_vocabulary

    if name == base.concept.name:
        return {}
    styles = load_vocabulary(str(vocabulary or base.concept.vocabulary)).styles
    return {"concept.name": name, "concept.kind": "style" if name in styles else "harm", "concept.members": [], "concept.unlisted": [],
            "concept.words": []}
