"""`hfi evaluate`: the numbers, before and after."""

from __future__ import annotations

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi evaluate studies/mine

hfi evaluate studies/mine --set evaluate.reinversions=0"""


def evaluate(study: Study, seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None,
       dry_run: DryRun = False, debug: Debug = False) -> None:
    """Measure the erased model beside the original: same prompts, same seeds."""
    from hfi.cli.studies import do_stage

    do_stage(study, "evaluate", changes(seed, device, dtype, set_), dry_run)
