"""`hfi init`: a new study's folder with its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes
from hfi.config import StudyConfig, dump_config


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

Every setting, its default and where that comes from:

{settings_text()}"""


def init(study: Study,
         from_: Annotated[Path | None, typer.Option("--from", metavar="RECIPE", help="Start from a recipe (.yaml).")] = None,
         model: Annotated[str | None, typer.Option(help="'emoji' (embedded), a diffusers folder or a hub id.")] = None,
         concept: Annotated[str | None, typer.Option(help="What people are asked to look for: a harm, or the name of a style.")] = None,
         seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
         debug: Debug = False) -> None:
    """Make a study: write its study.yaml."""
    from hfi.cli.studies import check_settings
    from hfi.config import load_config, with_overrides
    from hfi.workspace import Workspace

    base = load_config(from_) if from_ else StudyConfig(name=study.resolve().name)
    asked = changes(seed, device, dtype, set_, model=model)
    if concept is not None:
        asked = {**_concept(base, concept, asked.get("concept.vocabulary")), **asked}
    config = with_overrides(base, asked) if asked else base
    check_settings(config)
    if dry_run:
        print(f"would write {study / 'study.yaml'}:\n{dump_config(config)}", end="")
        return
    Workspace.create(study, config)
    print(f"wrote {study / 'study.yaml'}; edit it, then: hfi run {study}")


def _concept(base: StudyConfig, name: str, vocabulary: object) -> dict[str, object]:
    """Settings of another concept; the recipe's member lists belong to its own."""
    from hfi.diffusion.prompts import load_vocabulary

    if name == base.concept.name:
        return {}
    styles = load_vocabulary(str(vocabulary or base.concept.vocabulary)).styles
    return {"concept.name": name, "concept.kind": "style" if name in styles else "harm", "concept.members": [], "concept.unlisted": [],
            "concept.words": []}
