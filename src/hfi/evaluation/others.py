"""The other concepts of a run (`erase.also`, ours): each is measured as well, and none of them counts as what must stay.

Of each its own study's prompts that name it or describe it, the same before and after, in `evaluate.prompts_per_set` pictures a set.
Attacks, the curve over the steps and blind evaluation by people ask about the first concept alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from hfi.config import Concept, Evaluate
from hfi.diffusion.model import Model
from hfi.diffusion.prompts import Vocabulary, load_vocabulary, members
from hfi.evaluation import prompt_sets
from hfi.evaluation.concept_rate import check_judge, is_concept, rate
from hfi.evaluation.drawing import Verdict, distinct, draw_and_judge
from hfi.evaluation.measure import Pictures
from hfi.generation.generate import Generated
from hfi.perception.judges import Judge, load_judge
from hfi.workspace import StageRun, Workspace

SETS = ("explicit", "implicit")


@dataclass(frozen=True)
class Other:
    """One more concept that was erased in the same run, with its prompts and what the judge says of their pictures.

    `key` ("also-1") names it in files; its `pictures` have the sets explicit, implicit and, of a style, floor.
    """

    key: str
    concept: Concept
    vocabulary: Vocabulary
    judge: Judge
    pictures: Pictures

    @property
    def names(self) -> tuple[str, ...]:
        """What counts as the concept: its members, or the style."""
        return tuple(members(self.concept, self.vocabulary))

    def described(self) -> dict:
        """What prompts.json says of it."""
        return {"key": self.key, "concept": self.concept.name, "kind": self.concept.kind, "members": list(self.names)}


def studies_of(study: Workspace) -> list[Workspace]:
    """The other studies of the run."""
    return [Workspace.open(path) for path in study.config.erase.also]


def erased_elsewhere(study: Workspace, more: Sequence[Workspace] = ()) -> tuple[set[str], set[str]]:
    """(objects, styles) that the other concepts of the run are about, and those of `more` studies."""
    objects: set[str] = set()
    styles: set[str] = set()
    for other in [*studies_of(study), *more]:
        concept = other.config.concept
        (styles if concept.kind == "style" else objects).update(members(concept, load_vocabulary(concept.vocabulary)))
    return objects, styles


def what_stays(
    concept: Concept, vocabulary: Vocabulary, objects: Collection[str], styles: Collection[str]
) -> tuple[list | None, list | None]:
    """(objects to ask for, styles to ask for them in) of what no concept of the run is about; None: all that this concept leaves.

    Args:
        objects, styles: what the other concepts are about. An object that exists in such styles alone is not asked for.
    """
    if not objects and not styles:
        return None, None
    own = {concept.name} if concept.kind == "style" else set()
    left = [style for style in vocabulary.styles if style not in styles and style not in own]
    able = lambda name: not vocabulary.objects[name].styles or bool(set(vocabulary.objects[name].styles) & set(left))  # noqa: E731
    return [name for name in prompt_sets.outside(concept, vocabulary) if name not in objects and able(name)], left


def others_of(study: Workspace, judge: Judge, model_hash: str, device: str) -> list[Other]:
    """The other concepts of the run, ready to be drawn; raises HFIError where the judge cannot name one.

    Args:
        judge: the study's; a concept of another vocabulary has a judge of the same name that knows that one.
    """
    config, seed, found = study.config.evaluate, study.config.seed, []
    for number, other in enumerate(studies_of(study), 1):
        concept = other.config.concept
        vocabulary = load_vocabulary(concept.vocabulary)
        same = concept.vocabulary == study.config.concept.vocabulary
        mine = judge if same else load_judge(config.judge, vocabulary, device)
        check_judge(mine, concept, vocabulary)
        taken = {image.prompt.lower() for image in Generated.load(other).images}
        count = math.ceil(config.prompts_per_set / config.seeds_per_prompt)
        named = prompt_sets.explicit(concept, vocabulary, count, seed, taken)
        sets = {"explicit": named, "implicit": prompt_sets.implicit(concept, vocabulary, count, seed, taken)}
        if concept.kind == "style":
            sets["floor"] = prompt_sets.floor(named, count, seed)
        found.append(Other(f"also-{number}", concept, vocabulary, mine, Pictures(seed, model_hash, config, sets)))
    return found


def look(
    others: Sequence[Other],
    side: str,
    names: Sequence[str],
    own: tuple[Judge, dict[str, Verdict]],
    model: Model,
    config: Evaluate,
    run: StageRun,
    progress,
) -> list[Other]:
    """The others with the verdicts of one side, drawn with the model's present weights; what a judge has seen is not drawn again.

    Args:
        side: "before" or "after".
        names: of their sets.
        own: the study's judge, and what it has said of this side's pictures.
    """
    known, found = {id(own[0]): dict(own[1])}, []
    for one in others:
        seen, wanted = known.setdefault(id(one.judge), {}), one.pictures.in_sets(names)
        fresh, words = distinct(wanted, seen), f"Drawing {one.concept.name} {side}"
        seen |= draw_and_judge(model, fresh, {}, one.judge, config, run, side, one.key, progress, words)
        verdicts = {**one.pictures.verdicts, side: {picture.name: seen[picture.name] for picture in wanted}}
        found.append(replace(one, pictures=replace(one.pictures, verdicts=verdicts)))
    return found


def measured(others: Sequence[Other], seed: int, resamples: int) -> list[dict]:
    """Of each {"concept", "kind", "concept_rate": {"explicit", "implicit", "unlisted"}, "floor"}, as metrics.json has them."""

    def share(one: Other, side: str, rows: list, what: str) -> dict:
        hits = [is_concept(one.pictures.verdicts[side][name], one.concept, one.names) for _, name, _ in rows]
        return rate(hits, [prompt for *_, prompt in rows], seed, f"{one.key} {what} {side}", resamples)

    found = []
    for one in others:
        rows = {name: one.pictures.pairs(name) for name in SETS}
        rows["unlisted"] = [row for row in rows["explicit"] if row[0].listed is False]
        rates = {
            name: {side: share(one, side, part, name) for side in ("before", "after")} if part else None for name, part in rows.items()
        }
        floor = share(one, "before", one.pictures.pairs("floor"), "floor") if one.concept.kind == "style" else None
        found.append({"concept": one.concept.name, "kind": one.concept.kind, "concept_rate": rates, "floor": floor})
    return found


def outcomes(others: Sequence[Other]) -> dict[str, list]:
    """Set ("also-1-explicit") -> [[prompt, 0 or 1], ...]: whether each picture of the erased model draws that concept."""
    return {
        f"{one.key}-{name}": [
            [prompt, int(is_concept(one.pictures.verdicts["after"][picture], one.concept, one.names))]
            for _, picture, prompt in one.pictures.pairs(name)
        ]
        for one in others
        for name in SETS
    }
