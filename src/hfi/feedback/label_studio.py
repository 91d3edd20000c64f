"""Label Studio's JSON, in and out: choices for labels, the Ranker for orders; people as annotations, machines as predictions.

Only what a judgement needs is read: no e-mail address, no name, no note, no HTML. Pictures are recognised by the id that the export wrote
(`data.hfi_image`) or by the file name at the end of their address, and never opened. docs/formats.md has the labelling configurations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hfi.errors import HFIError
from hfi.feedback.folders import word_to_label
from hfi.feedback.rows import bad_row

MOST_BYTES = 1 << 28  # 256 MiB: the format is one JSON value, which is read whole
UPLOAD = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
OWN = ("annotator", "kind", "guideline", "purpose")  # what of a judgement the format has no place for
LEFT_OVER = "_"  # the Ranker's column of what was put nowhere


def read_label_studio(path: Path, known: Mapping[str, str], concept: str) -> Iterator[tuple[str, dict]]:
    """(place, row) for every answer in an export: rows as in hfi.feedback.rows, places like "task 3, annotation 1".

    Args:
        path: "JSON" export (the full one); a list of tasks.
        known: what the study's pictures may be called -> their ids.
        concept: a choice called so means present, "not ..." absent.
    """
    for number, task in enumerate(_tasks(path), 1):
        place = f"task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise bad_row(path, place, "data", "missing: no Label Studio task", "export as 'JSON', not 'JSON-MIN'")
        for kind, key in (("human", "annotations"), ("machine", "predictions")):
            for index, answer in enumerate(task.get(key) or [], 1):
                where = f"{place}, {key[:-1]} {index}"
                if not isinstance(answer, dict):
                    raise bad_row(path, where, key, "is no object")
                row = _answer(answer, task["data"], kind, path, where, known, concept)
                if row is not None:
                    yield where, row


def write_label_studio(rows: Iterable[dict], stream, address: str = "images/{}.png") -> int:
    """Write judgements as a list of tasks, one for each target; returns how many judgements.

    Args:
        rows: flat rows (hfi.feedback.rows.to_row), those of one target together; they may carry an aggregate.
        stream: takes text.
        address: where Label Studio shall find a picture, given its id.
    """
    count, target, task, people = 0, None, None, {}
    stream.write("[")
    first = True

    def close() -> None:
        nonlocal first
        if task is not None:
            stream.write(("" if first else ",\n") + json.dumps(task, ensure_ascii=False))
            first = False

    for row in rows:
        names = [row["image"]] if "image" in row else list(row["images"])
        if names != target:
            close()
            target, task = names, _empty_task(names, "image" in row, address, row)
        key = "annotations" if row["kind"] == "human" else "predictions"
        number = people.setdefault(row["annotator"], len(people) + 1)
        task[key].append(_plain_answer(row, number))
        count += 1
    close()
    stream.write("]\n")
    return count


def _empty_task(names: list[str], binary: bool, address: str, row: dict) -> dict:
    if binary:
        data: dict = {"image": address.format(names[0]), "hfi_image": names[0]}
    else:
        data = {"images": [{"id": name, "html": f'<img src="{address.format(name)}">'} for name in names]}
    data |= {key: value for key, value in row.items() if key.startswith("aggregate")}
    return {"data": data, "annotations": [], "predictions": []}


def _plain_answer(row: dict, number: int) -> dict:
    """One judgement as an annotation or a prediction. `hfi` holds what the format has no place for; Label Studio ignores it."""
    if "ranking" in row:
        value = {"type": "ranker", "from_name": "rank", "to_name": "images",
                 "value": {"ranker": {"ranking": row["ranking"], "excluded": row["excluded"]}}}
    elif "image" in row:
        value = {"type": "choices", "from_name": "present", "to_name": "image", "value": {"choices": [row["label"]]}}
    else:
        value = {"type": "choices", "from_name": "present", "to_name": "images", "value": {"choices": [row["label"]]}}
    answer: dict = {"result": [value], "hfi": {key: row[key] for key in OWN if key in row}}
    if row["kind"] == "human":
        answer |= {"completed_by": number, "was_cancelled": False}
        if "seconds" in row:
            answer["lead_time"] = row["seconds"]
    else:
        answer["model_version"] = row["annotator"]
        if "seconds" in row:
            answer["hfi"]["seconds"] = row["seconds"]
    if "created" in row:
        answer["created_at"] = row["created"]
    return answer


def _answer(answer: dict, data: dict, kind: str, path: Path, where: str, known: Mapping[str, str], concept: str) -> dict | None:
    """One annotation or prediction as a row; None where it says nothing that can be judged (an empty draft, other tags)."""
    own = answer.get("hfi") if isinstance(answer.get("hfi"), dict) else {}
    row: dict = {"annotator": own.get("annotator") or _who(answer, kind), "kind": own.get("kind") or kind}
    results = answer.get("result") or []
    if not isinstance(results, list):
        raise bad_row(path, where, "result", "is no list")
    said = next((one for one in results if isinstance(one, dict) and one.get("type") in ("choices", "ranker")), None)
    value = said.get("value") if said else None
    cancelled = bool(answer.get("was_cancelled"))
    if said is None and not cancelled:
        return None
    listed = _listed(data, path, where)
    if listed is not None:
        images = [_picture(name, known, path, where) for name in listed]
        row["images"] = images
    else:
        row["image"] = _picture(_address(data, path, where), known, path, where)
    if cancelled:
        row["label"] = "skip"
    elif said["type"] == "choices":
        row["label"] = _choice(value, path, where, concept)
    else:
        if listed is None:
            raise bad_row(path, where, "ranker", "ranks, but its task has no list of pictures")
        row["ranking"] = [_picture(name, known, path, where) for name in _ranked(value, path, where)]
        row["excluded"] = [name for name in images if name not in row["ranking"]]
    seconds = answer.get("lead_time", own.get("seconds"))
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds >= 0:
        row["seconds"] = seconds
    row |= {key: own[key] for key in ("guideline", "purpose") if own.get(key) is not None}
    if isinstance(answer.get("created_at"), str):
        row["created"] = answer["created_at"]
    return row


def _who(answer: dict, kind: str) -> str:
    """A pseudonym: the number that Label Studio gives a person, never the e-mail address that may stand beside it."""
    if kind == "machine":
        version = answer.get("model_version")
        return "".join(letter for letter in version if letter.isprintable())[:64] if isinstance(version, str) and version else "model"
    by = answer.get("completed_by")
    by = by.get("id") if isinstance(by, dict) else by
    return f"label-studio-{by}" if isinstance(by, int) else "label-studio"


def _choice(value: object, path: Path, where: str, concept: str) -> str:
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise bad_row(path, where, "choices", f"{choices!r:.60} is not one choice", "let annotators choose one label for a picture")
    label = word_to_label(choices[0], concept)
    if label is None:
        raise bad_row(path, where, "choices", f"{choices[0]!r:.60} says neither yes nor no",
                      f"rename the choices to yes and no ({concept!r:.40} and 'not {concept:.40}' will do, too)")
    return label


def _ranked(value: object, path: Path, where: str) -> list[str]:
    """Ids in order, from a Ranker with or without buckets."""
    columns = value.get("ranker") if isinstance(value, dict) else None
    if isinstance(columns, list):
        columns = {"ranking": columns}
    if not isinstance(columns, dict):
        raise bad_row(path, where, "ranker", f"{columns!r:.60} is no ranking")
    named = [name for name in columns if name not in (LEFT_OVER, "excluded")]
    chosen = "ranking" if "ranking" in columns else named[0] if len(named) == 1 else None
    order = columns.get(chosen) if chosen else None
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise bad_row(path, where, "ranker", f"cannot tell which of {', '.join(map(str, columns)):.80} is the order",
                      "call the bucket with the order 'ranking'")
    return order


def _listed(data: dict, path: Path, where: str) -> list[str] | None:
    """What the task's list of pictures names, or None when it shows one picture."""
    for value in data.values():
        if isinstance(value, list) and value and all(isinstance(item, dict) and isinstance(item.get("id"), str) for item in value):
            return [item["id"] for item in value]
    return None


