"""`hfi label`: stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi label studies/mine --import judgements.jsonl

hfi label studies/mine --export judgements.csv

hfi label studies/mine --simulated

Judgements are kept in STUDY/feedback.sqlite; no stage ever removes one. The layout of the files is in docs/formats.md."""


def label(study: Study,
          import_: Annotated[Path | None, typer.Option("--import", metavar="FILE",
                                                       help="Add judgements of a .jsonl or .csv file.")] = None,
          export: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all judgements to a .jsonl or .csv file.")] = None,
          annotator: Annotated[str | None, typer.Option(help="Who judged, for rows of --import that do not say.")] = None,
          simulated: Annotated[bool, typer.Option("--simulated", help="Let simulated annotators judge; marked so wherever their "
                                                  "numbers appear.")] = False,
          seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
          debug: Debug = False) -> None:
    """Stage 2: gather judgements from people (files) or from simulated annotators."""
    from hfi.cli import studies
    from hfi.errors import HFIError, NeedsPeople

    changed = changes(seed, device, dtype, set_, label__source="simulated" if simulated else None)
    if annotator is not None and import_ is None:
        raise HFIError("goes with --import", file="command line", field="--annotator", remedy="name the file with --import FILE")
    if simulated and import_ is not None:
        raise HFIError("choose one", file="command line", field="--import, --simulated", remedy="people's judgements and simulated ones "
                       "are separate sources; import first, then decide")
    if dry_run or (import_ is None and export is None):
        studies.do_stage(study, "label", changed, dry_run)
        return
    opened = studies.open_study(study, changed)
    from hfi.feedback.interchange import export_judgements, import_judgements

    with opened.lock():
        if import_ is not None:
            opened.require("label")
            found = import_judgements(opened, import_, annotator=annotator)
            print(f"{import_}: {found['read']} judgements read, {found['added']} added, {found['known']} known already, "
                  f"{found['duplicates']} twice in the file")
            if changed:
                opened.save_config()
            try:
                studies.work(opened, "label")
            except NeedsPeople as waiting:
                print(f"label: {waiting}")
        if export is not None:
            print(f"{export}: {export_judgements(opened, export)} judgements written")

