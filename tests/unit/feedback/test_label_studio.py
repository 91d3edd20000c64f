"""Label Studio's JSON: what is exported comes back equal, what others exported is understood, what is hostile is refused or harmless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfi.config import parse_config
from hfi.errors import HFIError
from hfi.feedback.interchange import export_judgements, import_judgements
from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store
from hfi.workspace import Workspace

IDS = [f"im{i}" for i in range(8)]


def make_study(root: Path, concept: str = "weapon") -> Workspace:
    study = Workspace.create(root, parse_config({"concept": {"name": concept}}, "test"))
    study.path("generate").mkdir()
    study.path("generate", "manifest.json").write_text("{}")
    rows = [{"id": name, "file": f"images/{name}.png"} for name in IDS]
    study.path("generate", "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return study


@pytest.fixture
def study(tmp_path) -> Workspace:
    return make_study(tmp_path / "study")


def choice(word: str, image: str = "/data/upload/7/0a1b2c3d-im0.png", **annotation) -> dict:
    result = [{"from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": [word]}}]
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 9, "completed_by": 3, "result": result} | annotation]}


def load(study: Workspace, tasks: object, tmp_path: Path) -> list[Judgement]:
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    import_judgements(study, tmp_path / "tasks.json")
    with Store.of(study) as store:
        return list(store.judgements())


binary = st.builds(
    lambda image, who, value, seconds, kind: Judgement((image,), f"{kind}-{who}", kind, value, seconds=seconds, guideline=1),
    st.sampled_from(IDS),
    st.sampled_from(["a", "b", "<i>c</i>", "=d"]),
    st.sampled_from(["present", "absent", "unsure", "skip"]),
    st.none() | st.floats(0, 1e4, allow_nan=False),
    st.sampled_from(["human", "machine", "simulated"]),
)
ranked = st.builds(
    lambda images, cut, who: Judgement(
        tuple(sorted(images)), f"human-{who}", ranking=tuple(images[cut:]), excluded=tuple(sorted(images[:cut])), guideline=1
    ),
    st.lists(st.sampled_from(IDS), min_size=2, max_size=5, unique=True),
    st.integers(0, 1),
    st.sampled_from(["a", "b"]),
)
not_ranked = st.builds(lambda who: Judgement(tuple(IDS[:3]), f"human-{who}", value="unsure", guideline=1), st.sampled_from(["a", "b"]))


@settings(max_examples=8)
@given(st.lists(binary | ranked | not_ranked, min_size=1, max_size=12, unique_by=lambda j: (j.annotator, j.target)))
def test_export_then_import_gives_equal_judgements(tmp_path_factory, judgements):
    root = tmp_path_factory.mktemp("trip")
    first, second = make_study(root / "a"), make_study(root / "b")
    with Store.of(first) as store:
        store.add_guideline("look")
        store.record_many(judgements)
        before = [(j, j.created, j.purpose) for j in store.judgements()]
    assert export_judgements(first, root / "out.json") == len(judgements)
    assert import_judgements(second, root / "out.json")["added"] == len(judgements)
    with Store.of(second) as store:
        assert [(j, j.created, j.purpose) for j in store.judgements()] == before


def test_an_export_of_label_studio_is_understood_and_nothing_personal_taken(study, tmp_path):
    by = {"id": 12, "email": "jo@example.org", "first_name": "Jo"}
    tasks = [
        choice("Weapon", completed_by=by, lead_time=4.5, created_at="2026-01-02T03:04:05.678901Z"),
        choice("no weapon", "s3://b/x/im1.jpg"),
        choice("yes", "/data/local-files/?d=images/im2.png"),
        {**choice("x", "im3"), "annotations": []},
    ]
    found = load(study, tasks, tmp_path)
    assert [(j.images[0], j.annotator, j.value) for j in found] == [
        ("im0", "label-studio-12", "present"), ("im1", "label-studio-3", "absent"), ("im2", "label-studio-3", "present")]  # fmt: skip
    assert found[0].seconds == 4.5 and found[0].created.startswith("2026-01-02")
    assert b"jo@example" not in b"".join(path.read_bytes() for path in study.root.glob("feedback.sqlite*"))


def test_cancelled_is_skip_predictions_are_machines_and_other_tags_say_nothing(study, tmp_path):
    boxes = {"type": "rectanglelabels", "value": {"rectanglelabels": ["Gun"]}}
    task = {"data": {"image": "im0.png"}, "annotations": [{"completed_by": 1, "was_cancelled": True, "result": []},
            {"completed_by": 2, "result": [boxes]}], "predictions": [{"model_version": "clip-7", "score": 0.9, "result": [
            {"type": "choices", "value": {"choices": ["no"]}}]}]}  # fmt: skip
    assert [(j.annotator, j.kind, j.value) for j in load(study, [task], tmp_path)] == [
        ("clip-7", "machine", "absent"), ("label-studio-1", "human", "skip")]  # fmt: skip


@pytest.mark.parametrize(
    ("ranker", "order", "excluded"),
    [
        ({"rank": ["im2", "im0", "im1"]}, ("im2", "im0", "im1"), ()),  # a Ranker without buckets, named by its tag
        ({"ranking": ["im1", "im0"], "excluded": ["im2"]}, ("im1", "im0"), ("im2",)),
        ({"best": ["im1", "im2"], "_": ["im0"]}, ("im1", "im2"), ("im0",)),  # left in the list: put nowhere
    ],
)
def test_rankers_with_and_without_buckets(study, tmp_path, ranker, order, excluded):
    items = [{"id": name, "html": f"<img src='{name}'>"} for name in IDS[:3]]
    task = {"data": {"items": items}, "annotations": [{"completed_by": 1, "result": [{"type": "ranker", "value": {"ranker": ranker}}]}]}
    found = load(study, [task], tmp_path)
    assert (found[0].ranking, found[0].excluded) == (order, excluded)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"not": "a list"}, "is no list of Label Studio tasks"),
        ([{"image": "im0", "choice": "yes"}], "task 1, data: missing: no Label Studio task. export as 'JSON', not 'JSON-MIN'"),
        ([choice("yes"), choice("maybe so", "im1")], "task 2, annotation 1, choices: 'maybe so' says neither yes nor no"),
        ([choice("yes", "../../etc/passwd")], "unknown image '../../etc/passwd'"),
        ([choice("yes", "<img src=x onerror=alert(1)>")], "unknown image"),
        ([choice("yes", "/im0.png/../nobody.png")], "unknown image"),
        ([choice("yes", "x" * 100_000)], "unknown image"),
        ([{**choice("yes"), "annotations": [7]}], "task 1, annotation 1, annotations: is no object"),
        ([choice("yes", hfi={"kind": "robot"})], "kind: 'robot' is none of"),
        ([choice("yes", hfi={"annotator": "a\u0000b"})], "annotator: a pseudonym of"),
        ([choice("yes", hfi={"annotator": ["a"]})], "annotator"),
        ([choice("yes", created_at="yesterday")], "created: 'yesterday' is not"),
        ([choice("yes"), choice("no")], "contradicts task 1, annotation 1"),
        ([choice("yes", result=[{"type": "choices", "value": {"choices": ["yes", "no"]}}])], "is not one choice"),
        ([choice("yes", result=[{"type": "ranker", "value": {"ranker": {"rank": ["im0"]}}}])], "has no list"),
        ([{"data": {"items": [{"id": "im0"}, {"id": "im1"}]}, "annotations": [{"result": [
            {"type": "ranker", "value": {"ranker": {"a": ["im0"], "b": ["im1"]}}}]}]}], "call the bucket with the order 'ranking'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_half_imported(study, tmp_path, tasks, words):
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    with pytest.raises(HFIError) as caught:
        import_judgements(study, tmp_path / "tasks.json")
    assert words in str(caught.value) and "\n" not in str(caught.value) and "tasks.json" in str(caught.value)
    with Store.of(study) as store:
        assert store.last() == 0


@pytest.mark.parametrize("body", [b"", b"[", b"\xff\xfe", b"[" * 200_000, b"NaN"])
def test_what_is_no_json_is_named(study, tmp_path, body):
    (tmp_path / "tasks.json").write_bytes(body)
    with pytest.raises(HFIError, match=r"tasks\.json"):
        import_judgements(study, tmp_path / "tasks.json")


def test_the_aggregate_stands_in_the_task(study, tmp_path):
    with Store.of(study) as store:
        store.record_many([Judgement(("im0",), name, value=value) for name, value in [("a", "present"), ("b", "present"), ("c", "absent")]])
    export_judgements(study, tmp_path / "out.json")
    task = json.loads((tmp_path / "out.json").read_text())[0]
    assert task["data"]["aggregate"] == "present" and len(task["annotations"]) == 3


def test_rankings_have_the_common_order_beside_them(study, tmp_path):
    orders = [("im2", "im0", "im1"), ("im2", "im0", "im1"), ("im1", "im0", "im2")]
    with Store.of(study) as store:
        store.record_many(Judgement(("im0", "im1", "im2"), f"p{i}", ranking=order) for i, order in enumerate(orders))
    export_judgements(study, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["aggregate"] for row in rows] == [["im2", "im0", "im1"]] * 3 and rows[0]["aggregate_judgements"] == 3
    export_judgements(study, tmp_path / "out.csv")
    assert import_judgements(study, tmp_path / "out.csv")["known"] == 3
