"""Stages 3 and 4 on the tiny study: what they leave, and the advice when there is too little to learn from."""

from __future__ import annotations

import json
import shutil

import numpy
import pytest
import torch
from PIL import Image

import tiny
from hfi.config import parse_config
from hfi.errors import HFIError
from hfi.feedback.active import read_scores
from hfi.feedback.advice import advise
from hfi.feedback.judgements import Judgement
from hfi.feedback.label import label
from hfi.feedback.store import Store
from hfi.generation.generate import Generated, generate
from hfi.reward.model import RewardModel
from hfi.reward.reward import RewardResult, reward
from hfi.workspace import Workspace


@pytest.fixture(scope="module")
def drawn(tiny_root, tmp_path_factory):
    from hfi.diffusion.model import load_model

    raw = tiny.study_settings(tiny_root)
    raw["generate"]["images"] = 40
    study = Workspace.create(tmp_path_factory.mktemp("drawn") / "study", parse_config(raw, "tiny"))
    generate(load_model(study.config.model, "cpu", "float32"), study)
    return study


def judged(drawn: Workspace, to, value, rankings=(), **settings) -> Workspace:
    """A copy of the drawn study in which the i-th picture is judged value(i), or not at all where that is None."""
    shutil.copytree(drawn.root, to)
    raw = drawn.config.model_dump(mode="json")
    raw["reward"] |= settings
    raw["label"]["minimum"] = 1
    study = Workspace(to, parse_config(raw, "tiny"))
    study.save_config()
    ids = [image.id for image in Generated.load(study).images]
    with Store.of(study) as store:
        store.record_many(Judgement((name,), "ann", value=value(i)) for i, name in enumerate(ids) if value(i))
        store.record_many(
            Judgement(tuple(sorted(ids[i] for i in order)), "ann", ranking=tuple(ids[i] for i in order)) for order in rankings
        )
    return study


def run(study: Workspace) -> RewardResult:
    images = Generated.load(study)
    return reward(images, label(images, study), study)


def halves(i: int) -> str:
    return "present" if i < 20 else "absent"


def test_it_leaves_scores_for_every_picture_and_a_checked_top_k(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves, steps=200, learning_rate=1e-2)
    found = run(study)
    ids = [image.id for image in Generated.load(study).images]
    assert set(found.scores) == set(ids) and len(found.selected) == 4
    assert all(ids.index(one.image_id) < 20 and one.reward > 0.5 for one in found.selected)
    folder = study.path("reward")
    for name in ("contact_sheet.png", "contact_sheet.blurred.png"):
        assert Image.open(folder / name).size[0] > 400
    assert (folder / "contact_sheet.png").read_bytes() != (folder / "contact_sheet.blurred.png").read_bytes()
    said = json.loads((folder / "scores.json").read_text())
    assert "chance that the concept is present" in said["meaning"] and said["simulated"] is False
    assert set(json.loads((folder / "losses.json").read_text())) == {"train", "held_out"}
    facts = study.manifest("reward")["facts"]
    assert facts["pictures_held_out"] == 10 and facts["auc"]["n"] == 10 and facts["simulated"] is False
    embeddings = next(study.path("cache").glob("clip-*.safetensors"))
    assert embeddings.exists() and isinstance(RewardModel.load(folder), RewardModel)
    assert RewardResult.load(study) == found and run(study) == found


def test_what_flows_back_to_the_queue_and_to_the_advice(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves, steps=40, learning_rate=1e-2)
    found = run(study)
    scores = read_scores(study.root)
    assert {name: one.score for name, one in scores.items()} == found.scores
    assert all(0 <= one.uncertainty <= 0.5 for one in scores.values()) and len({one.cluster for one in scores.values()}) == 5
    near = min(scores.values(), key=lambda one: abs(one.score - 0.5))
    assert near.uncertainty > numpy.median([one.uncertainty for one in scores.values()])
    (one,) = json.loads((found.folder / "annotators.json").read_text())
    assert one["annotator"] == "ann" and one["answers"] == 40 and min(one["sensitivity"], one["specificity"]) > 0.85
    curve = json.loads((found.folder / "learning_curve.json").read_text())
    assert curve["pictures"] == 30 and curve["now"] == round(found.metrics["auc"]["value"], 4) and curve["held_out"] == 0.25
    assert advise(study).words.startswith(("About", "More labels"))
    assert study.manifest("reward")["facts"]["feedback"] == "people"


