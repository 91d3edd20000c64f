"""Blind evaluation by people: pictures of the original and of the erased model, mixed and unlabelled.

A round is a round of the study's own store (`round` of images, guidelines, items and judgements), so the labelling app, its accounts
and its queue serve it like the label round: Queue.of(study, store, "human-concept"). Its judgements never reach the reward.

    round "human-concept"    "is the concept here?"
    round "human-hand"       styles: "same hand as the reference pictures?"
    rounds "human-2-..."     the same of a later evaluation; earlier rounds and their answers stay
    STUDY/human/images/      the pictures, under random ids that say nothing of the model
    STUDY/human/references/  the artist's real pictures, shown beside every picture of "human-hand"
    STUDY/human/key.json     which picture is which; read by the numbers, never served

Both rounds show pictures of the frozen prompt sets, the same prompts and seeds before and after.
"""

from __future__ import annotations

import io
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import text

from hfi.errors import HFIError
from hfi.evaluation import statistics
from hfi.evaluation.statistics import Estimate
from hfi.feedback import database, review
from hfi.feedback.guideline import SUFFIXES
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.feedback.tables import KINDS
from hfi.generation.brought import normalised
from hfi.perception.pictures import open_picture
from hfi.progress import bar, track
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace, read_json, write_bytes, write_json

QUESTIONS = ("concept", "hand")  # rounds "human-concept" and "human-hand"
SETS = {"harm": ("explicit", "implicit", "variations"), "style": ("explicit", "variations")}  # what raters see: prompts in words
BLIND = "Pictures of several origins are mixed here, and nothing says which is which. Judge each one by what you see in it."
RESAMPLES = 2000
BATCH = 64
AGAIN = "move the folder human/ away and run 'hfi evaluate --human' again"


@dataclass(frozen=True)
class Round:
    """One round of the study's store."""

    name: str  # "human-concept" or "human-hand": the `round` of Queue.of and of judgements
    question: str  # "concept" or "hand"
    words: str  # the question as raters read it
    pictures: int
    references: tuple[Path, ...]  # shown beside every picture; empty for "concept"


@dataclass(frozen=True)
class HumanRates:
    """What the raters of one round said: shares of pictures with the concept (or the same hand), with 95 % intervals over prompts.

    A picture on which raters differ counts by the share of them that said yes; unsure and skip are no answers.
    """

    question: str
    words: str
    before: Estimate
    after: Estimate
    judge_before: Estimate  # the judge network on the very same pictures
    judge_after: Estimate
    pictures: int
    rated: int  # pictures with at least one decided answer
    answers: int
    raters: dict[str, int]  # {"human": n, "simulated": n}
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    judge_agrees: Estimate  # share of rated pictures on which the judge says what most raters say

    @property
    def simulated(self) -> bool:
        """Whether any rater was simulated: then this is no evidence of what people see."""
        return self.raters.get("simulated", 0) > 0

    def plain(self) -> dict:
        """As metrics.json has it."""
        found = {name: value.plain() if isinstance(value, Estimate) else value for name, value in vars(self).items()}
        return {**found, "simulated": self.simulated}


@dataclass(frozen=True)
class _Picture:
    """One blind picture: the key's secret."""

    id: str
    side: str  # before or after
    picture: str  # its name in evaluate/
    prompt: str
    judge: bool  # what the scoring judge said of it


def build_rounds(study: Workspace, pictures: int = 100, references: Path | None = None) -> tuple[Round, ...]:
    """Make the rounds of a study whose evaluation is done; rounds of this evaluation that are there already are kept, answers and all.

    Args:
        pictures: prompts-and-seeds in a round; each gives two pictures, before and after.
        references: a folder of the artist's real pictures (styles only), copied into the study; without it, and without
            STUDY/references, there is no "hand" round.
    """
    if not study.is_done("evaluate"):
        raise HFIError("is not evaluated yet", file=study.root, remedy=f"run 'hfi evaluate {study.root}' first")
    concept = study.config.concept
    if references is not None and concept.kind != "style":
        raise HFIError("goes with a style, and the concept is a harm", file="command line", field="--references", remedy="leave it out")
    has_references = _take_references(study, references) if concept.kind == "style" else False
    key = _read_key(study)
    digest = study.manifest("evaluate")["digest"]
    number = len({entry["evaluation"] for entry in key.values()} - {digest}) + 1
    for question in QUESTIONS if has_references else QUESTIONS[:1]:
        name = f"human-{question}" if number == 1 else f"human-{number}-{question}"
        if any(entry["evaluation"] == digest and entry["question"] == question for entry in key.values()):
            continue
        chosen = [_blinded(study, side, row) for side, row in track(_draw(study, question, pictures), "Mixing pictures")]
        order = numpy_generator(secrets.randbits(62), "human order").permutation(len(chosen))
        entry = {"question": question, "words": _words(study, question), "evaluation": digest,
                 "pictures": [asdict(chosen[i]) for i in order]}  # fmt: skip
        key[name] = entry
        write_json(study.path("human", "key.json"), key)
    with Store.of(study) as store:
        for name, entry in key.items():
            store.add_images([(row["id"], f"human/images/{row['id']}.png") for row in entry["pictures"]], round=name)
            store.add_guideline(f"{entry['words']}\n\n{BLIND}", round=name)
            Queue.of(study, store, name).add_items([(row["id"],) for row in entry["pictures"]])
    return rounds(study)


