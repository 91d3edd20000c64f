"""`hfi compare`: erasers side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Dtype, Seed, Settings, Study, changes

EPILOG = """Examples:

hfi compare studies/mine

hfi compare studies/mine --methods sdd,uce,sld --with words,tokens --quick 24

hfi compare studies/mine --methods esd --set erase.esd.steps=200 --set erase.esd.learning_rate=1e-4"""
METHODS = ("sdd", "esd", "uce", "ca", "sld", "negative_prompt", "hardened")
GIVEN = ("words", "tokens")


def compare(study: Study,
            methods: Annotated[str, typer.Option(metavar="A,B,...", help="The erasers, separated by commas; also hardened "
                                                 "(docs/erasers.md).")] = "negative_prompt,sld,uce,esd,ca,sdd",
            given: Annotated[str, typer.Option("--with", metavar="words,tokens", help="What they are told to erase.")] = "words,tokens",
            quick: Annotated[int, typer.Option(min=0, metavar="N", help="N pictures a prompt set, for a first look; 0: as many as "
                                               "the study's evaluation.")] = 0,
            seed: Seed = None, device: Device = None, dtype: Dtype = None, set_: Settings = None, dry_run: DryRun = False,
            debug: Debug = False) -> None:
    """Erase with several methods, told in words and by tokens, and write one page that compares them."""
    from hfi.cli.studies import check_settings, open_study
    from hfi.errors import HFIError

    chosen, told = _listed(methods, METHODS, "--methods"), _listed(given, GIVEN, "--with")
    opened = open_study(study, changes(seed, device, dtype, set_))  # settings hold for this page; study.yaml stays
    check_settings(opened.config)
    for stage in ("generate", "reward", "invert"):
        if not opened.is_done(stage):
            raise HFIError(f"'compare' needs '{stage}', which is not done under the present settings", file=study,
                           remedy=f"run 'hfi run {study}' first")
    if dry_run:
        for method in chosen:
            for one in told:
                print(f"{method}, {one}: would erase into {opened.path('compare', f'{method}-{one}')} and draw the evaluation's pictures")
        return
    from hfi.compare.compare import compare as do
    from hfi.diffusion.model import study_model

    with opened.lock():
        model = study_model(opened.config)
        print(f"compare: {do(model, opened, chosen, told, quick)} (simulated judge {opened.config.evaluate.judge})")


def _listed(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """The names between commas, each once; raises HFIError for one that is not known."""
    from hfi.errors import HFIError

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [text]:
        if name not in known:
            raise HFIError(f"no such choice: {name!r}", file="command line", field=option, remedy=f"choose from {', '.join(known)}")
    return names
