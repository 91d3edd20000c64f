"""The data recipe: fetch nine emoji sets, keep what we chose, render 64x64, hold pairs out.

    python -m training.emoji.data        # writes runs/data/ and src/hfi/emoji/catalogue.json, ATTRIBUTION.md

Packages come from npm by their ordinary client (`npm pack NAME@VERSION`) at pinned versions
and are kept in runs/npm. Pictures are rendered on white with a margin of four pixels on each
side, so that a shift by two loses nothing. Result, `runs/data/`:

- `pictures.npy` uint8 (N, 64, 64, 3): one render per (style, object)
- `pairs.json`  list of N [style, object]
- `extra.npy`   uint8 (M, 64, 64, 3): other icons of the same sets, never shown by name: the autoencoder
  sees them for generalisation, CLIP and UNet as examples of their style ("a mammal in the style
  of noto"). No held-out pair is among them: other objects only
- `extra.json`  list of M [style, kind of thing], the kind from emojibase's subgroups
"""

import io
import json
import random
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from . import choice, exclude

HERE = Path(__file__).parent
RUNS = HERE / "runs"
SHIPPED = HERE.parents[1] / "src" / "hfi" / "emoji"
SIZE = 64  # pixels
MARGIN = 4  # pixels of white on each side
NOT_OBJECTS = {"flags", "component"}


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def fetch(name: str, version: str) -> Path:
    """The tarball of one npm package, from runs/npm if it is there already."""
    folder = RUNS / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return path


def read_member(tarball: Path, member: str):
    """JSON of one file inside an npm tarball."""
    with tarfile.open(tarball) as archive:
        return json.load(archive.extractfile(f"package/{member}"))


def slug(label: str) -> str:
    """CLDR label -> icon name ("Jack-O-Lantern" -> "jack-o-lantern")."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("'", "")).strip("-")


def read_names() -> dict[str, dict]:
    """emojibase: icon name -> {"group", "subgroup", "tags", "hints"}, without flags and components."""
    tarball = fetch(*choice.EMOJIBASE)
    levels = read_member(tarball, "meta/groups.json")
    names = {}
    for entry in read_member(tarball, "en/data.json"):
        group = levels["groups"].get(str(entry.get("group")))
        if group and group not in NOT_OBJECTS:
            names[slug(entry["label"])] = {
                "group": group,
                "subgroup": levels["subgroups"][str(entry["subgroup"])],
                "tags": [tag.lower() for tag in entry.get("tags", [])],
            }
    # The CLDR name changed with the picture: emojibase knows the water pistol only.
    names["pistol"] = {"group": "objects", "subgroup": "tool", "tags": ["gun", "handgun", "revolver", "weapon"]}
    names["water-pistol"] = {"group": "activities", "subgroup": "game", "tags": ["toy", "water", "squirt", "play"]}
    for name, entry in names.items():
        tags = [tag for tag in entry["tags"] if tag not in choice.NOT_TAGS.get(name, ())]
        tags += [tag for tag in choice.TAGS.get(name, "").split(", ") if tag and tag not in tags]
        entry |= {"tags": tags, "hints": hints(name, tags)}
    return names


def hints(name: str, tags: list[str]) -> list[str]:
    """The keywords that do not give the name away: what an implicit prompt may say."""
    stems = [word.rstrip("s") for word in name.split("-") if word not in {"and", "of", "with", "without", "on", "in"}]
    return [tag for tag in tags if not any((len(stem) > 2 and stem in tag) or (len(tag) > 3 and tag in stem) for stem in stems)]


def kind(subgroup: str) -> str:
    """emojibase's subgroup as a word for a caption ("animal-mammal" -> "mammal", "other-object" -> "thing")."""
    words = subgroup.removeprefix("other-").replace("object", "thing")
    for prefix in ("animal-", "food-", "place-", "transport-"):
        words = words.removeprefix(prefix)
    odd = {"prepared": "food", "asian": "food", "ground": "vehicle", "air": "aircraft", "water": "boat", "marine": "sea animal"}
    odd |= {
        "other": "place",
        "sky-weather": "sky",
        "plant-other": "plant",
        "plant-flower": "flower",
        "light-video": "lamp",
        "book-paper": "paper",
    }
    odd |= {"geographic": "landscape", "award-medal": "medal", "arts-crafts": "art", "religious": "building"}
    return odd.get(words, words.replace("-", " "))


