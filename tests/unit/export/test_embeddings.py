"""Soft tokens as files: what three tools read from them, and what keeps them from being used by accident."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError
from hfi.export.embedding import embedding_tensors, file_word, read_embedding
from hfi.export.export import export
from hfi.export.files import read_file, write_file
from hfi.inversion.invert import Inverted

sys.path.insert(0, str(Path(__file__).parent))
from webui_rules import a1111_embedding, comfy_embedding  # noqa: E402

RAW, NEGATIVE = "hfi-sharp-token.safetensors", "hfi-sharp-negative.safetensors"


def condition(pipeline, text: str) -> torch.Tensor:
    """What a plain pipeline encodes a prompt to."""
    return pipeline.encode_prompt(text, "cpu", 1, False)[0]


@pytest.mark.parametrize(("file", "word"), [(RAW, "<sharp>"), (NEGATIVE, "<hfi-sharp-negative>")])
def test_diffusers_reads_the_condition_that_was_learned(exported, study, tiny_model, pipeline_folder, file, word):
    """Loaded by diffusers, the word gives the very condition that the study inverted, alone and in a prompt."""
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    pipeline.load_textual_inversion(exported.folder / file)
    tokens = Inverted.load(study).tokens
    for template in ("{}", "a picture of {} here"):
        ours = encode_prompts(tiny_model, [template.format("<sharp>")], tokens)
        torch.testing.assert_close(condition(pipeline, template.format(word)), ours)


@pytest.mark.parametrize("file", [RAW, NEGATIVE])
def test_webuis_read_the_same_rows(exported, study, file):
    rows, path = Inverted.load(study).tokens["<sharp>"], exported.folder / file
    word, read = a1111_embedding(path, load_file(path))
    assert word == path.stem and torch.equal(read, rows)
    typed, read = comfy_embedding(path, load_file(path))
    assert typed == f"embedding:{path.stem}" and torch.equal(read, rows)


def test_no_file_is_named_like_a_plain_word(exported, tiny_model):
    """A WebUI takes the file's name for the word: 'sharp.safetensors' would change every prompt that says sharp."""
    assert file_word("<knife-2>", "embedding") == "hfi-knife-2-token"
    for path in exported.folder.glob("*.safetensors"):
        assert path.stem.startswith("hfi-") and len(path.stem.split("-")) > 2


def test_the_header_says_how_it_is_used_and_warns(exported):
    _, header = read_file(exported.folder / NEGATIVE)
    assert json.loads(header["usage"])["ComfyUI"] == "embedding:hfi-sharp-negative"
    assert "negative prompt" in header["usage"] and "draws what people flagged" in header["warning"]


def test_sd_xl_embeddings_have_rows_for_both_text_encoders(tiny_sdxl, tmp_path):
    """Loaded as diffusers' documentation says, both encoders see their rows; WebUIs find theirs by name."""
    rows = {"clip_g": torch.randn(2, 24), "clip_l": torch.randn(2, 16)}
    path = tmp_path / "hfi-x-negative.safetensors"
    write_file(path, embedding_tensors("<x>", rows), {"format": "pt"})
    stored = load_file(path)
    assert set(stored) == {"clip_l", "clip_g"}
    for number, key in (("", "clip_l"), ("_2", "clip_g")):
        tokenizer, encoder = getattr(tiny_sdxl, f"tokenizer{number}"), getattr(tiny_sdxl, f"text_encoder{number}")
        tiny_sdxl.load_textual_inversion(stored[key], token=["<x>", "<y>"], text_encoder=encoder, tokenizer=tokenizer)
        ids = tokenizer.convert_tokens_to_ids(["<x>", "<y>"])
        assert torch.equal(encoder.get_input_embeddings().weight[ids], rows[key])
        assert torch.equal(comfy_embedding(path, stored, key)[1], rows[key])
    assert a1111_embedding(path, stored)[1] is stored
    picture = tiny_sdxl(prompt="a cat", negative_prompt="<x>", num_inference_steps=1, output_type="np").images[0]
    assert picture.shape[2] == 3
    with pytest.raises(HFIError, match="as many rows"):
        embedding_tensors("<x>", {"clip_l": torch.zeros(1, 16), "clip_g": torch.zeros(2, 24)})


@pytest.mark.parametrize("to", ["embedding", "negative_embedding"])
def test_they_leave_a_study_only_when_asked_for_with_understanding(study, tmp_path, to):
    with pytest.raises(HFIError, match="draws what people flagged.*--i-understand"):
        export(study, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_leaves_them_out_and_says_so(study, tmp_path):
    made = export(study, "all", tmp_path, max_error=1.0)
    assert set(made.left_out) == {"embedding", "negative_embedding"}
    assert not [path for path in tmp_path.rglob("*") if "token.safe" in path.name or "negative" in path.name]


@pytest.mark.parametrize(("change", "words"), [
    (lambda rows: {"<x>": rows[:, :8].clone()}, "has width 16"),
    (lambda rows: {"<x>": rows, "<y>": rows.clone()}, "holds 2 tensors"),
    (lambda rows: {"clip_l": rows, "clip_g": rows.clone()}, "is for Stable Diffusion XL"),
    (lambda rows: {"<x>": rows * float("nan")}, "NaN"),
    (lambda rows: {"<x>": rows.long()}, "integer"),
], ids=["width", "two", "xl", "nan", "integers"])
def test_a_wrong_embedding_is_refused_by_name(tiny_model, tmp_path, change, words):
    path = tmp_path / "x.safetensors"
    save_file(change(torch.randn(2, 16)), path)
    with pytest.raises(HFIError, match=f"x.safetensors.*{words}"):
        read_embedding(path, tiny_model)


def test_an_embedding_of_another_model_is_refused(exported, tmp_path, tiny_model):
    assert read_embedding(exported.folder / RAW, tiny_model)[0] == "<sharp>"
    tiny_model.text_encoder.get_input_embeddings().weight.data[5] += 1
    with pytest.raises(HFIError, match="made for another model"):
        read_embedding(exported.folder / RAW, tiny_model)
