"""Deltas that are given away: one concept or many, put on with strengths, and refused by name where they are wrong."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import hfi
from hfi.diffusion.guidance import Guidance
from hfi.diffusion.model import load_model
from hfi.erasure.delta import Delta, applied, load_delta
from hfi.erasure.strength import MAX_STRENGTH, check_strength
from hfi.errors import HFIError
from hfi.export.deltas import combined, plain_weights, read_parts
from hfi.export.export import export
from hfi.export.files import read_file
from hfi.workspace import write_tensors

sys.path.insert(0, str(Path(__file__).parents[1]))
FILE = "hfi-sharp-delta.safetensors"
BOTH = "hfi-sharp-pointy-things-delta.safetensors"


@pytest.fixture(scope="module")
def both(study, second, tmp_path_factory):
    """Two concepts in one file, with strengths 1 and 0.8."""
    return export(study, "delta", tmp_path_factory.mktemp("both"), also=[(second, 0.8)]).folder / BOTH


def unet_of(pipeline) -> dict[str, torch.Tensor]:
    return pipeline.unet.state_dict()


def test_a_delta_and_its_file_are_equal(exported, study, tiny_model):
    (part,) = read_parts(exported.folder / FILE, tiny_model)
    delta = load_delta(study.path("erase", "delta.safetensors")).weights
    assert part.concept == "sharp" and part.strength == 1.0 and part.weights.keys() == delta.keys()
    assert all(torch.equal(part.weights[name], value) for name, value in delta.items())


def test_many_concepts_in_one_file(both, study, second, tiny_model):
    one, other = read_parts(both, tiny_model)
    assert [(part.concept, part.strength) for part in (one, other)] == [("sharp", 1.0), ("pointy things", 0.8)]
    ours, theirs = (load_delta(root.path("erase", "delta.safetensors")).weights for root in (study, second))
    for name, value in combined([one, other]).items():
        torch.testing.assert_close(value, ours[name] + 0.8 * theirs[name])


def test_all_ways_draw_the_same_pictures(exported, study, pipeline_folder, draw):
    """The study's own delta, the exported one, the folder and the study's folder: equal weights, equal pictures for the same seeds."""
    whole = StableDiffusionPipeline.from_pretrained(exported.folder / "diffusers", safety_checker=None)
    pictures = draw(whole)
    assert pictures != draw(StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None))
    for source in (exported.folder / FILE, study.path("erase", "delta.safetensors"), study.root):
        loaded = hfi.load(str(pipeline_folder), deltas=[source], device="cpu")
        assert isinstance(loaded, StableDiffusionPipeline)
        assert all(torch.equal(value, unet_of(whole)[name]) for name, value in unet_of(loaded).items())
        assert draw(loaded) == pictures


def test_strengths(both, pipeline_folder, study, second, draw):
    """By place for a file, by name for a concept; 0 is the original to the last bit."""
    original = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    off = hfi.load(str(pipeline_folder), deltas=[both], strengths=[0], device="cpu")
    assert draw(off) == draw(original)
    half = hfi.load(str(pipeline_folder), deltas=[both], strengths={"sharp": 0.5, "pointy things": 0}, device="cpu")
    delta = load_delta(study.path("erase", "delta.safetensors")).weights
    for name, value in delta.items():
        torch.testing.assert_close(unet_of(half)[name], unet_of(original)[name] + 0.5 * value)
    with pytest.raises(HFIError, match="no delta is of this concept .*sharp, pointy things"):
        hfi.load(str(pipeline_folder), deltas=[both], strengths={"blunt": 1.0}, device="cpu")
    with pytest.raises(HFIError, match="2 strengths for 1 deltas"):
        hfi.load(str(pipeline_folder), deltas=[both], strengths=[1, 1], device="cpu")


def test_a_lora_serves_too(exported, pipeline_folder, study):
    loaded = hfi.load(str(pipeline_folder), deltas=[exported.folder / "hfi-sharp-lora.safetensors"], device="cpu")
    whole = hfi.load(str(pipeline_folder), deltas=[study.root], device="cpu")
    for name, value in unet_of(whole).items():
        if not name.endswith("to_out.0.bias"):
            torch.testing.assert_close(unet_of(loaded)[name], value, rtol=1e-4, atol=1e-6)


def test_half_precision_adds_in_float32_first(exported, pipeline_folder):
    half = hfi.load(str(pipeline_folder), deltas=[exported.folder / FILE], device="cpu", dtype="bfloat16")
    whole = hfi.load(str(pipeline_folder), deltas=[exported.folder / FILE], device="cpu")
    assert all(torch.equal(value, unet_of(whole)[name].bfloat16()) for name, value in unet_of(half).items())
    with pytest.raises(HFIError, match="dtype: is 'int8'"):
        hfi.load(str(pipeline_folder), dtype="int8")


def test_a_negative_embedding_beside_it(exported, pipeline_folder, draw):
    """The way without training: the word is known to the pipeline and changes what a negative prompt does."""
    pipeline = hfi.load(str(pipeline_folder), negative=[exported.folder / "hfi-sharp-negative.safetensors"], device="cpu")
    assert draw(pipeline, negative_prompt="<hfi-sharp-negative>") != draw(pipeline)


@pytest.mark.parametrize("value", [-1.0, -1e-9, float("nan"), float("inf"), MAX_STRENGTH + 0.1])
def test_no_strength_outside_zero_to_two_anywhere(value, exported, study, second, tiny_model, pipeline_folder, tmp_path, both):
    delta = load_delta(study.path("erase", "delta.safetensors")).weights
    attempts = {
        "load": lambda: hfi.load(str(pipeline_folder), deltas=[exported.folder / FILE], strengths=[value], device="cpu"),
        "load by name": lambda: hfi.load(str(pipeline_folder), deltas=[both], strengths={"sharp": value}, device="cpu"),
        "export": lambda: export(study, "delta", tmp_path, strength=value),
        "also": lambda: export(study, "delta", tmp_path, also=[(second, value)]),
        "apply": lambda: applied(tiny_model, delta, value).__enter__(),
    }
    for attempt in attempts.values():
        with pytest.raises(HFIError, match="measured"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_why_negative_strengths_are_refused():
    with pytest.raises(HFIError, match="makes the model draw the concept"):
        check_strength(-0.5)


def test_a_file_that_says_a_negative_strength_or_was_negated_is_refused(both, tiny_model, tmp_path):
    tensors, header = read_file(both)
    about = [{"concept": "sharp", "strength": -1.0}, {"concept": "pointy things", "strength": 1.0}]
    save_file(tensors, tmp_path / "said.safetensors", {**header, "concepts": json.dumps(about)})
    with pytest.raises(HFIError, match="said.safetensors: sharp: is -1: a negative strength"):
        read_parts(tmp_path / "said.safetensors", tiny_model)
    save_file({name: -value for name, value in tensors.items()}, tmp_path / "negated.safetensors", header)
    with pytest.raises(HFIError, match="negated.safetensors: its weights were changed after it was written"):
        read_parts(tmp_path / "negated.safetensors", tiny_model)


class Danger:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (Path("pwned").touch, ())


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_are_never_opened(tmp_path, tiny_model, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Danger(), protocol))
    with pytest.raises(HFIError, match=f"{name}: is a pickle, which can run code"):
        read_parts(tmp_path / name, tiny_model)
    torch.save({"a": torch.zeros(1)}, tmp_path / "zip.safetensors")
    with pytest.raises(HFIError, match="is a pickle"):
        read_parts(tmp_path / "zip.safetensors", tiny_model)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, length):
    """The first bytes of a safetensors file are its header's length; those of these lengths are a pickle's, of protocol 2 to 5."""
    write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {"kind": "x"})
    data = (tmp_path / "x.safetensors").read_bytes()
    start = int.from_bytes(data[:8], "little")
    longer = data[8 : 8 + start] + b" " * (length - start)
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + longer + data[8 + start :])
    tensors, header = read_file(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], torch.ones(2)) and header["kind"] == "x"


def _first(tensors: dict) -> str:
    return sorted(tensors)[0]


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.update({_first(t): t[_first(t)] * float("nan")}), "NaN"),
    (lambda t: t.update({_first(t): t[_first(t)].half()}), "mixes dtypes .float16, float32"),
    (lambda t: t.update({"down_blocks.9.attn2.to_k.weight": torch.zeros(2, 2)}), "no such weight"),
    (lambda t: t.update({_first(t): torch.zeros(3, 3)}), "has shape .3, 3., the model's has"),
    (lambda t: t.clear(), "holds no tensors"),
], ids=["nan", "mixed dtypes", "left over", "shape", "empty"])
def test_a_wrong_delta_is_refused_by_name(exported, tiny_model, tmp_path, change, words):
    tensors = load_file(exported.folder / FILE)
    change(tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(HFIError, match=f"x.safetensors.*{words}") as caught:
        read_parts(tmp_path / "x.safetensors", tiny_model)
    assert "\n" not in str(caught.value)


def test_a_missing_weight_is_noticed(exported, tiny_model, tmp_path):
    """Of our own file: the header's hash knows that a tensor is gone. Of a file of many: a concept without tensors."""
    tensors, header = read_file(exported.folder / FILE)
    del tensors[_first(tensors)]
    save_file(tensors, tmp_path / "x.safetensors", header)
    with pytest.raises(HFIError, match="changed after it was written"):
        read_parts(tmp_path / "x.safetensors", tiny_model)


