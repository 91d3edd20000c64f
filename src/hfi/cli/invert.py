"""`hfi invert`: stage 5."""

from __future__ import annotations

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi invert studies/mine

hfi invert studies/mine --set invert.vectors=8 --set invert.initial_word=weapon"""


def invert(study: Study, seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None,
       dry_run: DryRun = False, debug: Debug = False) -> None:
    """Stage 5: learn the soft tokens that draw the flagged pictures."""
    from hfi.cli.studies import do_stage

    do_stage(study, "invert", changes(seed, device, dtype, set_), dry_run)
