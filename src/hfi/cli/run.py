"""`hfi run`: whatever a study still misses, in order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, changes

EPILOG = """Examples:

hfi run recipes/demo.yaml

hfi run studies/mine --dry-run

hfi run recipes/demo.yaml --study studies/second --seed 1 --set erase.steps=300

Stopped with Ctrl-C, killed or out of power: the same command continues."""


def run(study: Annotated[Path, typer.Argument(metavar="STUDY|RECIPE", show_default=False,
                                              help="A study's folder, or a recipe (.yaml) for studies/NAME.")],
        folder: Annotated[Path | None, typer.Option("--study", metavar="FOLDER", help="Where a recipe's study goes instead.")] = None,
        seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
        debug: Debug = False) -> None:
    """Do whatever the study still misses, in order, and continue where it was stopped."""
    from hfi.cli.studies import check_settings, kept_settings, pending
    from hfi.workspace import STAGES

    began = time.perf_counter()
    changed = changes(seed, device, dtype, set_)
    opened = _resolve(study, folder, changed)
    check_settings(opened.config)
    if dry_run:
        from hfi.cli.plan import show_plan

        show_plan(opened)
        return
    with opened.lock(), kept_settings(opened, *STAGES):
        opened.save_config()
        todo = pending(opened)
        if todo:
            from hfi import method

            method.run(opened)
    from hfi.cli.tables import show_results

    show_results(opened, todo, time.perf_counter() - began)


def _resolve(target: Path, folder: Path | None, changed: dict[str, object]):
    """The study that `target` names, with its settings changed in memory; nothing is written."""
    from hfi.cli.studies import differences, open_study
    from hfi.config import load_config, with_overrides
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    if target.is_file() and target.name == "study.yaml" and folder is None:
        target = target.parent
    if not target.is_file():
        if target.suffix in {".yaml", ".yml"}:
            load_config(target)  # says that there is none
        if folder is not None:
            raise HFIError("goes with a recipe", file="command line", field="--study", remedy="give the folder alone, or a recipe file")
        return open_study(target, changed)
    recipe = load_config(target)
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in recipe.name).strip(".") or target.stem
    root = folder or Path("studies") / name
    wanted = with_overrides(recipe, changed) if changed else recipe
    if root.exists() and not root.is_dir():
        raise HFIError("is a file, not a folder", file=root, field="--study", remedy="choose another folder")
    if not (root / "study.yaml").exists():
        return Workspace(root, wanted)
    there = load_config(root / "study.yaml")
    if there not in (recipe, wanted):
        field, old, new = differences(there, wanted)[0]
        raise HFIError(f"that study has {old!r} and the recipe {new!r}", file=root / "study.yaml", field=field,
                       remedy=f"go on with 'hfi run {root}', or make another with --study FOLDER")
    return Workspace(root, wanted)
