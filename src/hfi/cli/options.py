"""The options that mean the same in every command, and how they become settings of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.errors import HFIError

Study = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="The study's seed; every random number comes from it. Saved in study.yaml.",
                                          show_default=False)]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. Saved in study.yaml.", show_default=False)]
Dtype = Annotated[str | None, typer.Option(help="auto, float32 or bfloat16: arithmetic of forward passes. Saved in study.yaml.",
                                           show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", show_default=False,
                                                    help="Change a setting; saved in study.yaml. May be repeated; 'hfi init --help' "
                                                         "lists them all.")]
# the same for commands that only measure: for this call, nothing is saved
DeviceNow = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", show_default=False)]
DtypeNow = Annotated[str | None, typer.Option("--dtype", help="auto, float32 or bfloat16: arithmetic of forward passes.",
                                              show_default=False)]
SettingsNow = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", show_default=False,
                                                       help="Change a setting for this call. May be repeated; 'hfi init --help' lists "
                                                            "them all.")]
JudgeNow = Annotated[str | None, typer.Option("--judge", help="The judge that counts: emoji:scorer, emoji:annotator or clip:FOLDER.",
                                              show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback when something fails.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def changes(seed: int | None = None, device: str | None = None, dtype: str | None = None, settings: list[str] | None = None,
            **more: object) -> dict[str, object]:
    """Dotted setting -> value, from the common options. `more`: dotted names with '__' for the dot; None is left out."""
    import yaml

    found: dict[str, object] = {name.replace("__", "."): value for name, value in more.items() if value is not None}
    for line in settings or []:
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise HFIError(f"cannot be read: {line!r}", file="command line", field="--set",
                           remedy="write --set section.field=value, e.g. --set erase.steps=300")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise HFIError(f"the value {value!r} is not readable", file="command line", field=f"--set {name}",
                           remedy="quote it, e.g. --set 'concept.members=[knife, sword]'") from None
    found |= {name: value for name, value in (("seed", seed), ("device", device), ("dtype", dtype)) if value is not None}
    return found
