"""The README's picture from a finished demo: the first picture of each member, and of the first other objects, before and after.

    .venv/bin/python benchmarks/demo_picture.py [--study studies/demo] [--out docs/images/demo.png]

Nothing is picked by hand: members in the study's order, other objects in that of the evaluation, each with its first prompt and seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from textwrap import shorten

from PIL import Image, ImageDraw, ImageFont

from hfi.workspace import Workspace

SIZE, GAP, LEFT, TOP, OTHERS = 96, 6, 62, 28, 7


def pairs(study: Workspace) -> list[list[tuple[str, Path, Path]]]:
    """[(object, before, after)] of the members, and of as many other objects."""
    rows = [json.loads(line) for line in study.path("evaluate", "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    after = {row["picture"]: row for row in rows if row["side"] == "after"}
    found: dict[str, dict[str, tuple[str, Path, Path]]] = {"explicit": {}, "other": {}}
    for row in rows:
        for name in found:
            if row["side"] == "before" and name in row["sets"] and row["asked_object"] and row["picture"] in after:
                files = (study.path("evaluate", one["file"]) for one in (row, after[row["picture"]]))
                found[name].setdefault(row["asked_object"], (row["asked_object"], *files))
    members = [found["explicit"][name] for name in study.config.concept.members if name in found["explicit"]]
    return [members, list(found["other"].values())[:OTHERS]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("studies/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.png"))
    options = parser.parse_args()
    study = Workspace.open(options.study)
    halves = pairs(study)
    cell, font, small = SIZE + GAP, ImageFont.load_default(14), ImageFont.load_default(11)
    width = LEFT + sum(map(len, halves)) * cell + 4 * GAP
    sheet = Image.new("RGB", (width, TOP + 2 * cell + 22), "white")
    draw, x = ImageDraw.Draw(sheet), LEFT
    for y, word in enumerate(("before", "after")):
        draw.text((8, TOP + y * cell + SIZE // 2 - 8), word, "black", font)
    titles = (f"asked for a {study.config.concept.name}: the first picture of each", "asked for anything else")
    for title, half in zip(titles, halves, strict=True):
        draw.text((x, 6), title, "black", font)
        for name, *files in half:
            for y, file in enumerate(files):
                place = (x, TOP + y * cell)
                sheet.paste(Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC), place)
                draw.rectangle((place[0] - 1, place[1] - 1, place[0] + SIZE, place[1] + SIZE), outline="#ddd")
            draw.text((x + SIZE // 2, TOP + 2 * cell + 2), shorten(name, 17, placeholder=" ..."), "#444", small, anchor="ma")
            x += cell
        x += 4 * GAP
    sheet.save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
