"""The erase stage with other methods than SDD: what it writes, what it refuses before it clears anything."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import tiny
from hfi.config import Erase, Memory, parse_config
from hfi.diffusion.text import encode_prompts
from hfi.erasure.delta import Delta, load_delta
from hfi.erasure.erase import check_erasable, concept_names, erase
from hfi.errors import HFIError
from hfi.evaluation.quick import round_score
from hfi.generation.generate import generate
from hfi.workspace import Workspace


@pytest.fixture
def make(tiny_root, tiny_model, tmp_path):
    """A function: settings of `erase` -> (study, pictures, reward, tokens) with a made-up reward and token."""
    if not (tiny_root / "clip2").exists():
        tiny.save_clip(tiny_root / "clip2", seed=2)

    def build(**changes):
        settings = tiny.study_settings(tiny_root)
        settings["erase"] |= changes
        study = Workspace.create(tmp_path / "study", parse_config(settings, "tiny"))
        images = generate(tiny_model, study)
        for stage in ("label", "reward", "invert"):
            with study.stage(stage) as run:
                run.path("made-up.txt").write_text("made up")
        chosen = [SimpleNamespace(image_id=image.id, cluster=n % 2) for n, image in enumerate(images.images[:4])]
        flagged, scores = [one.image_id for one in chosen], {image.id: 0.1 for image in images.images}
        reward = SimpleNamespace(selected=chosen, flagged=flagged, scores=scores, words=(), kept_words=())
        rows = tiny_model.text_encoder.get_input_embeddings().weight[[40, 50]].detach().clone()
        return study, images, reward, SimpleNamespace(tokens={"<sharp>": rows})

    return build


def test_hardened_sdd_is_judged_by_a_judge_of_its_own(make, tiny_model, tiny_root, capsys):
    hard = {"rounds": 1, "steps": 1, "attack_steps": 1, "pictures": 2, "vectors": [3], "reinversions": 1, "embeddings": 1}
    study, *parts = make(method="hardened", hardened={**hard, "judge": f"clip:{tiny_root / 'clip2'}"})
    delta = erase(tiny_model, *parts, study, round_score(tiny_model, study)).delta
    assert len(delta.manifest["rounds"]) == 2 and all(0 <= one["erasure"] <= 1 for one in delta.manifest["rounds"])
    assert delta.manifest["method"] == "hardened"
    assert study.is_done("erase") and study.manifest("erase")["facts"]["snapshots"] == []
    assert {name: study.manifest("erase")["facts"][name] for name in ("rounds", "kept_round")} == {
        name: delta.manifest[name] for name in ("rounds", "kept_round")
    }
    assert all(one["worst"] >= 0.0 for one in delta.manifest["rounds"])
    told = "".join(capsys.readouterr())
    assert "round 0: drawn in" in told and "round 1: drawn in" in told and "strongest attack" in told


@pytest.mark.parametrize(("objects", "styles", "damage"), [(1.0, 0.75, 0.25), (0.5, 0.75, 0.5), (None, None, 0.0)])
def test_a_round_costs_what_it_loses_of_objects_or_of_styles(make, tiny_model, tiny_root, monkeypatch, objects, styles, damage):
    study, *_ = make(method="hardened", hardened={"judge": f"clip:{tiny_root / 'clip2'}"})
    seen = {"concept_rate": 0.125, "retention": objects, "retention_styles": styles}
    monkeypatch.setattr("hfi.evaluation.quick.quick_scores", lambda *given, **more: seen)
    assert round_score(tiny_model, study)(Delta({}), torch.zeros(0, 4, 16)) == (0.125, damage, [])


def test_a_round_over_several_concepts_is_as_good_as_the_worst_of_them(make, tiny_model, tiny_root, tmp_path, monkeypatch):
    settings = tiny.study_settings(tiny_root)
    pets = Workspace.create(tmp_path / "pets", parse_config(settings | {"concept": settings["concept"] | {
        "name": "pets", "members": ["cat", "dog"], "unlisted": []}}, "pets"))
    study, *_ = make(method="hardened", also=[str(pets.root)], hardened={"judge": f"clip:{tiny_root / 'clip2'}", "pictures": 3})
    rates, asked = {"sharp": 0.125, "pets": 0.5}, {}

    def scores(model, delta, config, *given, stays, **more):
        asked[config.concept.name] = stays
        return {"concept_rate": rates[config.concept.name], "retention": 0.75, "retention_styles": 1.0}

    monkeypatch.setattr("hfi.evaluation.quick.quick_scores", scores)
    score = round_score(tiny_model, study)
    assert score(Delta({}), torch.zeros(0, 4, 16)) == (0.5, 0.25, [])
    objects, styles = asked["sharp"]
    assert "apple" in objects and not {"cat", "dog", "knife"} & set(objects) and styles == ["ink", "chalk"]
    rates["pets"] = 0.0
    monkeypatch.setattr("hfi.evaluation.quick.is_concept", lambda verdict, concept, names: concept.name == "pets")
    assert score(Delta({}), encode_prompts(tiny_model, ["a cat"]))[0] == 1.0  # under what attacks found, either of them counts


def test_each_finding_is_judged_by_pictures_of_its_own(make, tiny_model, tiny_root, monkeypatch):
    study, *_ = make(method="hardened", hardened={"judge": f"clip:{tiny_root / 'clip2'}", "pictures": 5})
    seen = {"concept_rate": 0.0, "retention": 1.0, "retention_styles": 1.0}
    monkeypatch.setattr("hfi.evaluation.quick.quick_scores", lambda *given, **more: seen)
    shows = iter([True, False, True, True, False])  # in turn of the first and the second finding
    monkeypatch.setattr("hfi.evaluation.quick.is_concept", lambda *given: next(shows))
    erasure, damage, drawn = round_score(tiny_model, study)(Delta({}), encode_prompts(tiny_model, ["a cat", "a dog"]))
    assert (erasure, damage, drawn) == (0.6, 0.0, [0.6667, 0.5])


def test_a_study_opens_with_settings_that_hardening_once_had(make):
    study, *_ = make(method="hardened", hardened={"vectors": 5, "breadths": [6, 6, 12]})
    assert study.config.erase.hardened.vectors == (5,) and not hasattr(study.config.erase.hardened, "breadths")


def test_words_reach_the_method_and_the_manifest(make, tiny_model):
    study, *parts = make(method="sld", concept="words", words=["blade", "sharp edge"])
    erase(tiny_model, *parts, study)
    delta = load_delta(study.path("erase", "delta.safetensors"), tiny_model)
    assert not delta.weights and [one.method for one in delta.guidance] == ["sld"]
    assert (delta.manifest["erased"], delta.manifest["given_as"], delta.manifest["seed"]) == (["blade", "sharp edge"], "words", 3)
    assert concept_names([study], Erase(concept="words")) == ["sharp thing"]  # the vocabulary's words for the concept


def test_what_cannot_work_is_refused_before_anything_is_cleared(make, tiny_model):
    study, images, reward, _ = make()
    everything = SimpleNamespace(flagged=[image.id for image in images.images])
    for config, kept, what in [
        (Erase(method="esd", esd={"preservation": 1.0}), everything, "benign pictures"),
        (Erase(method="hardened"), everything, "benign pictures"),
        (Erase(method="sld", save_pipeline=True), reward, "while sampling"),
        (Erase(method="hardened", trainable="lora"), reward, "round to round"),
        (Erase(method="hardened", hardened={"vectors": [3, study.config.invert.vectors]}), reward, "vectors as well"),
        (Erase(method="hardened", hardened={"judge": study.config.evaluate.judge}), reward, "must not choose"),
    ]:
        with pytest.raises(HFIError, match=what):
            check_erasable(images, kept, study, config)
    halves = Workspace(study.root, study.config.model_copy(update={"memory": Memory(weights="bfloat16")}))
    for config in (Erase(method="hardened"), Erase(method="esd", esd={"layers": "esd-u"})):
        with pytest.raises(HFIError, match="memory.weights: what learns beyond cross-attention would begin at rounded weights"):
            check_erasable(images, reward, halves, config)
    check_erasable(images, reward, halves, Erase(method="esd"))
    check_erasable(images, reward, study, Erase(method="hardened"))


def test_another_study_of_the_run_is_of_the_same_model_and_has_tokens(make, tmp_path):
    study, images, reward, _ = make()
    asked = study.config.model_dump(mode="json")
    for name, changes, what in (("unfinished", {}, "no soft tokens"), ("elsewhere", {"model": "emoji"}, "another model")):
        Workspace.create(tmp_path / name, parse_config({**asked, **changes}, name))
        with pytest.raises(HFIError, match=what):
            check_erasable(images, reward, study, Erase(also=(tmp_path / name,)))
    check_erasable(images, reward, study, Erase(also=(study.root,)))


def test_a_stage_depends_on_what_the_files_of_its_concept_hold(tmp_path):
    from hfi.config import StudyConfig, with_overrides

    prompts, vocabulary = tmp_path / "prompts.txt", tmp_path / "vocabulary.json"
    settings = {"concept.prompts": str(prompts), "concept.vocabulary": str(vocabulary)}
    study, keys = Workspace(tmp_path / "study", with_overrides(StudyConfig(), settings)), set()
    for text in ("a", "b"):
        for file in (prompts, vocabulary):
            file.write_text(text)
            keys.add((study.key("generate"), study.key("evaluate")))
    assert len({one for one, _ in keys}) == len({two for _, two in keys}) == 4


def test_hardening_depends_on_how_its_rounds_are_drawn():
    from hfi.config import StudyConfig, with_overrides

    def key(method: str, steps: int) -> str:
        return Workspace("study", with_overrides(StudyConfig(), {"erase.method": method, "evaluate.steps": steps})).key("erase")

    assert key("hardened", 8) != key("hardened", 9) and key("sdd", 8) == key("sdd", 9)


def test_an_erasure_depends_on_what_its_other_studies_hold(tmp_path):
    from hfi.config import StudyConfig, with_overrides
    from hfi.workspace import write_json

    other = tmp_path / "other"
    alone = Workspace(tmp_path / "study", StudyConfig())
    both = Workspace(tmp_path / "study", with_overrides(alone.config, {"erase.also": [str(other)]}))
    first = both.key("erase")
    for stage in ("generate", "reward", "invert"):
        for digest in ("one", "two"):
            write_json(other / stage / "manifest.json", {"key": "key", "digest": digest})
            assert both.key("erase") != first
            first = both.key("erase")
    assert alone.key("generate") == both.key("generate")
