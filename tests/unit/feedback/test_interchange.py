"""Label files that people bring: what is wrong is named by file, line and field, and nothing half imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hfi.config import parse_config
from hfi.errors import HFIError
from hfi.feedback.interchange import export_judgements, import_judgements
from hfi.feedback.store import Store
from hfi.workspace import Workspace


@pytest.fixture
def study(tmp_path) -> Workspace:
    study = Workspace.create(tmp_path / "study", parse_config({}, "test"))
    study.path("generate").mkdir()
    study.path("generate", "manifest.json").write_text("{}")
    study.path("generate", "images.jsonl").write_text(
        "".join(json.dumps({"id": f"im{i}", "file": f"images/im{i}.png"}) + "\n" for i in range(6))
    )
    return study


def refused(study: Workspace, path: Path) -> str:
    with pytest.raises(HFIError) as caught:
        import_judgements(study, path)
    line = str(caught.value)
    assert "\n" not in line and path.name in line
    if study.store_path.exists():
        with Store.of(study) as store:
            assert store.last() == 0, "half imported"
    return line


GOOD = '{"image": "im0", "annotator": "ann", "label": "present"}\n'
RANKING = {"images": ["im1", "im2", "im3"], "annotator": "ann", "ranking": ["im3", "im1"], "excluded": ["im2"]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"image": "nobody", "annotator": "ann", "label": "absent"}', "line 2, image: unknown image 'nobody'"),
        ('{"image": "im0", "annotator": "ann", "label": "absent"}', "line 2, label: contradicts line 1"),
        ('{"image": "im1", "annotator": "ann", "label": "maybe"}', "line 2, label: 'maybe' is none of"),
        ('{"image": "im1", "annotator": "ann", "label": 3.7}', "line 2, label: 3.7"),
        ('{"image": "im1", "annotator": "ann", "label": null}', "line 2, label: missing"),
        ('{"image": 7, "annotator": "ann", "label": "absent"}', "line 2, image: 7 is not text"),
        ('{"image": "im1", "annotator": ["ann"], "label": "absent"}', "line 2, annotator"),
        ('{"image": "im1", "label": "absent"}', "line 2, annotator: missing"),
        ('{"annotator": "ann", "label": "absent"}', "line 2, image: missing"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "seconds": "fast"}', "line 2, seconds"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "seconds": -1}', "line 2, seconds"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "seconds": NaN}', "line 2, row: NaN is not JSON"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "guideline": "one"}', "line 2, guideline"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "created": "yesterday"}', "line 2, created"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "kind": "robot"}', "line 2, kind"),
        ('{"image": "im1", "annotator": "ann", "label": "absent", "kind": "machine"}', "line 2, kind: 'ann' is of two kinds"),
        ('{"image": "im1", "annotator": "ann", "lable": "absent"}', "line 2, lable: no such field"),
        ('{"image": "im1", "image": "im2", "annotator": "ann", "label": "absent"}', "line 2, row: a field stands there twice"),
        ('{"image": "im1", "annotator": "ann"', "line 2, row: not JSON"),
        ('["im1", "ann", "absent"]', "line 2, row: is no JSON object"),
        ("[" * 100_000, "line 2, row"),
        ('{"image": "im1", "annotator": "a\\u0000b", "label": "absent"}', "line 2, annotator"),
        (json.dumps({**RANKING, "ranking": ["im3", "im1", "im9"]}), "line 2, ranking"),
        (json.dumps({**RANKING, "ranking": ["im3", "im3"]}), "line 2, ranking"),
        (json.dumps({**RANKING, "ranking": "im3 im1"}), "line 2, ranking"),
        (json.dumps({**RANKING, "label": "present"}), "line 2, label"),
        (json.dumps({**RANKING, "images": ["im1", "im2"]}), "line 2, ranking"),
        (json.dumps({"images": ["im1"], "annotator": "a", "label": "skip"}), "line 2, images"),
        (json.dumps({"images": ["im1", "im2"], "annotator": "a", "label": "present"}), "line 2, label"),
    ],
)
def test_a_bad_jsonl_row_is_named(study, tmp_path, line, words):
    (tmp_path / "labels.jsonl").write_text(GOOD + line + "\n")
    assert words in refused(study, tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("image,annotator,label\nim0,ann,present\nim1,ann\n", "line 3, row: has 2 cells, the header has 3"),
        ("image,annotator,verdict\nim0,ann,present\n", "line 1, column 'verdict'"),
        ("image,annotator,image\nim0,ann,im0\n", "line 1, column 'image'"),
        ("image,annotator,label,seconds\nim0,ann,present,soon\n", "line 2, seconds"),
        ("image,annotator,label,guideline\nim0,ann,present,1.5\n", "line 2, guideline"),
        ('image,annotator,label\nim0,"ann,present\n', "row: not CSV"),
        ("image,annotator,label\nim0,ann,present\nim0,ann,absent\n", "line 3, label: contradicts line 2"),
        ("image,annotator,label\n", "holds no judgement"),
        ("", "holds no judgement"),
    ],
)
def test_a_bad_csv_is_named(study, tmp_path, body, words):
    (tmp_path / "labels.csv").write_text(body)
    assert words in refused(study, tmp_path / "labels.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_encodings_binaries_and_endless_lines_are_named(study, tmp_path, suffix):
    path = tmp_path / f"labels.{suffix}"
    path.write_bytes("image,annotator,label\nim0,ann,présent\n".encode("latin-1"))
    assert "UTF-8" in refused(study, path) if suffix == "csv" else "row: not JSON" in refused(study, path)
    path.write_bytes(b"\xff\xfe" + "image".encode("utf-16-le"))
    assert "line 1, encoding" in refused(study, path)
    path.write_bytes(b"im\x00age")
    assert "NUL" in refused(study, path)
    path.write_bytes(b"x" * (1 << 21))
    assert "longer than" in refused(study, path)


def test_missing_files_folders_and_unknown_kinds_are_named(study, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    kinds = "unknown kind of file '.xlsx'"
    for name, words in [("none.jsonl", "no such file"), ("folder.csv", "holds no picture"), ("labels.xlsx", kinds)]:
        assert words in refused(study, tmp_path / name)


def test_a_study_without_pictures_says_what_to_do(tmp_path):
    study = Workspace.create(tmp_path / "empty", parse_config({}, "test"))
    (tmp_path / "labels.jsonl").write_text(GOOD)
    with pytest.raises(HFIError, match="no pictures to judge yet.*hfi generate"):
        import_judgements(study, tmp_path / "labels.jsonl")


def test_a_half_written_list_of_pictures_is_named(study, tmp_path):
    study.path("generate", "images.jsonl").write_text('{"id": "im0", "fi')
    (tmp_path / "labels.jsonl").write_text(GOOD)
    with pytest.raises(HFIError, match=r"images\.jsonl: half-written or damaged"):
        import_judgements(study, tmp_path / "labels.jsonl")


def test_duplicates_are_counted_and_what_is_known_is_not_added_again(study, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(GOOD + GOOD + json.dumps(RANKING) + "\n" + json.dumps(RANKING) + "\n\n")
    assert import_judgements(study, path) == {"read": 4, "added": 2, "duplicates": 2, "known": 0, "pictures": 0}
    assert import_judgements(study, path) == {"read": 4, "added": 0, "duplicates": 2, "known": 2, "pictures": 0}
    path.write_text(GOOD.replace("present", "absent"))
    assert import_judgements(study, path)["added"] == 1  # a later file supersedes
    with Store.of(study) as store:
        assert store.label_counts() == {"im0": {"present": 0, "absent": 1}}


def test_labels_may_be_written_in_several_ways(study, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffimage,label\r\nim0,1\r\nim1,No\r\nim2,TRUE\r\nim3,unsure\r\nim4,skip\r\n", encoding="utf-8")
    assert import_judgements(study, path, annotator="me")["added"] == 5
    with Store.of(study) as store:
        assert [(j.images[0], j.value) for j in store.judgements()] == [
            ("im0", "present"), ("im1", "absent"), ("im2", "present"), ("im3", "unsure"), ("im4", "skip")]  # fmt: skip


def test_a_spreadsheet_never_runs_an_exported_cell(study, tmp_path):
    (tmp_path / "labels.jsonl").write_text(GOOD.replace(': "ann"', ': "=cmd(A0)"'))
    import_judgements(study, tmp_path / "labels.jsonl")
    export_judgements(study, tmp_path / "out.csv")
    assert ",'=cmd" in (tmp_path / "out.csv").read_text()
    assert import_judgements(study, tmp_path / "out.csv") == {"read": 1, "added": 0, "duplicates": 0, "known": 1, "pictures": 0}


def test_exporting_nothing_says_so(study, tmp_path):
    with pytest.raises(HFIError, match="no judgements yet"):
        export_judgements(study, tmp_path / "out.csv")


def test_the_store_and_the_files_need_no_torch():
    code = "import sys, hfi.feedback.interchange, hfi.feedback.label; assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
