"""`hfi attack`: what brings the concept back, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, DeviceNow, DryRun, DtypeNow, JudgeNow, SettingsNow, Study, changes

EPILOG = """Examples:

hfi attack studies/mine --dry-run

hfi attack studies/mine --method reinversion --vectors 1,4,16 --seeds 3

hfi attack studies/mine --method p4d,unlearndiffatk --set attack.p4d.steps=500 --set attack.targets=8

hfi attack studies/mine --method stored --set attack.stored.file=prompts.csv

hfi attack studies/mine --delta other/delta.safetensors --control ./never-learned-it

Methods: plain (the targets' own prompts, no attack), stored (a file), ringabell, noise, p4d, unlearndiffatk, reinversion, embedding;
all of them but stored where it has no file. docs/attacks.md has what each knows of the model, its paper and its budget.
Stopped: the same command continues."""


def attack(study: Study,
           method: Annotated[str, typer.Option(metavar="NAMES", help="Attacks, with commas between, or 'all'.")] = "all",
           delta: Annotated[Path | None, typer.Option(metavar="FILE", help="Attack this delta instead of the study's own.",
                                                      show_default=False)] = None,
           control: Annotated[str | None, typer.Option(metavar="MODEL", help="A model that never learned the concept: a diffusers folder "
                                                       "or a hub id. Rates are then also told as excess over its own.",
                                                       show_default=False)] = None,
           seeds: Annotated[int | None, typer.Option(min=1, help="Times that each attack is made.", show_default=False)] = None,
           vectors: Annotated[str | None, typer.Option(metavar="N,N", help="Rows of a re-inverted token; one attack for each.",
                                                       show_default=False)] = None,
           judge: JudgeNow = None,
           seed: Annotated[int | None, typer.Option(help="Other random draws than the usual ones.", show_default=False)] = None,
           device: DeviceNow = None, dtype: DtypeNow = None, set_: SettingsNow = None, dry_run: DryRun = False,
           debug: Debug = False) -> None:
    """Attack the erased model, and the original beside it: how often does the concept come back?

    Options and settings hold for this call; study.yaml stays as it is.
    """
    from hfi.cli.studies import open_study

    more = {"attack__seed": seed, "attack__seeds": seeds, "attack__reinversion__vectors": whole_numbers(vectors), "evaluate__judge": judge}
    opened = open_study(study, changes(None, device, dtype, set_, **more))
    methods = chosen(method, opened.config.attack.stored.file)
    if dry_run:
        from hfi.cli.studies import check_control
        from hfi.evaluation.attack_table import delta_file

        delta_file(opened, delta)
        check_control(control, opened.config)
        show_plan(opened, methods, control is not None)
        return
    with opened.lock():
        from hfi.evaluation.attack_table import attack_study
        from hfi.report.attacks import write_page

        result = attack_study(opened, methods, delta, control)
        page = write_page(opened)
    show(result)
    print(f"\nwritten: {opened.path('attacks', 'attacks.json')}, {page}")


def whole_numbers(text: str | None) -> list[int] | None:
    """'1,4,16' as numbers; raises HFIError for anything else."""
    from hfi.errors import HFIError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise HFIError(f"cannot be read: {text!r}", file="command line", field="--vectors", remedy="write --vectors 1,4,16")
    return [int(part) for part in parts]


def chosen(text: str, prompts: Path | None) -> list[str]:
    """The methods that --method names, in the order of tables; raises HFIError for one that is not there."""
    from hfi.attacks.budget import METHODS
    from hfi.errors import HFIError

    if text == "all":
        return [name for name in METHODS if name != "stored" or prompts is not None]
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise HFIError(f"no such attack {name!r}", file="command line", field="--method", remedy=f"use {', '.join(METHODS)} or all")
    return [name for name in METHODS if name in names]


def show_plan(study, methods: list[str], control: bool) -> None:
    """Print what each attack would cost in network passes; nothing is loaded and nothing changed."""
    from hfi.attacks.budget import BLIND, passes, read_prompts, title, variants
    from hfi.cli.tables import _print, _table

    config = study.config.attack
    sampling = study.config.evaluate
    targets = min(config.targets, study.config.reward.top_k)
    sides = 3 if control else 2
    table = _table(f"{study.root}: dry run, nothing is changed; network passes of all {config.seeds} seeds on {sides} models", "attack",
                   "UNet, searching", "original's UNet", "text encoder", "pictures", "UNet, drawing",
                   right=("UNet, searching", "original's UNet", "text encoder", "pictures", "UNet, drawing"))
    total = {"unet": 0, "drawing": 0}
    for method in methods:
        count = len(read_prompts(config.stored.file)[: config.stored.limit]) if method == "stored" else targets
        for variant in variants(method, config):
            one = passes(method, config, targets)
            times = config.seeds * ((2 if control else 1) if method in BLIND else sides)
            conditions = {"reinversion": 3}.get(method, count)
            pictures = conditions * -(-config.pictures // conditions)
            if method == "unlearndiffatk":
                tries = min(config.unlearndiffatk.tries, config.unlearndiffatk.timesteps)
                pictures += targets * (tries - 1)
            pictures *= config.seeds * sides
            drawing = pictures * sampling.steps * (1 if sampling.guidance_scale == 1 else 2)
            table.add_row(title(method, variant), *(str(one.get(name, 0) * times) for name in ("unet", "original", "text")),
                          str(pictures), str(drawing))
            total["unet"] += one.get("unet", 0) * times
            total["drawing"] += drawing
    table.add_row("total", str(total["unet"]), "", "", "", str(total["drawing"]))
    _print(table)


def show(result: dict) -> None:
    """The table on the terminal."""
    from hfi.cli.tables import _print, _share, _table
    from hfi.report.attacks import excess_words

    sides = [side for side in ("original", "erased", "control") if any(side in row for row in result["rows"])]
    print(f"{result['about']['concept']}: share of pictures with the concept, 95 % intervals, counted by a judge network "
          f"({result['about']['judge']}, simulated)")
    table = _table("", "attack", *sides, *(["excess"] if "control" in sides else []), "prompts that succeed", "passes", "seconds", "",
                   right=("passes", "seconds"))
    for row in result["rows"]:
        erased = row["erased"]
        queries = sum(erased["queries"].values())
        table.add_row(row["attack"], *(_share(row[side]["rate"]) if side in row else "-" for side in sides),
                      *([excess_words(row) or "-"] if "control" in sides else []), _share(erased["per_prompt"]),
                      str(queries), f"{erased['seconds']:.1f}", "too weak to speak" if row["too_weak"] else "")
    _print(table)
    print(f"too weak to speak: the same attack brings the concept in under {result['too_weak']:.0%} of the original model's pictures")
