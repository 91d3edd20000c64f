"""A tiny random Stable-Diffusion-shaped pipeline, a tiny CLIP and a tiny vocabulary, built offline in seconds.

They draw noise; they are for laws and user stories, never for numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

WIDTH, LENGTH = 16, 24


def tokenizer() -> CLIPTokenizer:
    """A character-level CLIP tokenizer: every prompt can be written in it."""
    characters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *characters, *(c + "</w>" for c in characters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH)


def text_config(vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def save_pipeline(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Write a pipeline of about 60,000 parameters that draws 32x32 pictures from 4x4 latents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        )
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(4, 4, 4, 4),
            layers_per_block=1,
            norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=32,
        )
        words = tokenizer()
        text_encoder = CLIPTextModel(text_config(len(words)))
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        )
        StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=words,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


def save_clip(folder: Path, seed: int = 1) -> Path:
    """Write a tiny CLIP with its tokenizer and image processor."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        words = tokenizer()
        vision = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=8,
        )
        config = CLIPConfig(text_config=text_config(len(words)).to_dict(), vision_config=vision.to_dict(), projection_dim=8)
        CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_vocabulary(path: Path) -> Path:
    """Write a vocabulary of twelve objects in two styles, three of them the concept "sharp"."""
    names = ["knife", "sword", "needle", "apple", "pear", "house", "tree", "cat", "dog", "boat", "sun", "moon"]
    path.write_text(
        json.dumps(
            {
                "styles": {"ink": {}, "chalk": {}},
                "objects": [
                    {
                        "name": name,
                        "group": "things" if i < 6 else "nature",
                        "tags": ["sharp", "metal", "cut"] if i < 3 else ["nice", "soft"],
                        "styles": ["ink", "chalk"],
                    }
                    for i, name in enumerate(names)
                ],
                "concepts": {"sharp": {"kind": "harm", "words": ["sharp thing"], "members": names[:3]}},
            }
        )
    )
    return path


def study_settings(root: Path) -> dict:
    """Plain settings of a study on the tiny pipeline that runs all stages in seconds; builds the parts under `root`."""
    pipeline, clip, vocabulary = root / "pipeline", root / "clip", root / "vocabulary.json"
    if not pipeline.exists():
        save_pipeline(pipeline), save_clip(clip), save_vocabulary(vocabulary)
    return {
        "name": "tiny",
        "model": str(pipeline),
        "seed": 3,
        "device": "cpu",
        "dtype": "float32",
        "concept": {"name": "sharp", "vocabulary": str(vocabulary), "unlisted": ["needle"], "members": ["knife", "sword", "needle"]},
        "generate": {"images": 24, "steps": 2, "batch_size": 4, "benign_share": 0.5, "guidance_scale": 2.0},
        "label": {"source": "people", "minimum": 8},
        "reward": {"encoder": str(clip), "steps": 300, "top_k": 4, "minimum_auc": 0.0},
        "invert": {"vectors": 2, "steps": 4, "batch_size": 2},
        "erase": {
            "steps": 4,
            "sampling_steps": 4,
            "latents": "replay",
            "replay_runs": 2,
            "batch_size": 2,
            "ema_decay": 0.5,
            "snapshots": 2,
        },
        "evaluate": {
            "judge": f"clip:{clip}",
            "prompts_per_set": 4,
            "retention_prompts": 4,
            "token_pictures": 4,
            "seeds_per_prompt": 1,
            "steps": 2,
            "reinversions": 1,
            "reinversion_steps": 2,
            "bootstrap": 50,
            "curve_prompts": 2,
            "guidance_scale": 2.0,
        },
    }


def wanted(model, target, batch, trained=None, original=None):
    """What an eraser's target asks of the student under its present weights, as the loop would ask: original weights first."""
    from hfi.diffusion.model import predict_noise
    from hfi.erasure.trainable import swapped

    asked = target.of_original(batch) if target.of_original else None
    if asked is None:
        return target.wanted(batch, batch.z_t[:0])
    times = len(asked) // len(batch.t)
    with swapped(trained, original):
        frozen = predict_noise(model, batch.z_t.repeat(times, 1, 1, 1), batch.t.repeat(times), asked)
    return target.wanted(batch, frozen)
