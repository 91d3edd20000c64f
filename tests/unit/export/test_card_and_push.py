"""The model card says what is known in numbers, and an upload holds nothing but what is on the list."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from hfi.errors import HFIError
from hfi.export.card import attack_rows, model_card
from hfi.export.export import export
from hfi.export.push import name_in, push, pushable


class FakeApi:
    """Remembers what it was asked; nothing else of a hub."""

    def __init__(self, refuses: bool = False):
        self.calls, self.refuses = [], refuses

    def create_repo(self, **settings):
        if self.refuses:
            raise OSError("401 Client Error\nmore lines")
        self.calls.append(("create_repo", settings))
        return f"https://hub.example/{settings['repo_id']}"

    def create_commit(self, **settings):
        self.calls.append(("create_commit", settings))


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_the_card_has_every_part(exported, study):
    card = (exported.folder / "README.md").read_text()
    front = front_matter(card)
    assert front["library_name"] == "diffusers" and front["pipeline_tag"] == "text-to-image" and "erased:sharp" in front["tags"]
    assert "base_model" not in front  # a folder of this machine is no hub id
    metrics = json.loads(study.path("metrics.json").read_text())
    explicit = metrics["concept_rate"]["explicit"]["after"]
    assert f"{explicit['value']:.2f} ({explicit['low']:.2f} to {explicit['high']:.2f}, n {explicit['n']})" in card
    again = metrics["concept_rate"]["reinversion"]["after"]
    assert f"| Re-inversion: tokens learned afresh against the erased model | {again['value']:.2f}" in card
    for words in ("## Limits", "**Damage**", "**Attacks**", "judgements: 24 on 24 pictures", "judged by: 1 person", "erase: steps 4",
                  study.manifest("erase")["digest"], "`hfi-sharp-lora.safetensors`", metrics["judge"], "**Simulated**: A judge network"):
        assert words in card, words


def test_the_card_names_nobody_and_no_folder(exported, study, tiny_root):
    card = (exported.folder / "README.md").read_text()
    assert "ann" not in card.replace("annotat", "").replace("cann", "").split()  # the annotator's name in the study
    assert str(study.root) not in card and str(tiny_root) + "/p" not in card


def test_simulated_annotators_are_called_so(study, tmp_path):
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"), study.config)
    file = copy.path("label", "manifest.json")
    manifest = json.loads(file.read_text())
    manifest["facts"] |= {"simulated": True, "annotators": {"human": 0, "simulated": 3, "machine": 0}}
    file.write_text(json.dumps(manifest))
    card = model_card(copy)
    assert "judged by: 3 simulated annotators" in card and "**simulated**: a judge network played annotators" in card


def test_a_study_without_an_evaluation_says_not_measured(second):
    assert "**Not measured**" in model_card(second)


def test_a_mixture_says_that_it_was_not_measured(study, second, tmp_path):
    export(study, "all", tmp_path, also=[(second, 0.8)], max_error=1.0)
    card = (tmp_path / "README.md").read_text()
    assert "**sharp** at strength 1, **pointy things** at strength 0.8" in card and "the mixture was not measured" in card


def test_other_concepts_of_the_same_run_are_named(study, tmp_path):
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"), study.config)
    assert "The same run" not in model_card(copy)
    file = copy.path("erase", "manifest.json")
    manifest = json.loads(file.read_text())
    assert manifest["facts"]["concepts"] == ["sharp"]
    manifest["facts"]["concepts"] += ["pointy things", "ink"]
    file.write_text(json.dumps(manifest))
    assert "erased **pointy things**, **ink** as well. Where no other name stands, what follows is of sharp." in model_card(copy)
    numbers = copy.path("metrics.json")
    metrics = json.loads(numbers.read_text())
    rate = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 12}
    rates = {"explicit": {"before": {**rate, "value": 0.5}, "after": rate}, "implicit": None}
    metrics["also"] = [{"concept": "ink", "kind": "style", "concept_rate": rates, "floor": None}]
    numbers.write_text(json.dumps(metrics))
    row = "| ink, erased in the same run: asked for by name | 0.50 (0.10 to 0.50, n 12) | 0.25 (0.10 to 0.50, n 12) |"
    assert row in model_card(copy)


def test_further_attacks_of_the_evaluation_are_listed(study):
    from hfi.report.numbers import read_numbers

    raw = json.loads(study.path("metrics.json").read_text())
    raw["attacks"] = {"Ring-A-Bell": {"after": {"value": 0.25, "low": 0.1, "high": 0.4, "n": 40}}}
    assert attack_rows(raw, read_numbers(raw, study.path("metrics.json")))[-1] == ("Ring-A-Bell", "0.25 (0.10 to 0.40, n 40)")


@pytest.fixture
def crowded(exported, study, tmp_path):
    """An export folder in which everything lies that must never leave: pictures, tokens, latents, judgements, under tempting names too."""
    folder = shutil.copytree(exported.folder, tmp_path / "export")
    shutil.copytree(study.path("generate"), folder / "generate")
    shutil.copy(study.path("feedback.sqlite"), folder)
    for place in (folder, folder / "diffusers", folder / "diffusers" / "unet"):
        Image.new("RGB", (8, 8)).save(place / "flagged.png")
    shutil.copy(folder / "hfi-sharp-token.safetensors", folder / "hfi-sharp2-delta.safetensors")  # a raw token by another name
    save_file({"latents": load_file(study.path("generate", "latents.safetensors")).popitem()[1]}, folder / "hfi-latents.safetensors")
    (folder / "diffusers" / "notes").mkdir()
    (folder / "diffusers" / "notes" / "people.json").write_text("{}")
    (folder / "diffusers" / "unet" / "linked.json").symlink_to(study.path("study.yaml").resolve())
    return folder


def test_only_what_is_on_the_list_leaves(crowded):
    """The fake hub gets these files in one commit, into a private repository, and is asked for nothing else."""
    api = FakeApi()
    assert push(crowded, "me/no-sharp", api) == "https://hub.example/me/no-sharp"
    (made, settings), (committed, commit) = api.calls
    assert made == "create_repo" and settings["private"] is True and committed == "create_commit"
    names = {operation.path_in_repo for operation in commit["operations"]}
    assert names == {
        "README.md", "hfi-sharp-delta.safetensors", "hfi-sharp-lora.safetensors", "hfi-sharp-checkpoint.safetensors", "model_index.json",
        "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors"}
    for operation in commit["operations"]:
        content = open(operation.path_or_fileobj, "rb").read()  # noqa: SIM115
        assert not content.startswith((b"\x89PNG", b"SQLite"))


def test_public_only_when_asked(crowded):
    api = FakeApi()
    push(crowded, "me/no-sharp", api, public=True)
    assert api.calls[0][1]["private"] is False


def test_the_hubs_refusal_is_one_line(crowded):
    with pytest.raises(HFIError, match="me/no-sharp: the hub refused .401 Client Error.") as caught:
        push(crowded, "me/no-sharp", FakeApi(refuses=True))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_one_without_a_card_are_refused(exported, tmp_path):
    with pytest.raises(HFIError, match="nothing that may leave.*hfi export"):
        pushable(tmp_path)
    shutil.copy(exported.folder / "hfi-sharp-delta.safetensors", tmp_path)
    with pytest.raises(HFIError, match="no model card"):
        pushable(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert [name_in(tmp_path, path) for path in pushable(tmp_path)] == ["README.md", "hfi-sharp-delta.safetensors"]
