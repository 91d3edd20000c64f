"""Blind evaluation: nothing shown tells the models apart, the numbers are those of the answers, and the report has them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import fake_study

from hfi.cli.studies import pending, states
from hfi.errors import HFIError
from hfi.evaluation import human
from hfi.evaluation.evaluate import publish
from hfi.evaluation.measures_file import PARTS
from hfi.evaluation.measures_file import evaluated as evaluation
from hfi.feedback.judgements import Judgement
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.report.report import report
from hfi.workspace import write_json


@pytest.fixture
def study(tmp_path):
    return fake_study.build(tmp_path / "study", rate_after=0.2)[0]


def key(study) -> dict:
    return json.loads(study.path("human", "key.json").read_text())


def answer(study, round: str, people: dict[str, dict[str, str]]) -> None:
    """`people`: pseudonym -> {side: what it says of every picture of that side}; "judge" repeats the judge."""
    rows = []
    for row in key(study)[round]["pictures"]:
        for name, says in people.items():
            word = says[row["side"]].replace("judge", "present" if row["judge"] else "absent")
            rows.append(Judgement((row["id"],), name, "simulated" if name.startswith("sim") else "human", word, round=round))
    with Store.of(study) as store:
        store.record_many(rows)


def test_a_round_shows_both_models_on_the_same_prompts_and_says_nothing_of_which(study):
    made = human.build_rounds(study, pictures=6)
    assert [(one.name, one.question, one.pictures) for one in made] == [("human-concept", "concept", 12)]
    rows = key(study)["human-concept"]["pictures"]
    sides = {side: sorted(row["picture"] for row in rows if row["side"] == side) for side in ("before", "after")}
    assert sides["before"] == sides["after"] and len(set(sides["before"])) == 6
    shown = sorted(path.name for path in study.path("human", "images").iterdir())
    assert shown == sorted(f"{row['id']}.png" for row in rows) and not set(sides["before"]) & {row["id"] for row in rows}
    for row in rows:
        with Image.open(study.path("human", "images", f"{row['id']}.png")) as one, Image.open(
            study.path("evaluate", row["side"], f"{row['picture']}.png")) as original:  # fmt: skip
            assert one.convert("RGB").tobytes() == original.convert("RGB").tobytes() and not one.info
    assert [row["side"] for row in rows] != sorted(row["side"] for row in rows)


def test_the_queue_asks_the_round_and_its_answers_never_reach_the_reward(study):
    made = human.build_rounds(study, pictures=3)
    with Store.of(study) as store:
        items = Queue.of(study, store, made[0].name).next("ann", 8)
        assert sorted(item.images[0] for item in items) == sorted(row["id"] for row in key(study)["human-concept"]["pictures"])
        assert store.guideline(round="human-concept").text.startswith("Is “weapon” in this picture?")
    answer(study, "human-concept", {"ann": {"before": "present", "after": "absent"}})
    with Store.of(study) as store:
        assert list(store.judgements()) == [] and store.images() == set()


def test_rates_are_those_of_the_answers_beside_the_judge(study):
    human.build_rounds(study, pictures=10)
    assert human.rates(study) == ()
    answer(study, "human-concept", {"ann": {"before": "present", "after": "judge"}, "bob": {"before": "present", "after": "absent"},
                                    "cem": {"before": "unsure", "after": "skip"}})  # fmt: skip
    found = human.rates(study)[0]
    rows = [row for row in key(study)["human-concept"]["pictures"] if row["side"] == "after"]
    judged = sum(row["judge"] for row in rows) / len(rows)
    assert found.before.value == 1.0 and found.after.value == pytest.approx(judged / 2) and found.judge_after.value == pytest.approx(judged)
    assert found.before.low < 1.0 and found.before.n == 10 and found.raters == {"human": 2} and not found.simulated
    assert found.answers == 40 and found.rated == 20 and found.alpha is not None


def test_rounds_are_kept_and_a_new_evaluation_gets_new_ones(study):
    first = human.build_rounds(study, pictures=4)
    answer(study, "human-concept", {"ann": {"before": "present", "after": "absent"}})
    assert human.build_rounds(study, pictures=9) == first and human.rates(study)[0].answers == 8
    manifest = study.path("evaluate", "manifest.json")
    manifest.write_text(manifest.read_text().replace(json.loads(manifest.read_text())["digest"], "another"))
    assert human.rates(study) == () and human.rounds(study) == ()
    assert [one.name for one in human.build_rounds(study, pictures=4)] == ["human-2-concept"]
    assert set(key(study)) == {"human-concept", "human-2-concept"}


def test_styles_are_also_asked_beside_the_artists_pictures(tmp_path):
    study = fake_study.build(tmp_path / "study", kind="style")[0]
    (tmp_path / "real").mkdir()
    exif = Image.Exif()
    exif[0x013B] = "An Artist"
    Image.new("RGB", (40, 30), "red").save(tmp_path / "real" / "a <b>.jpg", exif=exif)
    made = human.build_rounds(study, pictures=3, references=tmp_path / "real")
    assert [one.name for one in made] == ["human-concept", "human-hand"]
    assert [path.name for path in made[1].references] == ["reference-001.png"]
    assert b"An Artist" not in made[1].references[0].read_bytes() and made[0].references == ()
    assert "same hand" in made[1].words and "style “noto”" in made[0].words


@pytest.mark.parametrize("what", ["not evaluated", "harm with references", "empty references", "damaged key"])
def test_what_is_wrong_is_named(tmp_path, what):
    study = fake_study.build(tmp_path / "study", kind="harm" if what == "harm with references" else "style")[0]
    (tmp_path / "real").mkdir()
    references = tmp_path / "real" if "references" in what else None
    if what == "not evaluated":
        study.path("evaluate", "manifest.json").unlink()
    if what == "damaged key":
        human.build_rounds(study, pictures=2)
        study.path("human", "key.json").write_text('{"human-concept": {"pictures": [{}]}}')
    with pytest.raises(HFIError) as caught:
        human.build_rounds(study, 2, references)
    assert "\n" not in str(caught.value)


def test_the_report_shows_raters_beside_the_judge_and_simulated_ones_are_marked(study):
    evaluated = fake_study.FakeEvaluated(study.path("evaluate"))
    page = report(evaluated, study)
    assert "Judged blind" not in page.read_text()
    human.build_rounds(study, pictures=8)
    answer(study, "human-concept", {"ann": {"before": "present", "after": "absent"}, "bob": {"before": "present", "after": "judge"}})
    words = report(evaluated, study).read_text()
    assert "Judged blind: Is “weapon” in this picture?" in words and "2 people" in words and "The raters were simulated" not in words
    saved = json.loads(study.path("metrics.json").read_text())["human"]["concept"]
    assert saved["before"]["value"] == 1.0 and saved["before"]["low"] < 1.0 and saved["simulated"] is False
    before = page.stat().st_mtime_ns
    assert report(evaluated, study).stat().st_mtime_ns == before  # nobody answered since
    answer(study, "human-concept", {"sim-1": {"before": "present", "after": "absent"}})
    words = report(evaluated, study).read_text()
    assert "2 people and 1 simulated annotator" in words and "The raters were simulated" in words


def test_what_raters_said_stays_when_the_numbers_are_published_again(study):
    """A run that finds the report current publishes evaluate's numbers once more: the same file, raters and all."""
    evaluated = fake_study.FakeEvaluated(study.path("evaluate"))
    human.build_rounds(study, pictures=4)
    answer(study, "human-concept", {"ann": {"before": "present", "after": "absent"}})
    report(evaluated, study)
    before = json.loads(study.path("metrics.json").read_text())
    assert publish(study).metrics["human"] == before["human"]
    report(evaluated, study)
    assert json.loads(study.path("metrics.json").read_text()) == before


def test_a_report_is_stale_when_people_rated_or_more_was_measured_since(study):
    evaluated = fake_study.FakeEvaluated(study.path("evaluate"))
    report(evaluated, study)
    assert states(study)["report"] == "done" and pending(study) == ()
    human.build_rounds(study, pictures=4)
    assert states(study)["report"] == "done"
    answer(study, "human-concept", {"ann": {"before": "present", "after": "absent"}})
    assert states(study)["report"] == "stale" and pending(study) == ("report",)
    report(evaluated, study)
    assert pending(study) == ()
    write_json(study.path("measures.json"), {"evaluated": evaluation(study), **{part: {} for part in PARTS}, "prompts": []})
    assert pending(study) == ("report",)
    report(evaluated, study)
    assert pending(study) == ()
