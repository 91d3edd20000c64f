"""`hfi erase`: stage 6."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi erase studies/mine

hfi erase studies/mine --set erase.latents=forward --set erase.steps=300

hfi erase studies/mine --also studies/alcohol

hfi erase studies/mine --method esd --concept words

hfi erase studies/mine --method sld --set erase.sld.strength=strong"""


def erase(study: Study,
          method: Annotated[str | None, typer.Option(metavar="METHOD", show_default=False, help="sdd, esd, uce, ca, sld, negative_prompt "
                                                     "or hardened (docs/erasers.md); saved in study.yaml.")] = None,
          concept: Annotated[str | None, typer.Option(metavar="tokens|words", show_default=False, help="What it is told to "
                                                      "erase: the learned soft tokens, or the concept's words; saved.")] = None,
          words: Annotated[str | None, typer.Option(metavar="WORDS", show_default=False, help="With --concept words: the words, "
                                                    "separated by commas, instead of the concept's own; saved.")] = None,
          also: Annotated[list[Path] | None, typer.Option(metavar="OTHER", help="Another study on the same model, erased in the same run; "
                                                          "may be repeated; saved in study.yaml.")] = None,
          seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
          debug: Debug = False) -> None:
    """Stage 6: make the model forget the soft tokens, by one of seven methods."""
    from hfi.cli.studies import do_stage
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    for other in also or []:
        if Workspace.open(other).manifest("invert") is None:
            raise HFIError("has no soft tokens yet", file=other, field="--also", remedy=f"run 'hfi run {other}' up to 'hfi invert {other}'")
    if words is not None and concept != "words":
        raise HFIError("goes with --concept words", file="command line", field="--words", remedy="add --concept words")
    do_stage(study, "erase", changes(seed, device, dtype, set_, erase__also=[str(path) for path in also] if also else None,
                                     erase__method=method, erase__concept=concept,
                                     erase__words=[word.strip() for word in words.split(",")] if words else None), dry_run)
