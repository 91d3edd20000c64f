"""`hfi generate`: stage 1."""

from __future__ import annotations

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi generate studies/mine

hfi generate studies/mine --set generate.images=200 --dry-run"""


def generate(study: Study, seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None,
       dry_run: DryRun = False, debug: Debug = False) -> None:
    """Stage 1: draw the pictures that people will judge."""
    from hfi.cli.studies import do_stage

    do_stage(study, "generate", changes(seed, device, dtype, set_), dry_run)
