"""`hfi reward`: stages 3 and 4."""

from __future__ import annotations

from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi reward studies/mine

hfi reward studies/mine --veto 3fa9c1d2e4b5a687,91b2c3d4e5f60718"""


def reward(study: Study,
           veto: Annotated[str | None, typer.Option(metavar="ID,ID", help="Picture ids to take out of the top-K (reward/contact_sheet.png "
                                                    "shows them); saved in study.yaml. 'none' takes every veto back.")] = None,
           seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
           debug: Debug = False) -> None:
    """Stages 3 and 4: learn the reward from judgements, choose the top-K pictures."""
    from hfi.cli.studies import do_stage

    do_stage(study, "reward", changes(seed, device, dtype, set_, reward__veto=_vetoed(study, veto)), dry_run)


def _vetoed(study, veto: str | None) -> list[str] | None:
    """All vetoed ids, earlier ones included; raises HFIError for an id that no picture has."""
    if veto is None:
        return None
    if veto.strip() == "none":
        return []
    from hfi.cli.pictures import picture_ids
    from hfi.cli.studies import open_study
    from hfi.errors import HFIError

    opened = open_study(study, {})
    asked = [name.strip() for name in veto.split(",") if name.strip()]
    known = picture_ids(opened)
    for name in asked:
        if name not in known:
            raise HFIError(f"no picture has the id {name!r}", file=opened.path("generate", "images.jsonl"), field="--veto",
                           remedy="copy ids from reward/selected.json or the contact sheet")
    return list(dict.fromkeys([*opened.config.reward.veto, *asked]))