def _address(data: dict, path: Path, where: str) -> str:
    for key in ("hfi_image", "image", "img", "picture", "url"):
        if isinstance(data.get(key), str) and data[key]:
            return data[key]
    words = [value for value in data.values() if isinstance(value, str) and value.lower().endswith((".png", ".jpg", ".jpeg", ".webp"))]
    if len(words) == 1:
        return words[0]
    raise bad_row(path, where, "data", "names no picture", "give the picture's address in the field 'image'")


def _picture(address: str, known: Mapping[str, str], path: Path, where: str) -> str:
    """The id of the picture that an address ends in: as it stands, by file name, without its suffix, without the upload's prefix."""
    parts = urlsplit(address) if len(address) < 8192 else None
    last = unquote((parts.query.rpartition("=")[2] if parts.query.startswith("d=") else parts.path) if parts else "").rpartition("/")[2]
    bare = UPLOAD.sub("", last, count=1) if UPLOAD.match(last) else last
    for name in (address, last, last.rpartition(".")[0], bare, bare.rpartition(".")[0]):
        if name and name in known:
            return known[name]
    remedy = "only pictures of this study can be judged; is the file of another study?"
    raise bad_row(path, where, "image", f"unknown image {address!r:.120}", remedy)


def _tasks(path: Path) -> list:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise HFIError(f"larger than {MOST_BYTES >> 20} MiB", file=path, remedy="export fewer tasks at once")
        tasks = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise HFIError(f"cannot be read ({error.strerror})", file=path, remedy="check the file and its permissions") from error
    except UnicodeDecodeError:
        raise HFIError("is not UTF-8", file=path, remedy="save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise HFIError(f"not JSON ({str(error)[:80]})", file=path, remedy="export it again from Label Studio") from None
    if not isinstance(tasks, list):
        raise HFIError("is no list of Label Studio tasks", file=path, remedy="export as 'JSON'")
    return tasks
