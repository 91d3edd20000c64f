"""`hfi evaluate`: the numbers, before and after; and the blind rounds for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi evaluate studies/mine

hfi evaluate studies/mine --set evaluate.reinversions=0

hfi evaluate studies/mine --human (then hfi label studies/mine, and hfi report studies/mine)

hfi evaluate studies/style --human --references pictures_of_the_artist"""


def evaluate(study: Study,
             human: Annotated[bool, typer.Option("--human", help="Also build a blind round for people: pictures before and after, mixed "
                                                 "and unlabelled, to be judged on the labelling page.")] = False,
             pictures: Annotated[int, typer.Option(min=2, max=10_000, help="Prompts and seeds in a blind round; each gives two "
                                                   "pictures.")] = 100,
             references: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Styles: the artist's real pictures, for the round "
                                                             "'same hand?'.", show_default=False)] = None,
             simulated: Annotated[bool, typer.Option("--simulated", help="Let simulated raters answer the blind rounds; marked so "
                                                     "wherever their numbers appear.")] = False,
             seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
             debug: Debug = False) -> None:
    """Measure the erased model beside the original: same prompts, same seeds."""
    from hfi.cli.studies import do_stage
    from hfi.errors import HFIError

    if not human and (references is not None or simulated):
        raise HFIError("goes with --human", file="command line", field="--references" if references else "--simulated",
                       remedy="add --human")
    opened = do_stage(study, "evaluate", changes(seed, device, dtype, set_), dry_run)
    if not human or dry_run:
        return
    from hfi.evaluation.human import build_rounds, simulate

    with opened.lock():
        made = build_rounds(opened, pictures, references)
        for one in made:
            print(f"round {one.name}: {one.pictures} pictures, before and after mixed; \"{one.words}\"")
        if simulated:
            print(f"simulated raters: {simulate(opened, made)} answers; hfi report {study} shows them, marked so")
        else:
            print(f"people answer it on the labelling page: hfi label {study}; then: hfi report {study}")
