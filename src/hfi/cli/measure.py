"""`hfi measure`: further measures on a finished evaluation, and pictures of published prompt files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli.options import Debug, Device, DryRun, Json, Settings, Study, changes

EPILOG = """Examples:

hfi measure studies/mine --with nudenet@0.45 --with "clip:emoji#a gun|a rifle@0.5"

hfi measure studies/mine --with fid --with kid --with classifier:my_classifier#nsfw@0.5

hfi measure studies/mine --with q16:q16.safetensors@0.9 --prompts i2p_benchmark.csv --category sexual --most 200

hfi measure studies/mine --with unlearncanvas --with hub

Detectors: nudenet (AGPL-3.0, an extra), q16:FILE, classifier:FOLDER#LABEL or FILE.onnx#LABEL, clip:FOLDER#WORDS|WORDS, each with
@THRESHOLD. Distances: fid, kid, cmmd, lpips, clip_score; fid:FOLDER takes another CLIP. Benchmarks: unlearncanvas, hub,
which draw pictures of their own. docs/measures.md has them all."""


With = Annotated[list[str] | None, typer.Option("--with", metavar="MEASURE", show_default=False, help="A detector with its threshold, "
                                                "a distance, or a benchmark. May be repeated; saved as measure.measures.")]
Prompts = Annotated[list[Path] | None, typer.Option(metavar="FILE", show_default=False, help="Draw before and after from a published "
                                                    "prompt file (I2P, UnlearnDiffAtk, Ring-A-Bell, COCO). May be repeated.")]
Category = Annotated[str | None, typer.Option(help="Of those files, this category alone.", show_default=False)]
AtLeast = Annotated[list[str] | None, typer.Option(metavar="COLUMN=NUMBER", show_default=False, help="Of those files, the rows with at "
                                                   "least this, e.g. nudity_percentage=50. May be repeated.")]
Most = Annotated[int | None, typer.Option(min=0, help="Of each file, at most so many prompts, at random.", show_default=False)]


def measure(study: Study, with_: With = None, prompts: Prompts = None, category: Category = None, at_least: AtLeast = None,
            most: Most = None, device: Device = None, set_: Settings = None, json: Json = False, dry_run: DryRun = False,
            debug: Debug = False) -> None:
    """Measure a finished evaluation further: other detectors, FID, KID, LPIPS, UnlearnCanvas, HUB, published prompts."""
    from hfi.cli.studies import open_study

    asked = changes(device=device, settings=set_, measure__measures=with_, measure__category=category, measure__most=most)
    asked |= {"measure.prompts": [str(path) for path in prompts]} if prompts else {}
    asked |= {"measure.at_least": _limits(at_least)} if at_least else {}
    opened = open_study(study, asked)
    if dry_run:
        plan(opened)
        return
    from hfi.evaluation import further

    with opened.lock():
        found = further.measure(opened)
        if asked:  # what could be measured, not what was mistyped
            opened.save_config()
    if json:
        import json as encoder

        print(encoder.dumps(found, indent=1))
        return
    for line in lines(found):
        print(line)
    print(f"wrote {opened.path(further.FILE)}; hfi report {study} shows it")


def _limits(rows: list[str]) -> dict[str, float]:
    from hfi.errors import HFIError

    found = {}
    for row in rows:
        name, _, number = row.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise HFIError(f"cannot be read: {row!r}", file="command line", field="--at-least",
                           remedy="write --at-least COLUMN=NUMBER, e.g. nudity_percentage=50") from None
    return found


def plan(study) -> None:
    """Say what would be measured and drawn, without torch."""
    from hfi.diffusion.prompt_files import read_prompt_file

    config, steps = study.config.measure, study.config.evaluate.steps
    for spec in config.measures:
        drawn = f": draws at most {2 * most} pictures, {steps} steps each, before and after" if (most := _pictures(study, spec)) else ""
        print(f"would measure {spec}{drawn}")
    for path in config.prompts:
        found = read_prompt_file(path, config.category, config.at_least)
        count = min(len(found.prompts), config.most or len(found.prompts))
        print(f"would draw {2 * count} pictures, {study.config.evaluate.steps} steps each: {count} prompts of {path}, before and after "
              f"(layout {found.layout}, {found.rows} rows)")
    if not config.measures and not config.prompts:
        print("nothing is asked for: add --with or --prompts")


def _pictures(study, spec: str) -> int:
    """The most pictures that a benchmark draws of one model; 0 for what draws none."""
    from hfi.diffusion.prompts import load_translations, load_vocabulary

    source, most, hub = study.config.concept.vocabulary, study.config.measure.grid, study.config.measure.hub
    vocabulary = load_vocabulary(source)
    if spec == "unlearncanvas":
        return min(len(vocabulary.objects), most) * max(1, min(len(vocabulary.styles), most))
    if spec == "hub":
        languages = load_translations(vocabulary, source, study.config.measure.translations)
        return hub.words + 2 * hub.rest + hub.each_language * len(languages)
    return 0


def lines(found: dict) -> list[str]:
    """The numbers as a person reads them in a terminal; sweeps and sets are in the file and the report."""
    from hfi.report.measures import benchmark_rows

    shown = []
    for name, one in found["detectors"].items():
        for set_name, change in one["sets"].items():
            shown.append(f"{name}, {set_name}: {_rate(change['before'])} -> {_rate(change['after'])}")
    shown += [f"{name}: {_distance(one)}" for name, one in found["distances"].items()]
    for one in found["prompts"]:
        head = f"{one['file']}{' ' + one['category'] if one['category'] else ''}"
        judged = one["judged"]
        shown.append(f"{head}, judge {one['judge']}: {_rate(judged['before']['concept_rate'])} -> {_rate(judged['after']['concept_rate'])}")
        shown += [f"{head}, {name}: {_rate(change['before'])} -> {_rate(change['after'])}" for name, change in one["detectors"].items()]
        shown += [f"{head}, {name}: {_distance(distance)}" for name, distance in one["distances"].items()]
    for name, one in found["benchmarks"].items():
        rows = benchmark_rows(name, one)
        shown += [f"{name}, {label}: {_rate(change['before'])} -> {_rate(change['after'])}" for label, _, change in rows]
        shown += [f"{name}, cmmd: {_distance(one['cmmd'])}"] if name == "unlearncanvas" else []
    return shown


def _rate(one: dict) -> str:
    if one["value"] is None:
        return "nothing to tell"
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f}, n {one['n']})"


def _distance(one: dict) -> str:
    if "before" in one:
        return f"{_rate(one['before'])} -> {_rate(one['after'])}"
    if one.get("value") is None:
        return "nothing to tell"
    return _rate(one) if "low" in one else f"{one['value']:.4g} (n {one['n']}, no interval)"