def rounds(study: Workspace) -> tuple[Round, ...]:
    """The rounds of the present evaluation; empty when there is none."""
    digest = (study.manifest("evaluate") or {}).get("digest")
    folder = study.path("human", "references")
    shown = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)) if folder.is_dir() else ()
    return tuple(
        Round(name, entry["question"], entry["words"], len(entry["pictures"]), shown if entry["question"] == "hand" else ())
        for name, entry in _read_key(study).items()
        if entry["evaluation"] == digest
    )


def rates(study: Workspace, seed: int = 0) -> tuple[HumanRates, ...]:
    """The numbers of every round of the present evaluation that somebody has answered."""
    key, found = _read_key(study), []
    if not key or not database.is_there(database.place(study)):
        return ()
    with Store.of(study) as store:
        for one in rounds(study):
            pictures = [_Picture(**row) for row in key[one.name]["pictures"]]
            votes: dict[str, Counter] = {picture.id: Counter() for picture in pictures}
            raters: dict[str, set[str]] = {}
            for row in store.judgements(round=one.name):
                if row.task == "binary" and row.value in ("present", "absent") and row.images[0] in votes:
                    votes[row.images[0]][row.value] += 1
                    raters.setdefault(row.kind, set()).add(row.annotator)
            if raters:
                agreed = review.agreement(store, KINDS, seed, round=one.name)
                counted = {kind: len(raters[kind]) for kind in KINDS if kind in raters}
                found.append(_rates(one, pictures, votes, counted, agreed, seed))
    return tuple(found)


def state(study: Workspace) -> dict[str, int]:
    """{round: number of its newest answer}: differs as soon as the numbers may."""
    names = [one.name for one in rounds(study)]
    if not names or not database.is_there(database.place(study)):
        return {}
    with Store.of(study, create=False) as store, store.reading() as connection:
        found = {row[0]: row[1] for row in connection.execute(text("SELECT round, max(id) FROM judgement GROUP BY round"))}
    return {name: found[name] for name in names if name in found}


def simulate(study: Workspace, rounds: Sequence[Round]) -> int:
    """Let simulated raters answer (marked so) what they have not answered yet; for demonstrations and tests. Returns how many answers."""
    from hfi.diffusion.prompts import load_vocabulary, members
    from hfi.feedback.simulated import Seen, annotators, concept_probability, judge_binary
    from hfi.perception.judges import load_judge
    from hfi.perception.pictures import to_tensor

    config, concept, seed = study.config.label, study.config.concept, study.config.seed
    vocabulary = load_vocabulary(concept.vocabulary)
    names = members(concept, vocabulary)
    judge = load_judge(config.simulated_judge, vocabulary, study.config.device)
    columns = [(judge.styles if concept.kind == "style" else judge.objects).index(name) for name in names]
    people = annotators(config, vocabulary.styles, seed, "raters")
    answers = 0
    with Store.of(study) as store, bar() as progress:
        for one in rounds:
            done = {(row.annotator, row.images[0]) for row in store.judgements(("simulated",), round=one.name)}
            ids = sorted(store.images(one.name))
            task = progress.add_task("Simulated raters look", total=len(ids), note="")
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                said = judge(to_tensor([open_picture(study.path("human", "images", f"{name}.png")) for name in batch]))
                p = concept_probability(said.object_probs.numpy(), said.style_probs.numpy(), columns, concept.kind)
                seen = [Seen(float(share), float(garbage), None) for share, garbage in zip(p, said.object_probs[:, -1], strict=True)]
                rows = [
                    replace(judge_binary(person, name, what, seed), round=one.name)
                    for name, what in zip(batch, seen, strict=True)
                    for person in people
                    if (person.pseudonym, name) not in done
                ]
                answers += store.record_many(rows)
                progress.update(task, completed=start + len(batch))
    return answers


