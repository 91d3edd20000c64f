"""`hfi report`: the report."""

from __future__ import annotations

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi report studies/mine

hfi report studies/mine --set report.blur=false"""


def report(study: Study, seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None,
       dry_run: DryRun = False, debug: Debug = False) -> None:
    """Write report.html and metrics.json."""
    from hfi.cli.studies import do_stage

    do_stage(study, "report", changes(seed, device, dtype, set_), dry_run)
