"""`hfi compare`: erasers side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, DeviceNow, DryRun, DtypeNow, SettingsNow, Study, changes

EPILOG = """Examples:

hfi compare studies/mine

hfi compare studies/mine --methods sdd,uce,sld --with words,tokens --quick 24

hfi compare studies/mine --methods sdd,uce --strengths 0.5,1,1.5,2

hfi compare studies/mine --together studies/other --together studies/third

hfi compare studies/mine --methods esd --set erase.esd.steps=200 --set erase.esd.learning_rate=1e-4"""
METHODS = ("sdd", "esd", "uce", "ca", "sld", "negative_prompt", "hardened")
GIVEN = ("words", "tokens")


def compare(study: Study,
            methods: Annotated[str, typer.Option(metavar="A,B,...", help="The erasers, separated by commas; also hardened "
                                                 "(docs/erasers.md).")] = "negative_prompt,sld,uce,esd,ca,sdd",
            given: Annotated[str, typer.Option("--with", metavar="words,tokens", help="What they are told to erase.")] = "words,tokens",
            quick: Annotated[int, typer.Option(min=0, metavar="N", help="N pictures a prompt set, for a first look; 0: as many as "
                                               "the study's evaluation.")] = 0,
            strengths: Annotated[str | None, typer.Option(metavar="S,S,...", help="Put each erasure on at these strengths, too (up to 2), "
                                                          "and compare where each still keeps 0.95 of the rest.",
                                                          show_default=False)] = None,
            together: Annotated[list[Path] | None, typer.Option(metavar="STUDY", help="Another study whose comparison is done: means and "
                                                                "tests over all of them. May be repeated.", show_default=False)] = None,
            seed: Annotated[int | None, typer.Option(help="Erase and draw with other random draws than the study's.",
                                                     show_default=False)] = None,
            device: DeviceNow = None, dtype: DtypeNow = None, set_: SettingsNow = None, dry_run: DryRun = False,
            debug: Debug = False) -> None:
    """Erase with several methods, told in words and by tokens, and write one page that compares them.

    Options and settings hold for this call; study.yaml stays as it is.
    """
    from hfi.cli.studies import check_settings, open_study
    from hfi.errors import HFIError
    from hfi.workspace import Workspace

    chosen, told = _listed(methods, METHODS, "--methods"), _listed(given, GIVEN, "--with")
    levels, studies = _strengths(strengths), [open_study(other, {}) for other in together or ()]
    roots = [one.root.resolve() for one in studies]
    if len({*roots, Path(study).resolve()}) <= len(roots):
        raise HFIError("names a study twice", file="command line", field="--together", remedy="name each other study once")
    opened = open_study(study, changes(None, device, dtype, set_))
    check_settings(opened.config)
    for stage in ("generate", "reward", "invert"):
        if not opened.is_done(stage):
            raise HFIError(f"'compare' needs '{stage}', which is not done under the present settings", file=study,
                           remedy=f"run 'hfi run {study}' first")
    if seed is not None:  # after the check: the stages that it reads are the study's own
        opened = Workspace(opened.root, opened.config.model_copy(update={"seed": seed}))
    if dry_run:
        for method in chosen:
            for one in told:
                at = f" at strength {', '.join(f'{level:g}' for level in sorted({1.0, *levels}))}" if levels else ""
                folder = opened.path("compare", f"{method}-{one}")
                print(f"{method}, {one}: would erase into {folder} and draw the evaluation's pictures{at}")
        if studies:
            from hfi.compare.together import read_comparison

            for one in studies:
                read_comparison(one)
            print(f"would take together: {', '.join(map(str, [study, *(one.root for one in studies)]))}")
        return
    from hfi.compare.compare import compare as do
    from hfi.diffusion.model import study_model

    with opened.lock():
        model = study_model(opened.config)
        print(f"compare: {do(model, opened, chosen, told, quick, levels, studies)} (simulated judge {opened.config.evaluate.judge})")


def _strengths(text: str | None) -> list[float]:
    """The numbers between commas; raises HFIError for one that no delta may be put on at."""
    from hfi.erasure.strength import check_strength
    from hfi.errors import HFIError

    try:
        values = [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise HFIError(f"{text!r} holds no numbers", file="command line", field="--strengths", remedy="write e.g. 0.5,1,1.5,2") from None
    return [check_strength(value, "command line", "--strengths") for value in values if value]


def _listed(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """The names between commas, each once; raises HFIError for one that is not known."""
    from hfi.errors import HFIError

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [text]:
        if name not in known:
            raise HFIError(f"no such choice: {name!r}", file="command line", field=option, remedy=f"choose from {', '.join(known)}")
    return names
