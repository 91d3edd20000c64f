"""Laws of the shipped weights: half precision, one folder that diffusers draws from, judges that answer."""

import json

import pytest
import torch

from hfi import emoji


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(emoji.folder(), safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, prompts, seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompts, num_inference_steps=2, generator=generators, output_type="pt").images


def test_diffusers_draws_and_a_seed_gives_its_picture_in_any_batch(pipeline):
    both = draw(pipeline, ["a rocket in the style of noto", "a frog"], [1, 2])
    assert both.shape == (2, 3, 64, 64) and torch.isfinite(both).all()
    assert torch.allclose(both[1:], draw(pipeline, ["a frog"], [2]), atol=1e-4)


def test_loaded_in_float32_although_stored_in_half(pipeline):
    assert {p.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for p in part.parameters()} == {torch.float32}


def test_weights_are_small_and_say_nothing_of_the_machine():
    files = [path for path in emoji.HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 48 * 2**20
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
    for path in files:
        if path.suffix == ".json":
            assert '_name_or_path": "/' not in path.read_text()


def test_a_misspelt_word_still_tokenises(pipeline):
    unknown = pipeline.tokenizer.unk_token_id
    for text in ("kitchen knief", "日本", "RoCkEt!!"):
        ids = pipeline.tokenizer(text, add_special_tokens=False).input_ids
        assert ids and unknown not in ids


def test_clip_shares_its_text_half_with_the_pipeline(pipeline):
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(emoji.clip_folder())
    ids = pipeline.tokenizer(["a rocket"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(clip.text_model(ids).last_hidden_state, pipeline.text_encoder(ids).last_hidden_state, atol=1e-4)


@pytest.mark.parametrize("name", emoji.JUDGES)
def test_judges_answer_over_all_objects_and_neither(name):
    from hfi.emoji.judge import load_judge

    if not (emoji.judge_path(name) / "config.json").exists():
        pytest.skip("no judges yet")
    judge, catalogue = load_judge(name), emoji.catalogue()
    assert judge.objects == [entry["name"] for entry in catalogue["objects"]] + ["neither"]
    assert judge.styles == list(catalogue["styles"])
    out = judge(torch.rand(5, 3, 64, 64))
    assert out.object_probs.shape == (5, len(judge.objects)) and out.style_probs.shape == (5, len(judge.styles))
    assert torch.allclose(out.object_probs.sum(1), torch.ones(5), atol=1e-4)
    assert (out.object_probs.argmax(1) == len(judge.objects) - 1).all(), "noise is neither"
    with pytest.raises(ValueError, match="64, 64"):
        judge(torch.rand(5, 3, 32, 32))


def test_an_unknown_judge_is_named():
    with pytest.raises(ValueError, match="annotator, scorer"):
        emoji.judge_path("referee")


def test_scheduler_is_the_published_one():
    config = json.loads((emoji.folder() / "scheduler" / "scheduler_config.json").read_text())
    assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (0.00085, 0.012, "scaled_linear")
    assert config["prediction_type"] == "epsilon" and not config["clip_sample"]
