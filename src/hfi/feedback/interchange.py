"""Judgements in and out, all or nothing: a source with one bad row changes nothing. docs/formats.md has the layouts.

    labels.jsonl, labels.csv    one judgement a row; streamed
    tasks.json                  Label Studio's JSON
    FOLDER                      a Hugging Face imagefolder, or pictures sorted into folders yes and no

On export the aggregate of all annotators stands beside each judgement.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy

from hfi.errors import HFIError
from hfi.feedback.folders import Labelled, read_sorted
from hfi.feedback.imagefolder import is_imagefolder, read_imagefolder, write_imagefolder
from hfi.feedback.judgements import Judgement
from hfi.feedback.label_studio import read_label_studio, write_label_studio
from hfi.feedback.merge import merge
from hfi.feedback.rows import AGGREGATES, FIELDS, neutralised, read_rows, to_row
from hfi.feedback.store import Store, drawn_images
from hfi.feedback.tables import KINDS as ANNOTATORS
from hfi.feedback.tables import RANKED
from hfi.generation.brought import Brought, add_pictures, brought
from hfi.workspace import Workspace, atomic

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "label_studio"}
IMPORTER = "imported"  # who judged, where a folder does not say


def file_kind(path: Path) -> str:
    """jsonl, csv, label_studio or folder, by the name; raises HFIError for any other."""
    if path.is_dir() or (not path.suffix and not path.exists()):
        return "folder"
    if path.suffix.lower() in KINDS:
        return KINDS[path.suffix.lower()]
    raise HFIError(
        f"unknown kind of file {path.suffix or '(no suffix)'!r}",
        file=path,
        remedy="use a name that ends in .jsonl, .csv or .json (Label Studio), or a folder of pictures",
    )


def import_judgements(study: Workspace, path: str | Path, annotator: str | None = None) -> dict[str, int]:
    """Add the judgements of a file or folder to the study's store, in one transaction.

    A study that has drawn nothing also takes the pictures of a folder as its own (hfi.generation.brought); in any other study a
    picture must be known, by its id or its file name.

    Args:
        study: whose pictures were judged.
        path: *.jsonl, *.csv, *.json (Label Studio) or a folder of pictures.
        annotator: pseudonym for rows that name none.

    Returns {"read", "added", "duplicates" (same row twice in the source), "known" (in the store already), "pictures" (new ones)}.
    Raises HFIError naming file, line and field; then no judgement was added.
    """
    path = Path(path)
    kind = file_kind(path)
    if not path.exists() or (kind != "folder" and not path.is_file()):
        raise HFIError("no such file", file=path, remedy="give a .jsonl, .csv or .json file of judgements, or a folder of pictures")
    concept = study.config.concept.name
    with Store.of(study) as store, store.plain_errors():
        before = len(store.images())
        if kind == "folder":
            rows = _folder_rows(study, store, path, concept, annotator or IMPORTER)
        images = store.images()
        if not images:
            raise HFIError("the study has no pictures to judge yet", file=study.root, remedy=f"run 'hfi generate {study.root}' first")
        names = _names(study, images)
        if kind == "label_studio":
            rows = read_label_studio(path, names, concept)
        elif kind != "folder":
            rows = ((place, _renamed(row, names)) for place, row in read_rows(path, kind))
        found = merge(store, rows, images, path, annotator, pictures_only=kind == "folder")
        return {**found, "pictures": len(images) - before}


def export_judgements(study: Workspace, path: str | Path) -> int:
    """Write the judgements that count (superseded ones left out), whole or not at all; returns how many.

    A name without suffix becomes an imagefolder, .json a Label Studio file, .jsonl and .csv one judgement a row.
    """
    path = Path(path)
    kind = file_kind(path)
    with Store.of(study, create=False) as store:
        beside = Aggregates(store, study)
        if kind == "folder":
            pictures = {name: study.path(file) for name, file in drawn_images(study)}
            rows = (to_row(judgement) for judgement in store.judgements())
            return write_imagefolder(path, rows, pictures, beside.labels)
        if kind == "label_studio":
            with atomic(path) as raw:
                rows = ({**to_row(judgement), **beside(judgement)} for judgement in store.judgements())
                return write_label_studio(rows, codecs.getwriter("utf-8")(raw))
        return write_judgements(store.judgements(), path, beside)


def write_judgements(judgements: Iterable[Judgement], path: Path, beside: Callable[[Judgement], dict] | None = None) -> int:
    """Stream judgements into a .jsonl or .csv file, atomically; returns how many.

    Args:
        beside: more fields (AGGREGATES) for each row.
    """
    as_csv = file_kind(path) == "csv"
    count = 0
    with atomic(path) as raw:
        stream = codecs.getwriter("utf-8")(raw)
        writer = csv.DictWriter(stream, (*FIELDS, *AGGREGATES) if beside else FIELDS)
        if as_csv:
            writer.writeheader()
        for judgement in judgements:
            row = {**to_row(judgement), **(beside(judgement) if beside else {})}
            if as_csv:
                writer.writerow({key: neutralised(" ".join(cell) if isinstance(cell, list) else cell) for key, cell in row.items()})
            else:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


class Aggregates:
    """What all annotators together say, to stand beside each judgement; call it with one.

    Simulated annotators count where the study uses them.
    """

    def __init__(self, store: Store, study: Workspace):
        from hfi.feedback.aggregation.aggregate import aggregate

        self.method = study.config.reward.aggregation
        self.kinds = tuple(kind for kind in ANNOTATORS if kind != "simulated" or study.config.label.source == "simulated")
        self._labels = aggregate(store.judgements(self.kinds), self.method).labels
        self._strengths, self._rankings = self._order([row for row in store.judgements(self.kinds) if row.value == RANKED])

    @property
    def labels(self) -> dict[str, tuple[str, float | None]]:
        """{image id: (present, absent or undecided; probability that the concept is present)}."""
        return {name: (_word(label.present), round(label.present, 4)) for name, label in self._labels.items()}

    def __call__(self, judgement: Judgement) -> dict:
        if judgement.task == "ranking":
            names = sorted((name for name in judgement.images if name in self._strengths), key=lambda name: -self._strengths[name])
            count = self._rankings.get(judgement.target, 0)
            return {"aggregate": names, "aggregate_judgements": count, "aggregate_method": "bradley_terry"} if count else {}
        label = self._labels.get(judgement.images[0])
        if label is None:
            return {}
        values = _word(label.present), round(label.present, 4), label.answers, self.method
        return dict(zip(AGGREGATES, values, strict=True))

    def _order(self, rows: list[Judgement]) -> tuple[dict[str, float], Counter]:
        """{image id: strength} from all rankings, annotators by their reliability; and how many there are of each target."""
        from hfi.feedback.aggregation.aggregate import order_weights
        from hfi.feedback.aggregation.rankings import bradley_terry, pairs_of

        orders = order_weights(rows, self.method)
        names = sorted({name for order, _ in orders for name in order})
        place = {name: i for i, name in enumerate(names)}
        pairs = [(pair, weight) for order, weight in orders for pair in pairs_of([place[name] for name in order])]
        if not pairs:
            return {}, Counter()
        found = bradley_terry(numpy.array([pair for pair, _ in pairs]), len(names), numpy.array([weight for _, weight in pairs]))
        return dict(zip(names, found.value.tolist(), strict=True)), Counter(row.target for row in rows)


def _word(share: float) -> str:
    return "present" if share > 0.5 else "absent" if share < 0.5 else "undecided"


def _names(study: Workspace, images: set[str]) -> dict[str, str]:
    """Everything a picture may be called in a file -> its id: the id, and the file name that a brought picture had."""
    names: dict[str, str] = {}
    for row in brought(study):
        last = row["source"].rpartition("/")[2]
        names[last] = "" if last in names and names[last] != row["id"] else row["id"]  # two files of one name in two folders: neither
        names[row["source"]] = row["id"]
    return {**{name: found for name, found in names.items() if found}, **{name: name for name in images}}


def _renamed(row: object, names: Mapping[str, str]) -> object:
    """A row with file names replaced by the ids of the pictures; what is unknown stays, and is named by the check that follows."""
    if not isinstance(row, dict):
        return row
    row = dict(row)
    if isinstance(row.get("image"), str):
        row["image"] = names.get(row["image"], row["image"])
    for key in ("images", "ranking", "excluded"):
        if isinstance(row.get(key), list):
            row[key] = [names.get(name, name) if isinstance(name, str) else name for name in row[key]]
    return row


def _folder_rows(study: Workspace, store: Store, folder: Path, concept: str, annotator: str) -> Iterator[tuple[str, dict]]:
    """The judgements of a folder; its pictures become known to the study first, where it takes them."""
    pictures = (read_imagefolder if is_imagefolder(folder) else read_sorted)(folder, concept)
    names = _names(study, store.images())
    ids = {one.source: found for one in pictures if (found := _recognised(one, names))}
    if strangers := [one for one in pictures if one.source not in ids]:
        if study.path("generate", "manifest.json").exists() and not brought(study):
            raise HFIError(
                f"{strangers[0].source!r:.120} is no picture of this study ({len(strangers)} are not)",
                file=folder,
                remedy="make a study of these pictures: hfi init ANOTHER_STUDY --images FOLDER",
            )
        ids |= add_pictures(study, (Brought(one.file, one.source, one.prompt) for one in strangers))
        store.add_images(drawn_images(study))
    translated = {one.image: ids[one.source] for one in pictures if one.image}
    return _labelled_rows(pictures, ids, translated, annotator)


def _labelled_rows(
    pictures: list[Labelled], ids: Mapping[str, str], translated: Mapping[str, str], annotator: str
) -> Iterator[tuple[str, dict]]:
    for one in pictures:
        for row in one.rows:
            row = {"annotator": annotator, **row}
            if "images" in row or "ranking" in row:
                yield one.source, _renamed(row, translated)
            else:
                yield one.source, {**row, "image": ids[one.source]}


def _recognised(one: Labelled, names: Mapping[str, str]) -> str | None:
    """The id of a folder's picture in this study: by the id that an export wrote beside it, its place, or its file name."""
    last = one.source.rpartition("/")[2]
    return next((names[name] for name in (one.image, one.source, last.rpartition(".")[0]) if name and name in names), None)
