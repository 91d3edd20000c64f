"""Let simulated annotators judge what they still owe: the judge looks at the pictures once, every batch of answers is durable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hfi.errors import HFIError
from hfi.feedback.simulated import (
    Annotator,
    Seen,
    annotators,
    binary_plan,
    concept_probability,
    judge_binary,
    judge_ranking,
    ranking_plan,
)
from hfi.feedback.store import Store
from hfi.progress import bar
from hfi.workspace import Workspace, digest

if TYPE_CHECKING:
    from hfi.generation.generate import Generated
    from hfi.perception.judges import Judge

UNDECIDED = ("unsure", "skip")
BATCH = 64  # pictures looked at, and answers written, together: what an interruption can cost; of people's answers, nothing
Task = tuple[Annotator, tuple[str, ...]]


def play(store: Store, images: Generated, study: Workspace) -> list[Annotator]:
    """Fill the store with what simulated annotators still owe of these pictures; returns the annotators.

    A picture on which none of those who were asked decided (all unsure, or skipped) is shown to one more, until one does.

    An answer depends on the study's seed, the annotator and the picture alone, so a run that was killed continues to the same
    judgements as one that was not.
    """
    from hfi.diffusion.prompts import load_vocabulary, members

    config, concept = study.config.label, study.config.concept
    if config.simulated_judge == study.config.evaluate.judge:
        raise HFIError(
            f"{config.simulated_judge} scores, so it must not play annotators: what it flagged would be what it counts",
            file=study.root,
            field="label.simulated_judge",
            remedy="name another judge than evaluate.judge",
        )
    vocabulary = load_vocabulary(concept.vocabulary)
    names = members(concept, vocabulary)
    people = annotators(config, vocabulary.styles, study.config.seed, digest([concept.kind, names]))
    judge = None
    while owed := _owed(store, people, [image.id for image in images.images], study):  # again, for who is asked further
        if judge is None:
            from hfi.perception.judges import load_judge

            judge = load_judge(config.simulated_judge, vocabulary, study.config.device)
        _answer(store, images, owed, judge, names, study)
    return people


def _answer(store: Store, images: Generated, owed: Sequence[Task], judge: Judge, names: Sequence[str], study: Workspace) -> None:
    """Write down what is owed, a batch of pictures at a time; `names` are the concept's members."""
    kind = study.config.concept.kind
    columns = [(judge.styles if kind == "style" else judge.objects).index(name) for name in names]
    needed = {name for _, asked in owed for name in asked}
    binary: dict[str, list[Annotator]] = {}
    for person, asked in owed:
        if len(asked) == 1:
            binary.setdefault(asked[0], []).append(person)
    rankings = [task for task in owed if len(task[1]) > 1]
    seen: dict[str, Seen] = {}
    todo = [image for image in images.images if image.id in needed]
    with bar() as progress:
        task = progress.add_task("Simulated annotators look", total=len(todo), note="")
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            looked = _look(judge, [images.path(image) for image in batch], columns, kind)
            seen.update(zip((image.id for image in batch), looked, strict=True))
            store.record_many(
                judge_binary(person, image.id, seen[image.id], study.config.seed) for image in batch for person in binary.get(image.id, ())
            )
            progress.update(task, completed=start + len(batch))
        if not rankings:
            return
        task = progress.add_task("Simulated annotators rank", total=len(rankings), note="")
        for start in range(0, len(rankings), BATCH):
            part = rankings[start : start + BATCH]
            store.record_many(judge_ranking(person, asked, [seen[name] for name in asked], study.config.seed) for person, asked in part)
            progress.update(task, completed=start + len(part))


def _owed(store: Store, people: Sequence[Annotator], ids: Sequence[str], study: Workspace) -> list[Task]:
    """What the plan asks of each annotator and the store does not hold yet."""
    config, seed = study.config.label, study.config.seed
    plan: list[Task] = []
    if config.judgement != "ranking":
        done, said = _decided_by_people(store), _said(store, people)
        for name, chosen in binary_plan(people, ids, seed):
            asked = max(0, config.overlap - done.get(name, 0))
            while name not in done and asked < len(chosen) and all(said.get((one.pseudonym, name)) in UNDECIDED for one in chosen[:asked]):
                asked += 1  # nobody decided: one more, until one does
            plan += [(person, (name,)) for person in chosen[:asked]]
    if config.judgement != "binary":
        for names, chosen in ranking_plan(people, ids, config, seed):
            plan += [(person, names) for person in chosen]
    owed: list[Task] = []
    for person in people:
        asked = dict.fromkeys(names for someone, names in plan if someone is person)
        store.add_annotator(person.pseudonym, "simulated")
        store.assign(person.pseudonym, asked)
        still_open = set(store.open_assignments(person.pseudonym))
        owed += [(person, names) for names in asked if names in still_open]
    return owed


def _said(store: Store, people: Sequence[Annotator]) -> dict[tuple[str, str], str]:
    """{(pseudonym, image id): present, absent, unsure or skip} of these simulated annotators."""
    present = {one.pseudonym for one in people}
    rows = (row for row in store.judgements(("simulated",)) if row.task == "binary" and row.annotator in present)
    return {(row.annotator, row.images[0]): row.value for row in rows}


def _decided_by_people(store: Store) -> dict[str, int]:
    """{image id: how many people said present or absent}; a machine takes nobody's place."""
    found: dict[str, int] = {}
    for row in store.judgements(("human",)):
        if row.task == "binary" and row.value in ("present", "absent"):
            found[row.images[0]] = found.get(row.images[0], 0) + 1
    return found


def _look(judge: Judge, paths: Iterable, columns: Sequence[int], kind: str) -> list[Seen]:
    """What the judge sees in pictures of one size."""
    from hfi.perception.pictures import open_picture, to_tensor

    said = judge(to_tensor([open_picture(path) for path in paths]))
    concept = concept_probability(said.object_probs.numpy(), said.style_probs.numpy(), columns, kind)
    styles = [judge.styles[i] if judge.styles else None for i in said.style.tolist()]
    return [Seen(float(p), float(garbage), style) for p, garbage, style in zip(concept, said.object_probs[:, -1], styles, strict=True)]
