"""`hfi push`: exported files to the Hugging Face hub, only when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, DryRun, Study

EPILOG = """Examples:

hfi push studies/mine me/no-weapons --dry-run (the list of files)

hfi push studies/mine me/no-weapons --yes

Uploaded are the model card, delta, LoRA and checkpoint files, and the diffusers folder, as 'hfi export' wrote them; never pictures,
judgements, latents or soft tokens. No other command uploads anything."""


def push(study: Study,
         repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The model repository; made where there is none.",
                                             show_default=False)],
         folder: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="Where 'hfi export' wrote. Default: STUDY/export.",
                                                     show_default=False)] = None,
         yes: Annotated[bool, typer.Option("--yes", help="Upload; without it nothing leaves this machine.")] = False,
         public: Annotated[bool, typer.Option("--public", help="Make a new repository public; else it is private.")] = False,
         dry_run: DryRun = False, debug: Debug = False) -> None:
    """Upload exported files to a model repository on the Hugging Face hub."""
    from hfi.errors import HFIError
    from hfi.export.push import name_in, pushable
    from hfi.export.push import push as upload
    from hfi.workspace import Workspace

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise HFIError(f"is {repo!r}", file="command line", field="OWNER/NAME", remedy="write it like me/no-weapons")
    folder = folder or Workspace.open(study).path("export")
    files = pushable(folder)
    for path in files:
        print(f"{name_in(folder, path)} ({path.stat().st_size / 2**20:.1f} MiB)")
    if dry_run:
        print(f"would upload these {len(files)} files to {repo}")
        return
    if not yes:
        raise HFIError(f"{len(files)} files would go to {repo}", field="--yes", remedy="look at the list above and add --yes to upload")
    from huggingface_hub import HfApi

    print(f"uploaded to {upload(folder, repo, HfApi(), files, public)}")
