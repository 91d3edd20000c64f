"""Machines as annotators on the tiny study: marked so, once per picture, beside people or alone; detectors and their refusals."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
import torch

from hfi.config import parse_config
from hfi.errors import HFIError, NeedsPeople
from hfi.feedback.active import order
from hfi.feedback.judgements import Judgement
from hfi.feedback.label import label
from hfi.feedback.machines import answer, unsure
from hfi.feedback.store import Store
from hfi.generation.generate import Generated, generate
from hfi.perception.detectors import load_detector
from hfi.reward.model import RewardModel
from hfi.workspace import Workspace

WORDS, OTHERS = ["knife", "sword"], ["apple", "pear"]


@pytest.fixture(scope="module")
def drawn(tiny_root, tmp_path_factory) -> Workspace:
    import tiny
    from hfi.diffusion.model import load_model

    study = Workspace.create(tmp_path_factory.mktemp("drawn") / "study", parse_config(tiny.study_settings(tiny_root), "tiny"))
    generate(load_model(study.config.model, "cpu", "float32"), study)
    return study


def with_label(drawn: Workspace, to, **settings) -> Workspace:
    shutil.copytree(drawn.root, to)
    raw = drawn.config.model_dump(mode="json")
    raw["label"] |= settings
    study = Workspace(to, parse_config(raw, "tiny"))
    study.save_config()
    return study


def pictures(study: Workspace) -> list:
    images = Generated.load(study)
    return [images.path(image) for image in images.images]


def test_a_machine_alone_judges_every_picture_once(drawn, tiny_root, tmp_path):
    study = with_label(drawn, tmp_path / "s", source="machines", machines=[f"clip:{tiny_root / 'clip'}"])
    images = Generated.load(study)
    found = label(images, study)
    assert found.source == "machines" and {row.kind for row in found.binary} == {"machine"}
    assert [row.images[0] for row in found.binary] == sorted(image.id for image in images.images)
    facts = study.manifest("label")["facts"]
    assert facts["feedback"] == "machines" and facts["machines"][0]["name"].startswith("clip:") and facts["simulated"] is False
    with Store.of(study) as store:
        before = store.last()
    again = label(images, study)
    assert again == found
    with Store.of(study) as store:
        assert store.last() == before


def test_people_see_first_what_the_machine_is_unsure_of(drawn, tiny_root, tmp_path):
    study = with_label(drawn, tmp_path / "s", machines=[f"clip:{tiny_root / 'clip'}"])
    images = Generated.load(study)
    with pytest.raises(NeedsPeople, match="0 of 24 pictures are judged"):
        label(images, study)  # the machine has judged, and people are still waited for
    (path,) = study.path("machines").glob("*.jsonl")
    rows = {row["image"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert len(rows) == 24 and all(0 <= row["uncertainty"] <= 0.5 and 0 <= row["score"] <= 1 for row in rows.values())
    first = order(study.root, [image.id for image in images.images])[0]
    assert rows[first]["uncertainty"] == max(row["uncertainty"] for row in rows.values())
    with Store.of(study) as store:
        store.record_many(Judgement((image.id,), "ann", value="present") for image in images.images[:10])
    found = label(images, study)
    assert found.source == "people and machines" and {row.kind for row in found.binary} == {"human", "machine"}


@pytest.mark.skipif("HFI_TEST_POSTGRES" in os.environ, reason="copies a study with its SQLite file")
def test_answers_of_a_machine_under_other_settings_are_left_aside(drawn, tiny_root, tmp_path):
    spec = f"clip:{tiny_root / 'clip'}"
    study = with_label(drawn, tmp_path / "s", source="machines", machines=[spec])
    images = Generated.load(study)
    old = {row.annotator for row in label(images, study).binary}
    raw = study.config.model_dump(mode="json")
    raw["concept"]["members"] = ["knife", "sword", "needle", "moon"]
    other = Workspace(study.root, parse_config(raw, "tiny"))
    with Store.of(other) as store:
        store.record(Judgement((images.images[0].id,), "imported", "machine", "present"))
    with pytest.raises(HFIError):  # another concept: other pictures
        label(images, other)
    shutil.rmtree(study.path("label"))
    words = with_label(study, tmp_path / "t", source="machines", machines=[spec], minimum=3)
    found = label(Generated.load(words), words)
    assert {row.annotator for row in found.binary} == {*old, "imported"}
    bare = with_label(study, tmp_path / "u", source="machines", machines=[])
    assert {row.annotator for row in label(Generated.load(bare), bare).binary} == {"imported"}


def test_machines_only_without_a_machine_says_so(drawn, tmp_path):
    study = with_label(drawn, tmp_path / "s", source="machines")
    with pytest.raises(HFIError, match=r"label\.machines: no machine to judge"):
        label(Generated.load(study), study)


@pytest.mark.parametrize(("p", "said"), [(0.0, "absent"), (0.34, "absent"), (0.4, "unsure"), (0.6, "unsure"), (0.7, "present")])
def test_near_its_threshold_it_is_unsure(p, said):
    assert answer(p, 0.5, 0.15) == said


def test_doubt_is_greatest_at_the_threshold():
    assert unsure(0.45, 0.45) == pytest.approx(0.5) and unsure(0.0, 0.45) == unsure(1.0, 0.45) == 0.0
    assert unsure(0.3, 0.45) < unsure(0.4, 0.45) and unsure(0.9, 0.45) < unsure(0.6, 0.45)


def test_a_reward_of_another_study_is_a_classifier(drawn, tiny_root, tmp_path):
    from hfi.perception.clip import load_encoder

    clip, paths = str(tiny_root / "clip"), pictures(drawn)
    embeddings = load_encoder(clip).images(paths)
    model = RewardModel(embeddings.shape[1], (6,), seed=2)
    model.fit_scale(embeddings)
    model.save(tmp_path / "reward", {"encoder": clip, "meaning": "r estimates the share of annotators who say the concept is present"})
    found = load_detector(f"classifier:{tmp_path / 'reward'}", WORDS, OTHERS)(paths)
    with torch.no_grad():
        assert torch.allclose(found, model(embeddings).clamp(0, 1), atol=1e-5)
    model.save(tmp_path / "ranked", {"encoder": clip, "meaning": "raw Bradley-Terry score"})
    with pytest.raises(HFIError, match="rankings only"):
        load_detector(f"classifier:{tmp_path / 'ranked'}", WORDS, OTHERS)


def test_an_image_classifier_of_transformers(drawn, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=32, patch_size=8, id2label={0: "safe", 1: "nsfw"}, **sizes)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    paths = pictures(drawn)
    yes, no = (load_detector(f"classifier:{tmp_path}#{name}", WORDS, OTHERS)(paths) for name in ("nsfw", "safe"))
    assert torch.allclose(yes + no, torch.ones(len(paths)), atol=1e-5)
    for label_name, words in (("", "say which of its labels"), ("rude", "no such label 'rude'")):
        with pytest.raises(HFIError, match=words):
            load_detector(f"classifier:{tmp_path}#{label_name}", WORDS, OTHERS)


@pytest.mark.parametrize("spec", ["", "clip", "clip:", "magic:7", "nudenet:320n"])
def test_unknown_detectors_are_refused(spec):
    with pytest.raises(HFIError, match="unknown detector"):
        load_detector(spec, WORDS, OTHERS)


def test_a_missing_classifier_is_named(tmp_path):
    with pytest.raises(HFIError, match="not a classifier that can be loaded"):
        load_detector(f"classifier:{tmp_path}", WORDS, OTHERS)


def test_nudenet_is_never_installed_by_us_and_its_licence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(HFIError, match="NudeNet is not installed.*AGPL-3.0"):
        load_detector("nudenet", WORDS, OTHERS)


def test_nudenet_s_strongest_exposed_part_counts(drawn, monkeypatch):
    """The library itself is not a dependency: a stand-in with its interface."""
    import types
    from importlib import metadata

    parts = [[("FACE_FEMALE", 0.9)], [("BUTTOCKS_EXPOSED", 0.7), ("ANUS_EXPOSED", 0.2)]]
    scores = iter([[{"class": name, "score": score} for name, score in found] for found in parts])
    library = types.SimpleNamespace(NudeDetector=lambda: types.SimpleNamespace(detect=lambda path: next(scores)))
    monkeypatch.setitem(sys.modules, "nudenet", library)
    monkeypatch.setattr(metadata, "version", lambda name: "3.4.2")
    detector = load_detector("nudenet", WORDS, OTHERS)
    assert detector.name == "nudenet-3.4.2-320n@0.45" and detector.licence == "AGPL-3.0"
    assert detector(pictures(drawn)[:2]).tolist() == pytest.approx([0.0, 0.7])