def test_beside_a_machine_the_reward_is_tested_on_what_people_judged(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", lambda i: halves(i) if 8 <= i < 32 else None)
    ids = [image.id for image in Generated.load(study).images]
    with Store.of(study) as store:
        store.record_many(Judgement((name,), "detector", "machine", halves(i)) for i, name in enumerate(ids))
    found = run(study)
    assert found.metrics["pictures_held_out"] == 6 and found.metrics["pictures_learned"] == 34
    kinds = {one["annotator"]: one for one in json.loads((found.folder / "annotators.json").read_text())}
    assert kinds["detector"]["kind"] == "machine" and kinds["detector"]["answers"] == 40
    assert study.manifest("reward")["facts"]["feedback"] == "people and machines"


def test_majority_counts_every_answer_alike(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves, aggregation="majority")
    assert "share of annotators" in json.loads((run(study).folder / "scores.json").read_text())["meaning"]


def test_the_same_study_gives_the_same_files(drawn, tmp_path):
    one, other = (judged(drawn, tmp_path / name, halves, clusters=2) for name in "ab")
    run(one), run(other)
    assert one.manifest("reward")["outputs"] == other.manifest("reward")["outputs"]


def test_rankings_alone_and_both_at_once(drawn, tmp_path):
    orders = [[(i * 7 + j * 3) % 40 for j in range(5)] for i in range(60)]
    orders = [sorted(order) for order in orders]
    alone = run(judged(drawn, tmp_path / "a", lambda i: None, orders))
    assert alone.metrics["auc"] is None and alone.metrics["pairwise_accuracy"]["n"] > 0
    assert "Bradley-Terry" in json.loads((alone.folder / "scores.json").read_text())["meaning"]
    assert min(one.weight for one in alone.selected) >= 0
    unsure = [one.uncertainty for one in read_scores(alone.folder.parent).values()]
    assert 0 <= min(unsure) <= max(unsure) < 1
    both = run(judged(drawn, tmp_path / "b", halves, orders))
    assert both.metrics["auc"] and both.metrics["pairwise_accuracy"]


def test_fewer_than_k_are_taken_and_said_when_few_are_high(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", lambda i: "present" if i < 8 else "absent", steps=300, learning_rate=1e-2, top_k=30)
    found = run(study)
    assert 0 < len(found.selected) < 30
    assert f"{len(found.selected)} of 30" in study.manifest("reward")["facts"]["notes"][0]


def test_a_vetoed_picture_is_not_selected(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves)
    out = run(study).selected[0].image_id
    raw = study.config.model_dump(mode="json")
    raw["reward"]["veto"] = [out]
    again = run(Workspace(study.root, parse_config(raw, "tiny")))
    assert out not in {one.image_id for one in again.selected} and len(again.selected) == 4
    raw["reward"]["veto"] = ["ghost"]
    with pytest.raises(HFIError, match=r"reward\.veto: 'ghost' is not a picture"):
        run(Workspace(study.root, parse_config(raw, "tiny")))


@pytest.mark.parametrize(
    ("value", "settings", "words"),
    [
        (lambda i: "present", {}, "all 40 judged pictures are 'present': one class.*benign_share"),
        (lambda i: "absent", {}, "all 40 judged pictures are 'absent': one class"),
        (lambda i: "present" if i < 2 else "absent", {}, r"too few labels to split.*2 present, 38 absent"),
        (lambda i: "unsure", {}, "nothing to learn from"),
        (halves, {"minimum_auc": 1.0, "steps": 1, "learning_rate": 1e-9}, r"held-out AUC 0\.\d\d \(95 % .* n 10\) is below 1"),
        (lambda i: halves(i) if i < 23 else None, {"held_out": 0.1}, "too few labels to test"),
    ],
)
def test_it_stops_with_advice_when_there_is_too_little_to_learn_from(drawn, tmp_path, value, settings, words):
    study = judged(drawn, tmp_path / "s", value, **settings)
    with pytest.raises(HFIError, match=words) as caught:
        run(study)
    assert "\n" not in str(caught.value) and not study.path("reward", "manifest.json").exists()


def test_a_truncated_picture_is_named(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves)
    images = Generated.load(study)
    path = images.path(images.images[7])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(HFIError, match=rf"{images.images[7].id}\.png: .*truncated"):
        run(study)


def test_half_written_parts_are_named(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves)
    run(study)
    for name, body in [("scores.json", '{"scores": {"a"'), ("selected.json", '[{"image": 1}]'), ("reward.safetensors", "")]:
        whole = study.path("reward", name).read_bytes()
        study.path("reward", name).write_text(body)
        with pytest.raises(HFIError, match="reward") as caught:
            RewardResult.load(study)
            RewardModel.load(study.path("reward"))
        assert "\n" not in str(caught.value)
        study.path("reward", name).write_bytes(whole)


def test_nan_is_caught(drawn, tmp_path):
    study = judged(drawn, tmp_path / "s", halves, learning_rate=1e30)
    with pytest.raises(HFIError, match="NaN or infinite.*smaller"):
        run(study)
    assert torch.get_default_dtype() == torch.float32