def test_tensors_of_no_concept_are_refused(both, tiny_model, tmp_path):
    tensors, header = read_file(both)
    header.pop("tensors_sha256")
    save_file({**tensors, "7/x": torch.zeros(1)}, tmp_path / "x.safetensors", header)
    with pytest.raises(HFIError, match="7/x: its header and its tensors"):
        read_parts(tmp_path / "x.safetensors", tiny_model)
    save_file({name: value for name, value in tensors.items() if name[0] == "0"}, tmp_path / "y.safetensors", header)
    with pytest.raises(HFIError, match="pointy things: its header and its tensors"):
        read_parts(tmp_path / "y.safetensors", tiny_model)


@pytest.mark.parametrize("cut", [4, 40, -1])
def test_a_truncated_file_is_refused(exported, tiny_model, tmp_path, cut):
    (tmp_path / "x.safetensors").write_bytes((exported.folder / FILE).read_bytes()[:cut])
    with pytest.raises(HFIError, match="x.safetensors: not a whole safetensors file"):
        read_parts(tmp_path / "x.safetensors", tiny_model)
    with pytest.raises(HFIError, match="no such file"):
        read_parts(tmp_path / "nothing.safetensors", tiny_model)


@pytest.mark.parametrize("file", [FILE, "hfi-sharp-lora.safetensors"])
def test_another_model_of_the_same_shape_is_refused(exported, tmp_path, file):
    """The same architecture with other weights; and the same weights from another folder, or in half precision, are the same model."""
    import tiny

    other = load_model(str(tiny.save_pipeline(tmp_path / "other", seed=9)), "cpu", "float32")
    with pytest.raises(HFIError, match=f"{file}: was made for another model .pipeline."):
        read_parts(exported.folder / file, other)
    half = StableDiffusionPipeline.from_pretrained(tiny.save_pipeline(tmp_path / "same"), safety_checker=None, torch_dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    assert read_parts(exported.folder / file, load_model(str(tmp_path / "half"), "cpu", "float32"))


def test_a_study_file_of_another_model_is_refused(study, tmp_path):
    import tiny

    other = load_model(str(tiny.save_pipeline(tmp_path / "other", seed=9)), "cpu", "float32")
    with pytest.raises(HFIError, match="was made for another model"):
        read_parts(study.path("erase", "delta.safetensors"), other)


def test_tokens_are_no_deltas(exported, tiny_model):
    with pytest.raises(HFIError, match="is no delta but 'hfi-token'"):
        read_parts(exported.folder / "hfi-sharp-token.safetensors", tiny_model)


def test_guidance_cannot_be_carried_by_weights(tiny_model, tmp_path):
    """A delta that works while drawing has no file of weights; it says what to use instead."""
    save_file({"guidance/0": torch.zeros(1, 24, 16)}, tmp_path / "x.safetensors")
    with pytest.raises(HFIError, match="x.safetensors: works by guidance while drawing.*negative_embedding"):
        read_parts(tmp_path / "x.safetensors", tiny_model)

    with pytest.raises(HFIError, match="works by guidance while drawing.*negative_embedding"):
        plain_weights(Delta(guidance=(Guidance("negative_prompt", torch.zeros(1, 24, 16), {}),)), Path("delta.safetensors"))


def test_studies_on_two_models_and_twice_the_same_concept_are_refused(study, tmp_path):
    with pytest.raises(HFIError, match="two deltas of one concept"):
        export(study, "delta", tmp_path, also=[(study, 1.0)])


def test_an_unfinished_study_is_refused(tiny_study, tmp_path):
    with pytest.raises(HFIError, match="has not been erased"):
        export(tiny_study, "delta", tmp_path)
    with pytest.raises(HFIError, match="has no soft tokens"):
        export(tiny_study, "embedding", tmp_path, understood=True)
    with pytest.raises(HFIError, match="use one of .*all"):
        export(tiny_study, "pickle", tmp_path)