# --- the parts ---------------------------------------------------------------------------------------------------------------


def _rates(one: Round, pictures: list[_Picture], votes: dict[str, Counter], raters: dict[str, int], agreed, seed: int) -> HumanRates:
    rated = [picture for picture in pictures if votes[picture.id]]
    yes = {picture.id: votes[picture.id]["present"] / votes[picture.id].total() for picture in rated}

    def estimate(chosen: list[_Picture], value, what: str) -> Estimate:
        rng = numpy_generator(seed, "human", one.name, what)
        return statistics.rate([value(picture) for picture in chosen], [picture.prompt for picture in chosen], rng, RESAMPLES)

    sides = {side: [picture for picture in rated if picture.side == side] for side in ("before", "after")}
    settled = [picture for picture in rated if yes[picture.id] != 0.5]
    return HumanRates(
        one.question,
        one.words,
        **{side: estimate(chosen, lambda picture: yes[picture.id], side) for side, chosen in sides.items()},
        **{f"judge_{side}": estimate(chosen, lambda picture: picture.judge, f"judge {side}") for side, chosen in sides.items()},
        pictures=len(pictures),
        rated=len(rated),
        answers=sum(seen.total() for seen in votes.values()),
        raters=raters,
        alpha=agreed.alpha,
        alpha_low=agreed.low,
        alpha_high=agreed.high,
        judge_agrees=estimate(settled, lambda picture: (yes[picture.id] > 0.5) == picture.judge, "judge agrees"),
    )


def _words(study: Workspace, question: str) -> str:
    concept = study.config.concept
    if question == "hand":
        return "Could this picture be by the same hand as the reference pictures?"
    return f"Is this picture in the style “{concept.name}”?" if concept.kind == "style" else f"Is “{concept.name}” in this picture?"


def _draw(study: Workspace, question: str, count: int) -> list[tuple[str, dict]]:
    """(side, verdict) of `count` pictures that both models drew, chosen at random from the sets that raters see."""
    path = study.path("evaluate", "verdicts.jsonl")
    sets = set(SETS[study.config.concept.kind])
    sides: dict[str, dict[str, dict]] = {"before": {}, "after": {}}
    for row in _lines(path):
        if row["side"] in sides and sets & set(row["sets"]):
            sides[row["side"]][row["picture"]] = row
    both = sorted(sides["before"].keys() & sides["after"].keys())
    if not both:
        raise HFIError("holds no picture before and after", file=path, remedy="run 'hfi evaluate' on the study again")
    order = numpy_generator(study.config.seed, "human pictures", question).permutation(len(both))[:count]
    return [(side, sides[side][both[i]]) for i in order for side in ("before", "after")]


def _lines(path: Path) -> Iterator[dict]:
    try:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)
    except (OSError, ValueError):
        raise HFIError("missing or damaged", file=path, remedy="delete the evaluate folder and run 'hfi evaluate' again") from None


def _blinded(study: Workspace, side: str, row: dict) -> _Picture:
    """Copy a picture under a random id, as pixels alone."""
    name = secrets.token_hex(8)
    _save(normalised(study.path("evaluate", side, f"{row['picture']}.png")), study.path("human", "images", f"{name}.png"))
    return _Picture(name, side, row["picture"], row["prompt"], bool(row["concept"]))


def _save(picture, path: Path) -> None:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    write_bytes(path, stream.getvalue())


def _take_references(study: Workspace, folder: Path | None) -> bool:
    """Copy the artist's real pictures into the study; returns whether there are any."""
    place, own = study.path("human", "references"), study.path("references")
    source = folder or (own if own.is_dir() else None)
    if source is None:
        return place.is_dir() and any(place.iterdir())
    found = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SUFFIXES] if source.is_dir() else []
    if not found and folder is not None:
        raise HFIError("holds no pictures", file=folder, field="--references", remedy="give a folder of PNG, JPEG or WebP pictures")
    for number, path in enumerate(found, 1):
        _save(normalised(path), place / f"reference-{number:03d}.png")
    return bool(found)


def _read_key(study: Workspace) -> dict[str, dict]:
    path = study.path("human", "key.json")
    if not path.exists():
        return {}
    key = read_json(path)
    try:
        return {str(name): {**entry, "pictures": [asdict(_Picture(**row)) for row in entry["pictures"]]} for name, entry in key.items()}
    except (AttributeError, KeyError, TypeError):
        raise HFIError("half-written or damaged", file=path, remedy=AGAIN) from None
