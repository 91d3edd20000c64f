"""Stage 2 on the tiny study: people, simulated annotators, and both; stopped and continued."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

import tiny
from hfi.config import parse_config
from hfi.errors import HFIError, NeedsPeople
from hfi.feedback import play as play_module
from hfi.feedback.judgements import Judgement
from hfi.feedback.label import Judgements, label, status
from hfi.feedback.store import Store
from hfi.generation.generate import Generated, generate
from hfi.workspace import Workspace


@pytest.fixture(scope="module")
def drawn(tiny_root, tmp_path_factory):
    """A tiny study whose pictures are drawn, to be copied."""
    from hfi.diffusion.model import load_model

    study = Workspace.create(tmp_path_factory.mktemp("drawn") / "study", parse_config(tiny.study_settings(tiny_root), "tiny"))
    generate(load_model(study.config.model, "cpu", "float32"), study)
    return study


def copy(drawn: Workspace, to, **settings) -> Workspace:
    shutil.copytree(drawn.root, to)
    raw = drawn.config.model_dump(mode="json")
    raw["label"] |= settings
    raw["evaluate"]["judge"] = "emoji:scorer"  # the one there is plays annotators here
    study = Workspace(to, parse_config(raw, "tiny"))
    study.save_config()
    return study


def simulated(drawn, to, **settings) -> Workspace:
    return copy(drawn, to, source="simulated", simulated_judge=drawn.config.evaluate.judge, judgement="both", rankings=6, **settings)


def test_the_study_waits_for_people_and_says_how_many(drawn, tmp_path):
    study = copy(drawn, tmp_path / "s")
    with Store.of(study) as store:
        store.record(Judgement((Generated.load(study).images[0].id,), "ann", value="present"))
    with pytest.raises(NeedsPeople, match=r"1 of 24 pictures are judged \(1 judgements\), 8 are needed") as caught:
        label(Generated.load(study), study)
    assert "\n" not in str(caught.value) and not study.path("label").exists()


def test_the_judge_that_scores_plays_no_annotator(drawn, tmp_path):
    study = copy(drawn, tmp_path / "s", source="simulated", simulated_judge="emoji:scorer")
    with pytest.raises(HFIError, match="must not play annotators") as caught:
        label(Generated.load(study), study)
    assert caught.value.field == "label.simulated_judge" and not study.path("label", "judgements.jsonl").exists()


def test_simulated_judgements_do_not_stand_in_for_people(drawn, tmp_path):
    study = copy(drawn, tmp_path / "s")
    images = Generated.load(study)
    with Store.of(study) as store:
        store.record_many(Judgement((image.id,), "sim", "simulated", "present") for image in images.images)
    with pytest.raises(NeedsPeople, match="0 of 24"):
        label(images, study)


def test_peoples_judgements_are_shared_out_and_newer_ones_are_read(drawn, tmp_path):
    study = copy(drawn, tmp_path / "s")
    images = Generated.load(study)
    ids = [image.id for image in images.images]
    with Store.of(study) as store:
        store.record_many(Judgement((name,), "ann", value="present" if i % 2 else "absent") for i, name in enumerate(ids))
        store.record(Judgement((ids[0],), "bob", value="present"))
        store.record(Judgement((ids[1],), "bob", value="unsure"))
    found = label(images, study)
    assert found.soft_labels()[ids[0]] == 0.5 and found.soft_labels()[ids[1]] == 1.0 and not found.simulated
    assert study.manifest("label")["facts"]["annotators"] == {"human": 2, "machine": 0}
    digest = study.manifest("label")["digest"]
    label(images, study)
    assert study.manifest("label")["digest"] == digest
    with Store.of(study) as store:
        store.record(Judgement((ids[2],), "cem", value="present"))
    assert label(images, study).votes()[ids[2]] == (1, 2)


def test_simulated_annotators_are_marked_wherever_they_appear(drawn, tmp_path):
    study = simulated(drawn, tmp_path / "s")
    found = label(Generated.load(study), study)
    assert found.simulated and {row.kind for row in (*found.binary, *found.rankings)} == {"simulated"}
    assert len(found.binary) == 24 * 2 and len(found.rankings) == 18
    facts = study.manifest("label")["facts"]
    assert facts["simulated"] is True and len(facts["simulated_annotators"]) == 3
    assert '"simulated"' in study.path("label", "judgements.jsonl").read_text()
    assert status(study)["simulated"] is True and status(study)["annotators"] == {"simulated": 3}


def test_a_stopped_stage_continues_to_the_same_judgements(drawn, tmp_path, monkeypatch):
    whole, stopped = simulated(drawn, tmp_path / "a"), simulated(drawn, tmp_path / "b")
    label(Generated.load(whole), whole)
    monkeypatch.setattr(play_module, "BATCH", 5)
    look, calls = play_module._look, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(*arguments)

    monkeypatch.setattr(play_module, "_look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        label(Generated.load(stopped), stopped)
    with Store.of(stopped) as store:
        assert store.counts()["judgements"] == 20
    label(Generated.load(stopped), stopped)
    assert stopped.path("label", "judgements.jsonl").read_bytes() == whole.path("label", "judgements.jsonl").read_bytes()
    assert stopped.manifest("label")["digest"] == whole.manifest("label")["digest"]


def test_a_picture_on_which_nobody_decided_is_shown_to_one_more_until_one_does(drawn, tmp_path, monkeypatch):
    study = simulated(drawn, tmp_path / "s")
    images = Generated.load(study)
    hard, ids = images.images[3].id, {image.id for image in images.images}
    answer, asked = play_module.judge_binary, []

    def hesitant(person, image_id, seen, seed):
        asked.append((person.pseudonym, image_id))
        given = answer(person, image_id, seen, seed)
        others = sum(name == image_id for _, name in asked)
        return replace(given, value=("unsure", "skip", "present")[others - 1] if image_id == hard else "absent")

    monkeypatch.setattr(play_module, "judge_binary", hesitant)
    found = label(images, study)
    said = [row.value for row in found.binary if row.images == (hard,)]
    assert sorted(said) == ["present", "skip", "unsure"] and found.votes()[hard] == (1, 1)
    assert all(sum(row.images == (name,) for row in found.binary) == 2 for name in ids - {hard})
    assert len(set(asked)) == len(asked)


def test_pictures_on_which_nobody_at_all_decides_are_left_out_and_asked_about_once(drawn, tmp_path, monkeypatch):
    study = simulated(drawn, tmp_path / "s")
    images, answer = Generated.load(study), play_module.judge_binary
    hard = images.images[0].id

    def never(person, image_id, seen, seed):
        return replace(answer(person, image_id, seen, seed), value="unsure" if image_id == hard else "absent")

    monkeypatch.setattr(play_module, "judge_binary", never)
    found = label(images, study)
    assert sum(row.images == (hard,) for row in found.binary) == 3 and hard not in found.soft_labels()


def test_people_come_first_and_simulated_annotators_fill_the_rest(drawn, tmp_path):
    study = simulated(drawn, tmp_path / "s")
    images = Generated.load(study)
    with Store.of(study) as store:
        store.record_many(Judgement((images.images[0].id,), name, value="present") for name in ("ann", "bob"))
    found = label(images, study)
    assert [row.kind for row in found.binary if row.images == (images.images[0].id,)] == ["human", "human"]


def test_annotators_of_other_settings_are_left_aside(drawn, tmp_path):
    study = simulated(drawn, tmp_path / "s")
    label(Generated.load(study), study)
    raw = study.config.model_dump(mode="json")
    raw["label"]["error_rate"] = 0.3
    changed = Workspace(study.root, parse_config(raw, "tiny"))
    found = label(Generated.load(changed), changed)
    assert len(found.binary) == 48 and changed.manifest("label")["facts"]["left_aside"] == 66


def test_a_damaged_snapshot_is_named(drawn, tmp_path):
    study = simulated(drawn, tmp_path / "s")
    label(Generated.load(study), study)
    path = study.path("label", "judgements.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HFIError, match=r"judgements\.jsonl: half-written or damaged.*safe in feedback\.sqlite"):
        Judgements.load(study)
    path.unlink()
    with pytest.raises(HFIError, match="missing"):
        Judgements.load(study)


def test_status_before_anything_is_judged(tiny_study):
    assert status(tiny_study)["judged"] == 0 and status(tiny_study)["needed"] == 8
