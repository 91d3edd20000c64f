"""A finished study on the tiny pipeline, and everything that can be exported from it, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "cli"))


def finished(root: Path, tiny_root: Path, until: str, **concept):
    from driver import judge_by_hand

    import tiny
    from hfi import method
    from hfi.cli.app import call
    from hfi.config import parse_config
    from hfi.workspace import Workspace

    settings = tiny.study_settings(tiny_root)
    settings["concept"] |= concept
    study = Workspace.create(root, parse_config(settings, "tiny"))
    method.run(study, until="generate")
    assert call(["label", str(root), "--import", str(judge_by_hand(root, root.with_suffix(".jsonl")))]) == 0
    method.run(study, until=until)
    return study


@pytest.fixture(scope="session")
def study(tmp_path_factory, tiny_root):
    """A whole study, judged by hand, evaluated."""
    return finished(tmp_path_factory.mktemp("export") / "study", tiny_root, "evaluate")


@pytest.fixture(scope="session")
def second(tmp_path_factory, tiny_root):
    """Another study on the same model, erased."""
    return finished(tmp_path_factory.mktemp("second") / "study", tiny_root, "erase", name="pointy things")


@pytest.fixture(scope="session")
def exported(study, tmp_path_factory):
    """Everything, in float32, the LoRA at full rank."""
    from hfi.export.export import export

    return export(study, "all", tmp_path_factory.mktemp("exported"), rank=64, max_error=1.0, understood=True)


@pytest.fixture(scope="session")
def pipeline_folder(tiny_root) -> Path:
    return tiny_root / "pipeline"


@pytest.fixture
def draw():
    """The pictures of a plain diffusers pipeline for a prompt and fixed seeds, as bytes."""
    import torch

    def pictures(pipeline, prompt: str = "a knife", **settings) -> list[bytes]:
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in (1, 2)]
        found = pipeline(prompt=prompt, num_inference_steps=3, generator=generators, num_images_per_prompt=2, **settings).images
        return [picture.tobytes() for picture in found]

    return pictures


@pytest.fixture(scope="session")
def tiny_sdxl():
    """A random SD XL pipeline with both text encoders, about 100,000 parameters, in memory."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from tiny import LENGTH, WIDTH, text_config, tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(5)
        words, other = tokenizer(), tokenizer()
        large = CLIPTextConfig(vocab_size=len(words), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                               max_position_embeddings=LENGTH, projection_dim=24, bos_token_id=0, eos_token_id=1, pad_token_id=1)
        unet = UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(8, 16, 16), norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=WIDTH + 24, attention_head_dim=(2, 2, 4), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8)
        vae = AutoencoderKL(latent_channels=4, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2,
                            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=8)
        return StableDiffusionXLPipeline(
            vae=vae, text_encoder=CLIPTextModel(text_config(len(words))), text_encoder_2=CLIPTextModelWithProjection(large),
            tokenizer=words, tokenizer_2=other, unet=unet, scheduler=EulerDiscreteScheduler(), add_watermarker=False)
