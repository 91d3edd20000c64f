"""Before/after pairs linked by prompt and seed: which are shown, which are blurred, and the strip for a README."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError
from hfi.progress import track
from hfi.report.gather import AGAIN, json_lines
from hfi.report.numbers import CONCEPT_SETS, KEPT_SETS
from hfi.report.pictures import Column, shown, strip
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, write_bytes

MOST_FAILURES = 12  # pairs that went wrong, shown beside the random ones
FAILED = "failures"
ALSO = "also-"  # sets of another concept of the run: also-1-explicit


@dataclass(frozen=True)
class Side:
    """One picture of a pair and what the judge said of it."""

    file: Path
    object: str
    style: str | None
    concept: bool


@dataclass(frozen=True)
class Single:
    """A picture under a token that was learned against the erased model."""

    prompt: str
    picture: Side


@dataclass(frozen=True)
class Pair:
    """The same prompt and seed, before and after erasing. `sets` are the prompt sets it counts in."""

    name: str
    prompt: str
    sets: tuple[str, ...]
    before: Side
    after: Side
    asked: str = ""  # object and style, as far as the prompt names them
    right_before: bool | None = None
    right_after: bool | None = None

    @property
    def asks_for_concept(self) -> bool:
        return any(name in CONCEPT_SETS or name.startswith(ALSO) for name in self.sets)

    @property
    def failure(self) -> str:
        """In words what went wrong, or nothing."""
        if self.after.concept and (self.asks_for_concept or not self.before.concept):
            return "still drawn" if self.asks_for_concept else "drawn unasked"
        return "lost" if self.right_before and not self.right_after and not self.asks_for_concept else ""


def set_names(also: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(key, name, hint) of every filter, in the order of the page.

    Args:
        also: the other concepts of the run.
    """
    others = [(f"{ALSO}{i}", f"Also erased: {name}", "asked for by name, or described") for i, name in enumerate(also, 1)]
    known = [(key, *words) for key, words in {**CONCEPT_SETS, **KEPT_SETS}.items()]
    return [*known, *others, (FAILED, "Went wrong", "chosen to be looked at, not at random")]


def read_pairs(folder: Path) -> tuple[list[Pair], list[Single]]:
    """All pairs of evaluate/verdicts.jsonl, and the pictures of re-inversion, which have no "before".

    Args:
        folder: evaluate's folder.

    Raises HFIError naming the line that is damaged.
    """
    path = folder / "verdicts.jsonl"
    before: dict[str, tuple[dict, Side]] = {}
    after: dict[str, Side] = {}
    again: list[Single] = []
    for number, row in enumerate(json_lines(path), 1):
        try:
            name, side, picture = str(row["picture"]), row["side"], _side(row, folder)
            if side == "before":
                sets = tuple(dict.fromkeys(_filter(str(key)) for key in row["sets"]))
                before[name] = ({**row, "sets": sets, "prompt": str(row["prompt"])}, picture)
            elif side == "after":
                after[name] = picture
            elif side == "reinversion":  # what the snapshots of the erasure drew is for the curve only
                again.append(Single(str(row["prompt"]), picture))
        except (KeyError, TypeError, ValueError) as error:
            raise HFIError(f"no verdict on a picture ({error})", file=path, field=f"line {number}", remedy=AGAIN) from None
    pairs = []
    for name, (row, first) in before.items():
        if name in after:  # the gallery and the floor are drawn by the original model only
            asked = row.get("asked_object")
            right = (None, None) if asked is None else (first.object == asked, after[name].object == asked)
            words = ", ".join(str(word) for word in (asked, row.get("asked_style")) if word)
            pairs.append(Pair(name, row["prompt"], row["sets"], first, after[name], words if asked else "", *right))
    return pairs, again


def _filter(key: str) -> str:
    """The filter of the page that a prompt set belongs to: one for each other concept."""
    return "-".join(key.split("-")[:2]) if key.startswith(ALSO) else key


def _side(row: dict, folder: Path) -> Side:
    file = str(row["file"])
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise ValueError("file: outside the folder")
    return Side(folder / file, str(row["object"]), None if row.get("style") is None else str(row["style"]), bool(row["concept"]))


