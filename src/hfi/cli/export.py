"""`hfi export`: the result as files that load where people work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Study
from hfi.export.targets import TARGETS

EPILOG = """Examples:

hfi export studies/mine --to lora

hfi export studies/mine --to checkpoint --weights float16 --out my_models

hfi export studies/mine --to delta --also studies/alcohol=0.8 (both concepts in one file, a strength for each)

hfi export studies/mine --to negative_embedding --i-understand

hfi export studies/mine --to all

Where each file goes, and the words to type: docs/export.md. A raw token, and a negative embedding, which holds the same numbers, draw
what people flagged when they are typed into a prompt; they leave a study only with --i-understand."""


def export(study: Study,
           to: Annotated[str, typer.Option("--to", help=f"{', '.join(TARGETS)}, or all.", show_default=False)],
           out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Where the files go. Default: STUDY/export.",
                                                    show_default=False)] = None,
           strength: Annotated[float, typer.Option(help="Of the study's delta: 0 (off) to 2; 1 is what was measured.")] = 1.0,
           also: Annotated[list[str] | None, typer.Option(metavar="OTHER=0.8", show_default=False, help="Another study on the same "
                                                          "model, whose delta goes into the same files, with its strength. May be "
                                                          "repeated.")] = None,
           rank: Annotated[int, typer.Option(min=1, help="LoRA: the rank.")] = 64,
           alpha: Annotated[float | None, typer.Option(help="LoRA: alpha; loaders add alpha / rank x up down. Default: the rank.",
                                                       show_default=False)] = None,
           max_error: Annotated[float, typer.Option(min=0, max=1, help="LoRA: refuse when it misses more of the delta than this.")] = 0.1,
           weights: Annotated[str, typer.Option(help="float32, float16 or bfloat16: of the weights in the files.")] = "float32",
           i_understand: Annotated[bool, typer.Option("--i-understand", help="Let raw tokens and negative embeddings leave the study: "
                                                      "they draw the concept.")] = False,
           device: Device = None, dry_run: DryRun = False, debug: Debug = False) -> None:
    """Write the result for diffusers, AUTOMATIC1111 / Forge and ComfyUI, and its model card."""
    from hfi.cli.options import changes
    from hfi.cli.studies import open_study
    from hfi.erasure.strength import check_strength

    opened, folder = open_study(study, changes(device=device)), out or study / "export"
    check_strength(strength, "command line", "--strength")
    others = [other_study(line) for line in also or []]
    if dry_run:
        print(f"would write {', '.join(TARGETS) if to == 'all' else to} under {folder}"
              + ("" if i_understand or to not in {"all", "embedding", "negative_embedding"} else "; embeddings need --i-understand"))
        return
    from hfi.export.export import export as write

    with opened.lock():
        made = write(opened, to, folder, others, strength, rank, alpha, max_error, weights, i_understand)
    for path, words in made.files.items():
        print(f"{path}: {words}")
    if made.lora is not None:
        worst = max(made.lora.errors, key=made.lora.errors.get)
        print(f"LoRA of rank {made.lora.rank}, alpha {made.lora.alpha:g}: misses {made.lora.error:.2%} of the delta (worst layer "
              f"{made.lora.errors[worst]:.1%}, {worst}; {len(made.lora.left_out)} biases cannot be carried, "
              f"{made.lora.left_out_error:.2%})")
    for name, why in made.left_out.items():
        print(f"not written: {name} ({why})")
    if others:
        print("the sum was measured by neither study, and two harms can cost much of the rest: run 'hfi check' on it for each concept, or "
              "erase them in one run (hfi erase --also)")


def other_study(line: str):
    """'studies/alcohol=0.8' -> (study, 0.8); without a number 1."""
    from hfi.erasure.strength import check_strength
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    root, equals, number = line.rpartition("=")
    try:
        value = float(number) if equals else 1.0
    except ValueError:
        raise HFIError(f"cannot be read: {line!r}", file="command line", field="--also", remedy="write --also STUDY=0.8") from None
    return Workspace.open(root if equals else line), check_strength(value, "command line", "--also")
