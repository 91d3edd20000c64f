"""Captions: what a picture is called, in as many ways as people type.

`draw(style, thing, rng)` makes one caption and says what it is true of, so that contrastive
training knows every picture in the batch that the caption fits, not only its own.
"""

import random
from dataclasses import dataclass

from . import data


@dataclass(frozen=True)
class Caption:
    text: str
    things: frozenset[str] | None  # object names it is true of; None: all
    style: str | None  # None: any


NAMED = (
    "{a}",
    "{name}",
    "a picture of {a}",
    "an emoji of {a}",
    "drawing of {name}",
    "an icon of {a}",
    "an image of {a}",
    "{name} emoji",
    "a drawing of {a}",
)
STYLED = (
    "{a} in the style of {style}",
    "{name} in the style of {style}",
    "{style} {name}",
    "a picture of {a} in the style of {style}",
    "{a}, {style}",
    "{name}, {style} style",
    "an emoji of {a} in the style of {style}",
    "{a} by {style}",
)
STYLE_ONLY = (
    "a picture in the style of {style}",
    "an emoji in the style of {style}",
    "{style}",
    "{style} style",
    "in the style of {style}",
)

#: share of each kind of caption while the UNet trains (the empty caption is for guidance)
SHARES = {
    "empty": 0.10,
    "styled": 0.39,
    "named": 0.10,
    "tagged": 0.08,
    "tags": 0.08,
    "tags styled": 0.06,
    "concept": 0.04,
    "concept styled": 0.05,
    "style": 0.04,
    "typo": 0.06,
}


def article(name: str) -> str:
    """ "rocket" -> "a rocket"; plurals and mass nouns stay as they are."""
    if name.endswith("s") and not name.endswith(("ss", "clus", "us")) or name in {"bread", "sushi", "cooking", "fire", "santa claus"}:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def misspell(name: str, rng: random.Random) -> str:
    """One letter of one word of four or more letters dropped, doubled or swapped with the next."""
    words = name.split()
    long = [i for i, word in enumerate(words) if len(word) >= 4]
    if not long:
        return name
    i = rng.choice(long)
    word = words[i]
    at = rng.randrange(1, len(word) - 1)
    words[i] = rng.choice(
        (word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    )
    return " ".join(words)


class Captions:
    """Draws captions for the catalogue's pictures."""

    def __init__(self, catalogue: dict | None = None):
        catalogue = catalogue or data.load_catalogue()
        # "hints": keywords without the name, for an implicit prompt has to be implicit
        self.tags = {entry["name"]: entry["hints"] for entry in catalogue["objects"]}
        self.styles = list(catalogue["styles"])
        self.kinds = {}  # kind of thing -> the catalogue's objects of that kind
        for entry in catalogue["objects"]:
            self.kinds.setdefault(data.kind(entry["subgroup"]), set()).add(entry["name"])
        self.concepts = {}
        for concept in catalogue["concepts"].values():
            for name in concept["members"]:
                self.concepts.setdefault(name, []).append((concept["words"], frozenset(concept["members"])))

    def some_tags(self, thing: str, rng: random.Random) -> str:
        """One to four keywords of the object, name left out; "" if it has none."""
        tags = self.tags[thing]
        return ", ".join(rng.sample(tags, min(len(tags), rng.randint(1, 4))))

    def draw(self, style: str, thing: str, rng: random.Random, empty: bool = True) -> Caption:
        """One caption of the picture (style, thing); `empty=False` leaves the empty caption out."""
        kinds = [k for k in SHARES if (empty or k != "empty") and (thing in self.concepts or not k.startswith("concept"))]
        kind = rng.choices(kinds, [SHARES[k] for k in kinds])[0]
        only, tags = frozenset([thing]), self.some_tags(thing, rng)
        if kind.startswith("tag") and not tags:
            kind = "styled"
        ending = rng.choice((" in the style of {style}", " in the style of {style}", ", {style}")).format(style=style)
        match kind:
            case "empty":
                return Caption("", None, None)
            case "style":
                return Caption(rng.choice(STYLE_ONLY).format(style=style), None, style)
            case "tagged":
                styled = rng.random() < 0.5
                return Caption(f"{thing}, {tags}" + ending * styled, only, style if styled else None)
            case "tags":
                return Caption(tags, only, None)
            case "tags styled":
                return Caption(tags + ending, only, style)
            case "concept" | "concept styled":
                words, members = rng.choice(self.concepts[thing])
                word = rng.choice(words)
                word = rng.choice(
                    (word, f"a {word}" if not word.startswith("a") and not word.endswith("s") else word, f"a picture of {word}")
                )
                return Caption(word + ending, members, style) if kind == "concept styled" else Caption(word, members, None)
            case "typo":
                thing = misspell(thing, rng)
        styled = kind == "styled" or (kind == "typo" and rng.random() < 0.6)
        template = rng.choices(STYLED, [5, 2, 2, 1, 1, 1, 1, 1])[0] if styled else rng.choice(NAMED)
        return Caption(template.format(a=article(thing), name=thing, style=style), only, style if styled else None)

    def draw_kind(self, style: str, kind: str, rng: random.Random) -> Caption:
        """One caption of an icon that is no object of ours: what kind of thing it is, in its style.

        Never the style alone: a prompt that names no object, or nothing, is to draw objects that a judge knows.
        """
        template = rng.choices(STYLED, [5, 2, 2, 1, 1, 1, 1, 1])[0]
        return Caption(template.format(a=article(kind), name=kind, style=style), frozenset([kind, *self.kinds.get(kind, ())]), style)

    def corpus(self) -> list[str]:
        """Words for the tokenizer: every name, keyword, style and template."""
        words = [*self.tags, *(t for tags in self.tags.values() for t in tags), *self.styles]
        words += [w for rows in self.concepts.values() for ws, _ in rows for w in ws]
        filler = [t.format(a="a", name="", style="") for t in (*NAMED, *STYLED, *STYLE_ONLY)]
        return words + filler * 20
