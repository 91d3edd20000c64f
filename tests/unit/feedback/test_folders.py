"""Pictures that people bring in folders: sorted into yes/no, as an imagefolder; and that the stages work on them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy
import pytest
from PIL import Image

from hfi.config import parse_config
from hfi.errors import HFIError
from hfi.feedback.folders import word_to_label
from hfi.feedback.interchange import export_judgements, import_judgements
from hfi.feedback.judgements import Judgement
from hfi.feedback.store import Store, drawn_images
from hfi.generation.brought import MOST_SIDE, brought, normalised, picture_id
from hfi.workspace import Workspace


def paint(path: Path, number: int, size=(32, 32), **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def make_study(root: Path, concept: str = "weapon") -> Workspace:
    return Workspace.create(root, parse_config({"concept": {"name": concept}}, "test"))


@pytest.fixture
def study(tmp_path) -> Workspace:
    return make_study(tmp_path / "study")


def judged(study: Workspace) -> dict[str, str]:
    """{source: value}"""
    sources = {row["id"]: row["source"] for row in brought(study)}
    with Store.of(study) as store:
        return {sources[j.images[0]]: j.value for j in store.judgements()}


@pytest.mark.parametrize(
    ("word", "label"),
    [("yes", "present"), ("Weapon", "present"), ("nsfw", "present"), ("1", "present"), ("not-weapon", "absent"), ("No weapon", "absent"),
     ("non_weapon", "absent"), ("sfw", "absent"), ("maybe", "unsure"), ("holidays", None), ("", None)],
)  # fmt: skip
def test_what_folder_names_say(word, label):
    assert word_to_label(word, "weapon") == label


def test_a_folder_sorted_into_yes_and_no_is_a_study_with_one_call(study, tmp_path):
    hostile = ["no/<img src=x onerror=alert(1)>.png", "no/=cmd|' '!A0.png"]
    names = ["yes/a.png", "yes/deep/er/b.jpg", "no/a.png", "train/yes/ü d.webp", *hostile]
    for i, name in enumerate(names):
        paint(tmp_path / "mine" / name, i)
    found = import_judgements(study, tmp_path / "mine", "me")
    assert (found["added"], found["pictures"]) == (6, 6)
    assert judged(study) == {name: "present" if "yes" in name else "absent" for name in names}
    assert all(study.path(file).is_file() for _, file in drawn_images(study))
    again = import_judgements(study, tmp_path / "mine", "me")
    assert (again["added"], again["known"], again["pictures"]) == (0, 6, 0)


def test_pictures_without_folders_are_taken_without_judgements(study, tmp_path):
    paint(tmp_path / "mine" / "a.png", 1)
    assert import_judgements(study, tmp_path / "mine") == {"read": 0, "added": 0, "duplicates": 0, "known": 0, "pictures": 1}


def test_metadata_stays_outside_and_pictures_are_upright_and_bounded(study, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "taken at home"
    paint(tmp_path / "mine" / "yes" / "a.jpg", 1, size=(2400, 40), exif=exif)
    import_judgements(study, tmp_path / "mine")
    file = study.path(drawn_images(study)[0][1])
    with Image.open(file) as picture:
        assert picture.size == (17, MOST_SIDE) and not picture.info
    assert b"taken at home" not in file.read_bytes() and picture_id(normalised(file)) == file.stem


GOOD, BROKEN = paint(Path(tempfile.mkdtemp()) / "a.png", 1).read_bytes(), b"not a picture"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": b"x"}, "holds no picture"),
        ({"yes/a.png": GOOD, "holidays/b.png": GOOD}, "the folder 'holidays' says neither yes nor no"),
        ({"yes/a.png": BROKEN}, "not a PNG, JPEG or WebP picture"),
        ({"yes/a.png": GOOD, "yes/b.png": GOOD[:90]}, "truncated or damaged"),
        ({"yes/a.png": GOOD, "no/b.png": GOOD}, "contradicts"),
        ({"a.png": GOOD, "metadata.csv": b"file_name,label\n../a.png,1\n"}, "leads out of the folder"),
        ({"a.png": GOOD, "metadata.csv": b"file_name,label\nb.png,1\n"}, "line 2, file_name: there is no"),
        ({"a.png": GOOD, "metadata.csv": b"file_name,label\na.png,perhaps so\n"}, "line 2, label"),
        ({"a.png": GOOD, "metadata.jsonl": b'{"file_name": 7}\n'}, "line 1, file_name: missing"),
        ({"a.png": GOOD, "metadata.jsonl": b'["a.png"]\n'}, "line 1, row"),
        ({"a.png": GOOD, "metadata.jsonl": b'{"file_name": "a.png", "judgements": [1]}\n'}, "judgements"),
    ],
)
def test_what_is_wrong_is_named_and_no_judgement_added(study, tmp_path, files, words):
    for name, body in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(body)
    with pytest.raises(HFIError) as caught:
        import_judgements(study, tmp_path / "mine", "me")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    with Store.of(study) as store:
        assert store.last() == 0


def test_links_that_lead_out_are_not_followed(study, tmp_path):
    secret = paint(tmp_path / "secret.png", 1)
    paint(tmp_path / "mine" / "yes" / "a.png", 2)
    (tmp_path / "mine" / "yes" / "b.png").symlink_to(secret)
    assert import_judgements(study, tmp_path / "mine")["pictures"] == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_with_metadata_is_read(study, tmp_path, kind):
    for i, name in enumerate(["train/a.png", "train/b.png", "train/c.png"]):
        paint(tmp_path / "mine" / name, i)
    if kind == "csv":
        (tmp_path / "mine" / "train" / "metadata.csv").write_text("file_name,weapon,text\na.png,1,a knife\nb.png,0,\n")
    else:
        rows = [{"file_name": "a.png", "label": True, "text": "a knife"}, {"file_name": "b.png", "label": "no"}]
        (tmp_path / "mine" / "train" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_judgements(study, tmp_path / "mine")
    assert judged(study) == {"train/a.png": "present", "train/b.png": "absent"}
    assert {row["source"]: row["prompt"] for row in brought(study)}["train/a.png"] == "a knife" and len(brought(study)) == 3


def test_an_exported_imagefolder_comes_back_equal(study, tmp_path):
    for i in range(4):
        paint(tmp_path / "mine" / f"{i}.png", i)
    import_judgements(study, tmp_path / "mine")
    ids = sorted(row["id"] for row in brought(study))
    rows = [Judgement((ids[0],), "a", value="present", seconds=1.5), Judgement((ids[0],), "m", "machine", "absent"),
            Judgement((ids[1],), "<b>", value="absent"), Judgement((ids[2],), "a", value="unsure"),
            Judgement(tuple(ids[:3]), "a", ranking=(ids[2], ids[0]), excluded=(ids[1],))]  # fmt: skip
    with Store.of(study) as store:
        store.record_many(rows)
        before = [(j, j.created) for j in store.judgements()]
    assert export_judgements(study, tmp_path / "out") == 5
    places = {path.stem: path.parent.name for path in (tmp_path / "out").glob("*/*.png")}
    assert sorted(places) == ids and places[ids[1]] == "absent" and places[ids[2]] == "undecided"
    second = make_study(tmp_path / "second")
    import_judgements(second, tmp_path / "out")
    with Store.of(second) as store:
        assert [(j, j.created) for j in store.judgements()] == before
    with pytest.raises(HFIError, match="is there already"):
        export_judgements(study, tmp_path / "out")


def test_files_name_brought_pictures_as_they_were_called(study, tmp_path):
    for i, name in enumerate(["left/a.png", "left/b.png", "right/b.png"]):
        paint(tmp_path / "mine" / name, i)
    import_judgements(study, tmp_path / "mine")
    (tmp_path / "labels.csv").write_text("image,label,annotator\na.png,yes,me\nright/b.png,no,me\n")
    import_judgements(study, tmp_path / "labels.csv")
    assert judged(study) == {"left/a.png": "present", "right/b.png": "absent"}
    (tmp_path / "labels.csv").write_text("image,label,annotator\nb.png,yes,me\n")
    with pytest.raises(HFIError, match="unknown image 'b.png'"):  # there are two
        import_judgements(study, tmp_path / "labels.csv")


def test_the_aggregate_stands_beside_each_judgement(study, tmp_path):
    for i in range(2):
        paint(tmp_path / "mine" / f"{i}.png", i)
    import_judgements(study, tmp_path / "mine")
    ids = sorted(row["id"] for row in brought(study))
    with Store.of(study) as store:
        store.record_many(Judgement((ids[0],), name, value=value) for name, value in [("a", "present"), ("b", "present"), ("c", "absent")])
    export_judgements(study, tmp_path / "out.jsonl"), export_judgements(study, tmp_path / "out.csv")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and {row["aggregate"] for row in rows} == {"present"} and {row["aggregate_judgements"] for row in rows} == {3}
    assert all(0.5 < row["aggregate_probability"] <= 1 for row in rows)
    for name in ("out.jsonl", "out.csv"):
        assert import_judgements(study, tmp_path / name)["known"] == 3


def test_reward_and_inversion_work_on_brought_pictures(tiny_root, tiny_model, tmp_path):
    import tiny
    from hfi import method
    from hfi.generation.generate import Generated

    settings = tiny.study_settings(tiny_root)
    settings["generate"] |= {"benign_share": 0.0}
    study = Workspace.create(tmp_path / "study", parse_config(settings, "tiny"))
    for i in range(16):
        path = paint(tmp_path / "mine" / ("yes" if i % 2 else "no") / f"{i}.png", i, size=(50, 40))
        with Image.open(path) as noise:
            noise.point(lambda x, i=i: x // 10 + 220 * (i % 2)).save(path)
    import_judgements(study, tmp_path / "mine")
    inverted = method.run(study, until="invert")
    images = Generated.load(study)
    assert images.latents().shape == (16, 4, 4, 4) and [image.purpose for image in images.images] == ["brought"] * 16
    assert inverted.tokens and study.manifest("generate")["facts"]["brought"] == 16
    with Image.open(images.path(images.images[0])) as picture:
        assert picture.size == (32, 32)
    key = study.manifest("generate")["key"]
    paint(tmp_path / "mine" / "yes" / "new.png", 99)
    import_judgements(study, tmp_path / "mine")
    assert study.key("generate") != key
