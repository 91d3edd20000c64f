"""Tiny random pipelines of every family, from diffusers' and transformers' real classes, built offline in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

import tiny

FAMILIES = ("sd1", "sd2", "sdxl", "sd3", "flux")
T5_WIDTH, T5_LENGTH = 40, 20


def save(family: str, folder: Path, seed: int = 0, **changes) -> Path:
    """Write a tiny pipeline of a family that draws 32x32 pictures from 4x4 latents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}[family](folder, **changes)


def t5_tokenizer() -> T5Tokenizer:
    """A character-level T5 tokenizer."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)]
    pieces += [(start + chr(code), -3.0) for start in ("", "▁") for code in range(33, 127) if chr(code) != "<"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


def t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(t5_tokenizer()), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
                                   feed_forward_proj="gated-gelu", is_encoder_decoder=False))  # fmt: skip


def clip(projected: bool, layers: int = 2, eos: int = 1, width: int = 0):
    """A tiny CLIP text encoder; `eos` 2 is the value that SDXL's and SD3's configs have, by which CLIP takes the highest id.

    width: of states and projection alike, as in SD3.
    """
    config = tiny.text_config(len(tiny.tokenizer()))
    config.num_hidden_layers, config.eos_token_id = layers, eos
    if width:
        config.hidden_size = config.projection_dim = width
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def vae(channels: int = 4, shift: float | None = None) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=32,
        scaling_factor=0.5 if shift else 0.18215, shift_factor=shift,
    )  # fmt: skip


def _sd1(folder: Path, **changes) -> Path:
    return tiny.save_pipeline(folder, **changes)


def _sd2(folder: Path, **changes) -> Path:
    tiny.save_pipeline(folder, prediction_type="v_prediction")
    if changes:  # e.g. rescale_betas_zero_snr
        DDIMScheduler.from_pretrained(folder, subfolder="scheduler", **changes).save_pretrained(folder / "scheduler")
    return folder


def _sdxl(folder: Path, **changes) -> Path:
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=2 * tiny.WIDTH, attention_head_dim=2, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=8 + 6 * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip(False), text_encoder_2=clip(True, eos=2), tokenizer=tiny.tokenizer(), tokenizer_2=tiny.tokenizer(),
        unet=unet, scheduler=scheduler, add_watermarker=False, **changes,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _sd3(folder: Path, with_t5: bool = True) -> Path:
    transformer = SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, caption_projection_dim=16, pooled_projection_dim=16 + 24, pos_embed_max_size=8,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(shift=0.06),
        text_encoder=clip(True, width=16), tokenizer=tiny.tokenizer(),
        text_encoder_2=clip(True, eos=2, width=24), tokenizer_2=tiny.tokenizer(),
        text_encoder_3=t5() if with_t5 else None, tokenizer_3=t5_tokenizer() if with_t5 else None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _flux(folder: Path, guidance_embeds: bool = True) -> Path:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=tiny.WIDTH, guidance_embeds=guidance_embeds, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    FluxPipeline(
        scheduler=scheduler, vae=vae(shift=0.1), text_encoder=clip(False), tokenizer=tiny.tokenizer(), text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(), transformer=transformer,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_siglip(folder: Path, seed: int = 1) -> Path:
    """Write a tiny SigLIP with its tokenizer and image processor."""
    text = {"vocab_size": len(t5_tokenizer()), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 16, "projection_size": 16, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
              "patch_size": 8}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    t5_tokenizer().save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def study_settings(family: str, root: Path) -> dict:
    """Settings of a study on a tiny pipeline of a family that runs all stages in seconds; builds the parts under `root`."""
    settings = tiny.study_settings(root)
    folder = root / family
    if not folder.exists():
        save(family, folder)
    settings["model"] = str(folder)
    settings["generate"] |= {"images": 12}
    settings["invert"] |= {"steps": 2}
    settings["erase"] |= {"steps": 2, "sampling_steps": 2, "snapshots": 1}
    settings["evaluate"] |= {"prompts_per_set": 2, "retention_prompts": 2, "token_pictures": 2, "curve_prompts": 1}
    return settings
