"""`hfi erase`: stage 6."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi erase studies/mine

hfi erase studies/mine --set erase.latents=forward --set erase.steps=300

hfi erase studies/mine --also studies/alcohol"""


def erase(study: Study,
          also: Annotated[list[Path] | None, typer.Option(metavar="OTHER", help="Another study on the same model, erased in the same run; "
                                                          "may be repeated; saved in study.yaml.")] = None,
          seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
          debug: Debug = False) -> None:
    """Stage 6: make the model forget the soft tokens (SDD)."""
    from hfi.cli.studies import do_stage
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    for other in also or []:
        if Workspace.open(other).manifest("invert") is None:
            raise HFIError("has no soft tokens yet", file=other, field="--also", remedy=f"run 'hfi run {other}' up to 'hfi invert {other}'")
    do_stage(study, "erase", changes(seed, device, dtype, set_, erase__also=[str(path) for path in also] if also else None), dry_run)
