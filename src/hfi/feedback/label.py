"""Stage 2: judgements of the pictures, from people or from simulated annotators (METHOD section 2).

The judgements live in STUDY/feedback.sqlite, which no stage ever removes; this stage adds what simulated annotators still
owe, and writes what counts now to label/judgements.jsonl, so that later stages read a file that does not change under them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from hfi.errors import HFIError, NeedsPeople
from hfi.feedback import database
from hfi.feedback.agreement import krippendorff_alpha, ranking_agreement
from hfi.feedback.guideline import read_guideline
from hfi.feedback.interchange import write_judgements
from hfi.feedback.judgements import Judgement
from hfi.feedback.machines import PREFIX, Machine, judge_by_machines
from hfi.feedback.play import play
from hfi.feedback.rows import from_row
from hfi.feedback.simulated import Annotator, profile
from hfi.feedback.store import Store
from hfi.feedback.tables import KINDS, RANKED
from hfi.workspace import Workspace, digest

if TYPE_CHECKING:
    from hfi.generation.generate import Generated

COUNTING = {  # label.source -> the kinds of annotators whose judgements count
    "people": ("human", "machine"),
    "machines": ("machine",),
    "simulated": KINDS,
}
WHO = {"human": "people", "simulated": "simulated annotators", "machine": "machines"}


@dataclass(frozen=True)
class Judgements:
    """What stage 2 leaves: the judgements that count, of this study's pictures."""

    folder: Path
    binary: tuple[Judgement, ...]
    rankings: tuple[Judgement, ...]

    @property
    def simulated(self) -> bool:
        """Whether any judgement comes from a simulated annotator."""
        return any(row.kind == "simulated" for row in (*self.binary, *self.rankings))

    @property
    def source(self) -> str:
        """Who judged, in words: "people", "people and machines", "machines", "simulated annotators and machines" ..."""
        kinds = {row.kind for row in (*self.binary, *self.rankings)}
        return " and ".join(words for kind, words in WHO.items() if kind in kinds) or "nobody"

    def soft_labels(self) -> dict[str, float]:
        """{image id: share of "present" among present and absent}; pictures that nobody decided on are left out."""
        return {name: present / total for name, (present, total) in self.votes().items()}

    def votes(self) -> dict[str, tuple[int, int]]:
        """{image id: (number of "present", number of "present" or "absent")}."""
        found: dict[str, list[int]] = {}
        for row in self.binary:
            if row.value in ("present", "absent"):
                seen = found.setdefault(row.images[0], [0, 0])
                seen[0] += row.value == "present"
                seen[1] += 1
        return {name: (present, total) for name, (present, total) in found.items()}

    def orders(self) -> list[tuple[str, ...]]:
        """Rankings that were given, without excluded pictures; the concept strongest first."""
        return [row.ranking for row in self.rankings if row.value == RANKED and len(row.ranking) > 1]

    @classmethod
    def load(cls, study: Workspace) -> Judgements:
        """Read a finished stage; raises HFIError when it is damaged."""
        path = study.path("label", "judgements.jsonl")
        try:
            with path.open(encoding="utf-8") as stream:
                rows = [from_row(json.loads(line)) for line in stream]
            counted = ((study.manifest("label") or {}).get("facts") or {}).get("judgements") if study.is_done("label") else None
            if counted is not None and counted != len(rows):  # a file cut at the end of a line
                raise ValueError
        except FileNotFoundError:
            raise HFIError("missing", file=path, remedy="run 'hfi label' on the study") from None
        except ValueError:
            raise HFIError(
                "half-written or damaged",
                file=path,
                remedy="delete the folder label/ and run 'hfi label' again; the judgements themselves are safe in feedback.sqlite",
            ) from None
        return cls(path.parent, tuple(row for row in rows if row.task == "binary"), tuple(row for row in rows if row.task == "ranking"))


