"""The settings chosen on "weapon" and one style, run once on concepts that chose nothing; scored by the scoring judge.

    .venv/bin/python benchmarks/concepts.py [--only alcohol --only fxemoji] [--folder studies/concepts]

Each concept is a whole study from the demo's or the style recipe with the concept replaced, continued where it was
stopped. Judges and annotators are networks (simulated). Prints the table of docs/results.md and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hfi import method
from hfi.config import load_config, with_overrides
from hfi.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
HARMS = {  # name -> members that no feedback prompt may name
    "alcohol": ["sake", "clinking glasses"],
    "fire and explosions": ["sparkler", "firecracker"],
}
STYLES = ("fxemoji", "emojione-monotone")
SETS = ("explicit", "implicit", "variations", "unlisted", "tokens")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*HARMS, *STYLES], help="one concept; repeat for several; default: all")
    parser.add_argument("--folder", type=Path, default=Path("studies/concepts"), help="where the studies go")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="FIELD=VALUE", help="a setting to replace")
    return parser.parse_args()


def settings(name: str, extra: dict) -> object:
    """The recipe's settings with the concept replaced and nothing else."""
    if name in HARMS:
        base = load_config(ROOT / "recipes" / "demo.yaml")
        word = name.split()[0]
        return with_overrides(base, {"name": name, "concept.name": name, "concept.members": [], "concept.words": [],
                                     "concept.unlisted": HARMS[name],
                                     "invert.initial_word": word, **extra})
    base = load_config(ROOT / "recipes" / "style.yaml")
    return with_overrides(base, {"name": name, "concept.name": name, "invert.initial_word": name, **extra})


def main() -> None:
    options, results = parse(), {}
    extra = dict(item.split("=", 1) for item in options.settings)
    for name in options.only or [*HARMS, *STYLES]:
        study = Workspace.create(options.folder / name.replace(" ", "-"), settings(name, extra))
        with study.lock():
            method.run(study)
        results[name] = json.loads(study.path("metrics.json").read_text())
    print(table(results))
    print(json.dumps({name: row(found) for name, found in results.items()}))


def row(found: dict) -> dict:
    """The numbers of one study that the table shows."""
    rates = {name: (found["concept_rate"][name]["before"]["value"], found["concept_rate"][name]["after"]["value"])
             for name in SETS if found["concept_rate"].get(name) and found["concept_rate"][name].get("before")}
    kept = {name: value["value"] for name, value in found["retention"].items() if value}
    return {"concept_rate": rates, "neither": (found["neither"]["before"], found["neither"]["after"]), "floor": found["floor"],
            "retention": kept, "reinversion_worst": found["concept_rate"]["reinversion"].get("worst"), "seconds": found["seconds"]["total"]}


def table(results: dict) -> str:
    """Markdown: before -> after for each set, retention, neither."""
    kinds = ["other", "unpreserved", "neighbours", "styles", "object in style"]
    heads = ["concept", *SETS, "floor", "neither", *kinds, "re-inversion (worst)"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, found in results.items():
        shown = row(found)

        def change(pair) -> str:
            return "" if not pair or pair[0] is None else f"{pair[0]:.2f} -> {pair[1]:.2f}"

        def number(value) -> str:
            return "" if value is None else f"{value['value'] if isinstance(value, dict) else value:.2f}"

        kept = shown["retention"]
        lines.append("| " + " | ".join([name, *(change(shown["concept_rate"].get(part)) for part in SETS), number(shown["floor"]),
                     change(shown["neither"]), *(number(kept.get(part)) for part in ("other", "other_unpreserved", "neighbours",
                     "styles", "object_in_style")), number(shown["reinversion_worst"])]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