def read_icons(style: str) -> tuple[dict, float, float]:
    """One set: icon name -> SVG body, and the set's default width and height (SVG units)."""
    package, version = choice.STYLES[style][:2]
    icons = read_member(fetch(f"@iconify-json/{package}", version), "icons.json")
    return icons["icons"], icons.get("width", 16), icons.get("height", 16)


def icon_name(style: str, name: str) -> str:
    """How `style` spells the CLDR name `name` (fxemoji: no dashes, some names of its own)."""
    name = choice.ALIASES.get(style, {}).get(name, name)
    return name.replace("-", "") if style == "fxemoji" else name


def render(icon: dict, width: float, height: float) -> np.ndarray:
    """One icon on white, uint8 (64, 64, 3)."""
    import resvg_py

    width, height = icon.get("width", width), icon.get("height", height)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    inner = SIZE - 2 * MARGIN
    scale = inner / max(width, height)
    for oversampling in (1, 3, 5):
        # resvg 0.48 panics on some filters at some sizes (index out of bounds): then draw larger and shrink
        try:
            png = resvg_py.svg_to_bytes(
                svg_string=svg, width=round(width * scale) * oversampling, height=round(height * scale) * oversampling
            )
            break
        except BaseException as error:
            if type(error).__name__ != "PanicException" or oversampling == 5:
                raise
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", (SIZE * oversampling,) * 2, "white")
    canvas.alpha_composite(picture, tuple((whole - part) // 2 for whole, part in zip(canvas.size, picture.size, strict=True)))
    return np.asarray(canvas.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX))


def hold_out(pairs: list[tuple[str, str]], share: float, seed: int) -> list[tuple[str, str]]:
    """A seeded share of the pairs; an object loses at most two styles and keeps at least three."""
    left = {}
    for _, thing in pairs:
        left[thing] = left.get(thing, 0) + 1
    taken, lost = [], {}
    shuffled = sorted(pairs)
    random.Random(seed).shuffle(shuffled)
    for style, thing in shuffled:
        if len(taken) >= round(share * len(pairs)):
            break
        if lost.get(thing, 0) < 2 and left[thing] > 3:
            taken.append((style, thing))
            lost[thing] = lost.get(thing, 0) + 1
            left[thing] -= 1
    return sorted(taken)


def pick_icons(style: str, icons: dict, names: dict[str, dict]) -> tuple[dict[str, str], dict[str, str]]:
    """({name: its key in the set}) of the chosen objects and of the other icons, in the order of the files."""
    keys = {name: icon_name(style, name) for name in choice.OBJECTS if name not in choice.SKIP.get(style, ())}
    objects = {name: key for name, key in keys.items() if key in icons}
    extra, used = {}, set(objects.values())
    for name, entry in names.items():
        key = icon_name(style, name)
        # people, symbols and clock faces come in dozens of near copies: no use to the autoencoder
        plain = entry["group"] in {"animals-nature", "food-drink", "travel-places", "activities", "objects"}
        if plain and entry["subgroup"] != "time" and key in icons and key not in used and name not in choice.OBJECTS:
            extra[name] = key
            used.add(key)
    return objects, extra


def build() -> None:
    """Run the whole recipe and write what it makes."""
    from rich.progress import track

    names = read_names()
    chosen = {name: names[name] for name in choice.OBJECTS}
    pictures, pairs, extra, kinds = [], [], [], []
    for style in track(choice.STYLES, description="rendering"):
        icons, width, height = read_icons(style)
        objects, others = pick_icons(style, icons, names)
        pictures += [render(icons[key], width, height) for key in objects.values()]
        pairs += [(style, name.replace("-", " ")) for name in objects]
        extra += [render(icons[key], width, height) for key in others.values()]
        kinds += [(style, kind(names[name]["subgroup"])) for name in others]
    held_out = hold_out(pairs, choice.HELD_OUT_SHARE, choice.SEED)
    folder = RUNS / "data"
    for name, array in [("pictures", pictures), ("extra", extra)]:
        buffer = io.BytesIO()
        np.save(buffer, np.stack(array))
        write_atomically(folder / f"{name}.npy", buffer.getvalue())
    write_atomically(folder / "pairs.json", json.dumps(pairs).encode())
    write_atomically(folder / "extra.json", json.dumps(kinds).encode())
    write_catalogue(chosen, pairs, held_out)
    print(f"{len(pictures)} pictures of {len(chosen)} objects, {len(held_out)} pairs held out, {len(extra)} extra")


def write_catalogue(chosen: dict, pairs: list, held_out: list) -> None:
    """catalogue.json and ATTRIBUTION.md, which travel with the weights."""
    concepts = {}
    for name, concept in choice.CONCEPTS.items():
        concepts[name] = {key: concept[key] for key in ("kind", "words", "members", "neighbours")}
    catalogue = {
        "styles": {
            style: dict(zip(("package", "version", "artist", "licence", "look"), row, strict=True)) for style, row in choice.STYLES.items()
        },
        "objects": [
            {"name": name.replace("-", " "), **entry, "styles": [style for style, thing in pairs if thing == name.replace("-", " ")]}
            for name, entry in chosen.items()
        ],
        "held_out": [list(pair) for pair in held_out],
        "concepts": concepts,
    }
    write_atomically(SHIPPED / "catalogue.json", (json.dumps(catalogue, indent=1, ensure_ascii=False) + "\n").encode())
    lines = [
        "# Attribution",
        "",
        "The weights in this folder were trained on renders of these icon sets, fetched as the npm packages",
        "`@iconify-json/NAME`. The pictures themselves are not shipped, apart from the small grids in this folder. "
        "Changes: rendered at 64x64 on white.",
        "",
        "| style in captions | package | version | artist | licence |",
        "|---|---|---|---|---|",
    ]
    links = {
        "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
        "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
        "MIT": "https://opensource.org/license/mit",
    }
    for style, (package, version, artist, licence, _) in choice.STYLES.items():
        info = read_member(fetch(f"@iconify-json/{package}", version), "info.json")
        lines.append(
            f"| {style} | @iconify-json/{package} | {version} | [{artist}]({info['author']['url']}) | [{licence}]({links[licence]}) |"
        )
    lines += [
        "",
        f"Names and keywords: {choice.EMOJIBASE[0]} {choice.EMOJIBASE[1]} (MIT, Miles Johnson), from Unicode CLDR (Unicode License v3).",
        "",
    ]
    write_atomically(SHIPPED / "ATTRIBUTION.md", "\n".join(lines).encode())


def load_pictures(catalogue: dict | None = None) -> tuple[np.ndarray, list[tuple[str, str]], np.ndarray]:
    """(pictures uint8 (N, 64, 64, 3), pairs, training mask bool (N,): False where held out), those that `catalogue` has."""
    catalogue = catalogue or load_catalogue()
    known = {(style, entry["name"]) for entry in catalogue["objects"] for style in entry["styles"]}
    pairs = [tuple(pair) for pair in json.loads((RUNS / "data" / "pairs.json").read_text())]
    keep = np.array([pair in known for pair in pairs])
    pairs = [pair for pair in pairs if pair in known]
    held_out = {tuple(pair) for pair in catalogue["held_out"]}
    return np.load(RUNS / "data" / "pictures.npy")[keep], pairs, np.array([pair not in held_out for pair in pairs])


def load_extra(catalogue: dict | None = None) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(pictures uint8 (M, 64, 64, 3), their [style, kind of thing]) of the icons that are no object of ours.

    With a catalogue that leaves something out (exclude.py), without the styles and the icons that it leaves out.
    """
    folder = RUNS / "data"
    pictures, kinds = np.load(folder / "extra.npy"), [tuple(row) for row in json.loads((folder / "extra.json").read_text())]
    if catalogue is None or "phrases" not in catalogue:
        return pictures, kinds
    names = read_names()
    rows = [(style, name) for style in choice.STYLES for name in pick_icons(style, read_icons(style)[0], names)[1]]
    keep = np.array([exclude.keeps_icon(catalogue, style, name, names[name]["tags"]) for style, name in rows])
    return pictures[keep], [row for row, kept in zip(kinds, keep, strict=True) if kept]


def load_catalogue(leave_out: Iterable[str] = ()) -> dict:
    """The shipped catalogue (see src/hfi/emoji/__init__.py for its shape), without the concepts and styles `leave_out`."""
    return exclude.without(json.loads((SHIPPED / "catalogue.json").read_text()), leave_out)


if __name__ == "__main__":
    build()