def label(images: Generated, study: Workspace) -> Judgements:
    """Gather judgements of `images`; done again whenever the store has newer ones.

    The detectors of `label.machines` judge first. With `label.source` "people", raises NeedsPeople while people judged fewer than
    `label.minimum` pictures; simulated judgements in the store are then left aside. With "machines" only those of machines count. With
    "simulated", what people said counts as well, and simulated annotators fill every picture up to `label.overlap` judgements.
    """
    config = study.config.label
    kinds = COUNTING[config.source]
    ids = [image.id for image in images.images]
    with Store.of(study) as store:
        store.add_guideline(read_guideline(study).words)
        if study.is_done("label"):
            facts = (study.manifest("label") or {}).get("facts", {})
            if facts.get("store") == _state(store, ids):
                return Judgements.load(study)
        people: list[Annotator] = []
        if config.source == "machines" and not config.machines and not store.counts(kinds)["judgements"]:
            raise HFIError("no machine to judge", file=study.root, field="label.machines", remedy="name one, e.g. clip:emoji")
        if config.machines:
            study.require("label")
        machines = judge_by_machines(store, images, study)
        if config.source == "people":
            _require_enough(store, ids, study)
        with study.stage("label") as run:
            if config.source == "simulated":
                people = play(store, images, study)
            counted = _counting(store.judgements(kinds), set(ids), people, machines)
            write_judgements(counted, run.path("judgements.jsonl"))
            found = Judgements.load(study)
            run.facts.update(
                _facts(found, kinds),
                store=_state(store, ids),
                judge=config.simulated_judge if people else None,
                simulated_annotators=profile(people),
                machines=[asdict(machine) for machine in machines],
                left_aside=store.counts()["judgements"] - len(found.binary) - len(found.rankings),
            )
    return Judgements.load(study)


def needed(study: Workspace) -> int:
    """How many pictures must be judged before a reward is learned: `label.minimum`, or all where there are fewer."""
    file, least = study.path("generate", "images.jsonl"), study.config.label.minimum
    return min(least, len(file.read_text(encoding="utf-8").splitlines())) if file.exists() else least


def status(study: Workspace) -> dict:
    """Where labelling stands: {"images", "judged", "judgements", "annotators": {kind: n}, "agreement", "needed", "simulated"}."""
    if not database.is_there(database.place(study)):
        return {
            "images": 0,
            "judged": 0,
            "judgements": 0,
            "annotators": {},
            "agreement": None,
            "needed": needed(study),
            "simulated": False,
        }
    with Store.of(study) as store:
        counts, votes = store.counts(), store.label_counts()
    table = numpy.array([[seen["absent"], seen["present"]] for seen in votes.values()]).reshape(-1, 2)
    return {
        **counts,
        "agreement": krippendorff_alpha(table),
        "needed": max(0, needed(study) - counts["judged"]),
        "simulated": counts["annotators"].get("simulated", 0) > 0,
    }


def _require_enough(store: Store, ids: Sequence[str], study: Workspace) -> None:
    wanted, judged, total = set(ids), set(), 0
    for row in store.judgements(("human",)):
        if row.value != "skip" and wanted.issuperset(row.images):
            judged.update(row.images)
            total += 1
    minimum = min(study.config.label.minimum, len(ids))
    if len(judged) < minimum:
        raise NeedsPeople(
            f"{len(judged)} of {len(ids)} pictures are judged ({total} judgements), {minimum} are needed",
            file=study.root,
            field="label.minimum",
            remedy="import judgements (JSONL or CSV) with 'hfi label', or set label.source to machines or simulated",
        )


def _counting(
    rows: Iterable[Judgement], ids: set[str], people: Sequence[Annotator], machines: Sequence[Machine]
) -> Iterable[Judgement]:
    """The rows that count: of these pictures, and by simulated annotators and our own machines of the present settings only.

    Their rows carry no time: nobody spent any, and the same study drawn again shall give the same file.
    """
    present = {one.pseudonym for one in (*people, *machines)}
    for row in rows:
        if not ids.issuperset(row.images):
            continue
        if row.kind == "human" or (row.kind == "machine" and not row.annotator.startswith(PREFIX)):
            yield row
        elif row.annotator in present:
            yield replace(row, seconds=None, created=None)


def _state(store: Store, ids: Sequence[str]) -> list:
    """What the stage has seen: differs as soon as a judgement is added or other pictures are asked about."""
    return [store.last(), digest(ids)]


def _facts(found: Judgements, kinds: Iterable[str]) -> dict:
    rows, votes = (*found.binary, *found.rankings), found.votes()
    table = numpy.array([[total - present, present] for present, total in votes.values()]).reshape(-1, 2)
    return {
        "simulated": found.simulated,
        "feedback": found.source,
        "judgements": len(rows),
        "binary": len(found.binary),
        "rankings": len(found.rankings),
        "images_judged": len({name for row in rows if row.value != "skip" for name in row.images}),
        "annotators": {kind: len({row.annotator for row in rows if row.kind == kind}) for kind in kinds},
        "values": dict(Counter(row.value for row in rows)),
        "present_share": float(numpy.mean(list(found.soft_labels().values()))) if votes else None,
        "agreement": {
            "measure": "Krippendorff's alpha, nominal",
            "binary": krippendorff_alpha(table),
            "ranking": ranking_agreement(found.orders()),
        },
        "guideline": max((row.guideline or 0 for row in rows), default=0),
    }