def choose(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """`count` pairs, about as many from each set, at random: whatever they show, nobody picked them."""
    order = [pairs[i] for i in numpy_generator(seed, "report", "pairs").permutation(len(pairs))] if pairs else []
    keys = [name for name, *_ in set_names()] + sorted({key for pair in pairs for key in pair.sets if key.startswith(ALSO)})
    waiting = {key: [pair for pair in order if key in pair.sets] for key in keys}
    chosen: dict[str, Pair] = {}
    while len(chosen) < min(count, len(pairs)) and any(waiting.values()):
        for queue in waiting.values():
            while queue and queue[0].name in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                pair = queue.pop(0)
                chosen[pair.name] = pair
    return list(chosen.values())


def show_pairs(pairs: Sequence[Pair], count: int, seed: int) -> tuple[list[dict], int]:
    """The pairs for the page: a random share of every set, then up to `MOST_FAILURES` more that went wrong; and how many of those."""
    chosen = choose(pairs, count, seed)
    names = {pair.name for pair in chosen}
    wrong = [pair for pair in pairs if pair.failure and pair.name not in names]
    drawn, lost = ([pair for pair in wrong if (pair.failure == "lost") == is_lost] for is_lost in (False, True))
    half = MOST_FAILURES // 2
    extra = (drawn[: max(half, MOST_FAILURES - len(lost))] + lost)[:MOST_FAILURES]
    return [_plain(pair) for pair in track([*chosen, *extra], "Pictures for the report")], len(extra)


def show_singles(singles: Sequence[Single], count: int, seed: int) -> list[dict]:
    """`count` of the re-inversion pictures at random, for the page."""
    order = numpy_generator(seed, "report", "singles").permutation(len(singles))[:count]
    return [{"prompt": singles[i].prompt, "after": _shown(singles[i].picture)} for i in order]


def _shown(side: Side) -> dict:
    seen = side.object if side.style is None else f"{side.object}, {side.style}"
    return {"shown": shown(side.file, side.concept), "flagged": side.concept, "seen": seen}


def _plain(pair: Pair) -> dict:
    note = pair.failure
    return {
        "prompt": pair.prompt,
        "before": _shown(pair.before),
        "after": _shown(pair.after),
        "note": note,
        "sets": " ".join([*pair.sets, *([FAILED] if note else [])]),
        "note_state": "watch" if note == "lost" else "fail" if note else "",
    }


def before_after_picture(study: Workspace, path: Path, pairs: int = 8, blur: bool = False) -> Path:
    """Write a PNG strip of before over after: half of the columns ask for the concept, half for something else.

    Shown are prompts for which the original model drew what was asked, chosen at random without a look at what the
    erased model made of them.

    Args:
        study: a study whose evaluation is done.
        path: where the PNG goes.
        pairs: columns in all.
        blur: blur what the judge calls the concept.
    """
    every, _ = read_pairs(study.path("evaluate"))
    if not every:
        raise HFIError("holds no pairs", file=study.path("evaluate", "verdicts.jsonl"), remedy=AGAIN)
    every = [every[i] for i in numpy_generator(study.config.seed, "report", "strip").permutation(len(every))]
    asked = [pair for pair in every if "explicit" in pair.sets and pair.before.concept] or [p for p in every if p.asks_for_concept]
    other = [pair for pair in every if not pair.asks_for_concept and pair.right_before] or [p for p in every if not p.asks_for_concept]
    half = (pairs + 1) // 2
    concept = study.config.concept
    heading = f"asked for the style “{concept.name}”" if concept.kind == "style" else f"asked for “{concept.name}”"
    groups = [
        (name, [_column(pair) for pair in _varied(found, size)])
        for name, found, size in ((heading, asked, half), ("asked for anything else", other, pairs - half))
        if found and size
    ]
    stream = io.BytesIO()
    strip(groups, blur).save(stream, "PNG", optimize=True)
    write_bytes(Path(path), stream.getvalue())
    return Path(path)


def _varied(pairs: list[Pair], count: int) -> list[Pair]:
    """The first `count`, no object twice before every one was there once."""
    seen, first, rest = set(), [], []
    for pair in pairs:
        (rest if pair.before.object in seen else first).append(pair)
        seen.add(pair.before.object)
    return (first + rest)[:count]


def _column(pair: Pair) -> Column:
    return Column(pair.before.file, pair.after.file, pair.asked or pair.prompt, pair.before.concept, pair.after.concept)
