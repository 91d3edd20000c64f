"""`hfi persist`: does the concept stay away when training goes on?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, DeviceNow, DryRun, DtypeNow, JudgeNow, SettingsNow, Study, changes

EPILOG = """Examples:

hfi persist studies/mine

hfi persist studies/mine --rounds 5 --full --lora --set persist.steps=200

hfi persist studies/mine --then studies/alcohol --then studies/fire

Stopped: the same command continues."""


def persist(study: Study,
            rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of training; measured after each.", show_default=False)] = None,
            full: Annotated[bool, typer.Option("--full", help="Train all weights of the UNet (where nothing else is asked for).")] = False,
            lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA on the projections of attention.")] = False,
            then: Annotated[list[Path] | None, typer.Option(metavar="OTHER", help="Erase another concept on top: a study on the same "
                                                            "model, whose tokens are then erased, or a delta, which is added. May be "
                                                            "repeated.", show_default=False)] = None,
            delta: Annotated[Path | None, typer.Option(metavar="FILE", help="Begin with this delta instead of the study's own.",
                                                       show_default=False)] = None,
            judge: JudgeNow = None,
            seed: Annotated[int | None, typer.Option(help="Other random draws than the usual ones.", show_default=False)] = None,
            device: DeviceNow = None, dtype: DtypeNow = None, set_: SettingsNow = None, dry_run: DryRun = False,
            debug: Debug = False) -> None:
    """Train the erased model further, on benign pictures or to forget more, and measure the concept after each round.

    Options and settings hold for this call; study.yaml stays as it is.
    """
    from hfi.cli.studies import open_study

    opened = open_study(study, changes(None, device, dtype, set_, persist__seed=seed, persist__rounds=rounds, evaluate__judge=judge))
    ways = [way for way, asked in (("full", full or not (lora or then)), ("lora", lora), ("then", bool(then))) if asked]
    if dry_run:
        from hfi.evaluation.attack_table import delta_file
        from hfi.evaluation.persistence import check_other

        delta_file(opened, delta)
        for other in then or []:
            check_other(other)
        show_plan(opened, ways, then or [])
        return
    with opened.lock():
        from hfi.evaluation.persistence import persist as measure
        from hfi.report.attacks import write_page

        curves = measure(opened, ways, delta, then or [])
        page = write_page(opened)
    show(curves)
    print(f"\nwritten: {', '.join(str(opened.path('persistence', f'{way}.json')) for way in ways)}, {page}")


def show_plan(study, ways: list[str], then: list[Path]) -> None:
    """Print how much is trained and drawn; nothing is loaded and nothing changed."""
    from hfi.cli.tables import _print, _table

    config, sampling = study.config.persist, study.config.evaluate
    table = _table(f"{study.root}: dry run, nothing is changed", "way", "would", "pictures", "UNet passes",
                   right=("pictures", "UNet passes"))
    for way in ways:
        points = 1 + (len(then) if way == "then" else config.rounds)
        pictures = 2 * config.prompts * points
        learning = 0 if way == "then" else config.rounds * config.steps * config.batch_size
        words = (f"erase {len(then)} more" if way == "then" else
                 f"{config.rounds} rounds of {config.steps} steps, batch {config.batch_size}, {'LoRA' if way == 'lora' else 'all weights'}")
        table.add_row(way, words, str(pictures), str(learning + pictures * sampling.steps * (1 if sampling.guidance_scale == 1 else 2)))
    _print(table)


def show(curves: list[dict]) -> None:
    """The curves on the terminal."""
    from hfi.cli.tables import _print, _share, _table

    for curve in curves:
        print(f"{curve['concept']}, {curve['way']}: shares with 95 % intervals, counted by a judge network ({curve['judge']}, simulated)")
        table = _table("", "", "draws the concept", "keeps the rest", "neither")
        for point in [curve["before"], *curve["points"]]:
            table.add_row(point["label"], _share(point["concept_rate"]), _share(point["retention"]), _share(point["neither"]))
        _print(table)
