"""The tiny SD1 pipeline as a single file in the layout of the original checkpoints; the reverse of what diffusers converts."""

from __future__ import annotations

from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
UNET = {"conv_in.": "input_blocks.0.0.", "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
        "conv_norm_out.": "out.0.", "conv_out.": "out.2.", "down_blocks.0.resnets.0.": "input_blocks.1.0.",
        "down_blocks.0.attentions.0.": "input_blocks.1.1.", "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
        "down_blocks.1.resnets.0.": "input_blocks.3.0.", "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.", "up_blocks.0.resnets.0.": "output_blocks.0.0.",
        "up_blocks.0.resnets.1.": "output_blocks.1.0.",
        "up_blocks.0.upsamplers.0.": "output_blocks.1.1.", "up_blocks.1.resnets.0.": "output_blocks.2.0.",
        "up_blocks.1.attentions.0.": "output_blocks.2.1.", "up_blocks.1.resnets.1.": "output_blocks.3.0.",
        "up_blocks.1.attentions.1.": "output_blocks.3.1."}  # fmt: skip


def _unet_key(key: str) -> str:
    old = next(name for name in UNET if key.startswith(name))
    rest = key.removeprefix(old)
    if ".resnets." in old:
        layer, _, tail = rest.partition(".")
        rest = f"{RESNET[layer]}.{tail}"
    return f"model.diffusion_model.{UNET[old]}{rest}"


def _vae_key(key: str) -> str:
    for i in range(4):
        key = key.replace(f"down_blocks.{i}.resnets.", f"down.{i}.block.").replace(
            f"down_blocks.{i}.downsamplers.0.", f"down.{i}.downsample."
        )
        key = key.replace(f"up_blocks.{i}.resnets.", f"up.{3 - i}.block.").replace(f"up_blocks.{i}.upsamplers.0.", f"up.{3 - i}.upsample.")
    names = {"mid_block.resnets.0.": "mid.block_1.", "mid_block.resnets.1.": "mid.block_2.", "mid_block.attentions.0.": "mid.attn_1.",
             "conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
             "to_out.0": "proj_out"}  # fmt: skip
    for old, new in names.items():
        key = key.replace(old, new)
    return f"first_stage_model.{key}"


def save(folder: Path, path: Path) -> Path:
    """Write the pipeline of `folder` (tiny.save_pipeline) as one file."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    tensors = {_unet_key(key): value for key, value in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        flat = ".attentions." in key and "weight" in key and "norm" not in key
        tensors[_vae_key(key)] = (value[:, :, None, None] if flat else value).contiguous()
    tensors |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in pipeline.text_encoder.state_dict().items()}
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = pipeline.text_encoder.embeddings.position_ids.clone()
    tensors["alphas_cumprod"] = pipeline.scheduler.alphas_cumprod.clone()
    save_file(tensors, path)
    return path
