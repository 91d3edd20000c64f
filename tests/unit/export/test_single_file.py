"""One pipeline in one file: diffusers' own loader reads it back equal to the last bit."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

import tiny_families
from hfi.diffusion.model import load_model
from hfi.errors import HFIError
from hfi.export.files import read_file, write_file
from hfi.export.joint_layout import flux_names, sd3_names
from hfi.export.single_file import original_layout, unet_name, vae_name
from tiny import text_config, tokenizer

NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
# Parameters of Stable Diffusion 1 and their places in its public checkpoints
SD1_UNET = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "down_blocks.0.resnets.1.time_emb_proj.weight": "input_blocks.2.0.emb_layers.1.weight",
    "down_blocks.0.downsamplers.0.conv.bias": "input_blocks.3.0.op.bias",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight": "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight",
    "down_blocks.3.resnets.1.norm1.weight": "input_blocks.11.0.in_layers.0.weight",
    "mid_block.resnets.1.conv2.weight": "middle_block.2.out_layers.3.weight",
    "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.bias": "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.bias",
    "conv_norm_out.weight": "out.0.weight",
    "conv_out.bias": "out.2.bias",
}
SD1_VAE = {
    "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": "encoder.down.1.block.0.nin_shortcut.weight",
    "encoder.down_blocks.2.downsamplers.0.conv.weight": "encoder.down.2.downsample.conv.weight",
    "encoder.mid_block.attentions.0.to_out.0.bias": "encoder.mid.attn_1.proj_out.bias",
    "encoder.conv_norm_out.bias": "encoder.norm_out.bias",
    "decoder.mid_block.resnets.0.norm1.weight": "decoder.mid.block_1.norm1.weight",
    "decoder.up_blocks.0.resnets.2.conv1.weight": "decoder.up.3.block.2.conv1.weight",
    "decoder.up_blocks.2.upsamplers.0.conv.bias": "decoder.up.1.upsample.conv.bias",
    "quant_conv.weight": "quant_conv.weight",
}


def assert_same_weights(one, other) -> None:
    """Every weight of two pipelines, bit for bit and in the same dtype."""
    for part in NETWORKS:
        if getattr(one, part, None) is None:
            continue
        a, b = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert value.dtype == b[name].dtype and torch.equal(value, b[name]), f"{part}.{name}"


def there_and_back(pipeline, folder, kind, dtype=torch.float32):
    pipeline.save_pretrained(folder / "as_folder")
    write_file(folder / "one.safetensors", {name: value.to(dtype) for name, value in original_layout(pipeline).items()}, {"format": "pt"})
    return kind.from_single_file(folder / "one.safetensors", config=str(folder / "as_folder"), local_files_only=True, torch_dtype=dtype)


def test_the_exported_checkpoint_is_the_exported_folder(exported, study, draw):
    """The two hold the same bits, and draw the same pictures for the same seeds."""
    folder, file = exported.folder / "diffusers", exported.folder / "hfi-sharp-checkpoint.safetensors"
    one = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    other = StableDiffusionPipeline.from_single_file(file, config=str(folder), local_files_only=True)
    assert_same_weights(one, other)
    assert draw(one) == draw(other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_keeps_its_bits(pipeline_folder, tmp_path, dtype):
    original = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None, torch_dtype=dtype)
    assert_same_weights(original, there_and_back(original, tmp_path, StableDiffusionPipeline, dtype))


def test_stable_diffusion_2(pipeline_folder, tmp_path):
    """Its text encoder has OpenCLIP's names, and queries, keys and values in one matrix."""
    original = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    config = {**text_config(len(tokenizer())).to_dict(), "hidden_size": 1024, "intermediate_size": 8, "num_hidden_layers": 2}
    original.register_modules(
        text_encoder=CLIPTextModel(CLIPTextConfig(**config)),
        unet=UNet2DConditionModel.from_config({**original.unet.config, "cross_attention_dim": 1024, "use_linear_projection": True}))
    layout = original_layout(original)
    assert layout["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"].shape == (3072, 1024)
    assert_same_weights(original, there_and_back(original, tmp_path, StableDiffusionPipeline))


def test_stable_diffusion_xl(tiny_sdxl, tmp_path):
    layout = original_layout(tiny_sdxl)
    assert "model.diffusion_model.label_emb.0.0.weight" in layout
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in layout
    assert_same_weights(tiny_sdxl, there_and_back(tiny_sdxl, tmp_path, StableDiffusionXLPipeline))


def test_stable_diffusion_3(tmp_path):
    """diffusers reads every bit back but the first projection, for which it takes the identity; `load_model` reads that too."""
    folder, file = tiny_families.save("sd3", tmp_path / "sd3"), tmp_path / "one.safetensors"
    original = StableDiffusion3Pipeline.from_pretrained(folder)
    write_file(file, original_layout(original), {"format": "pt"})
    theirs = StableDiffusion3Pipeline.from_single_file(file, config=str(folder), local_files_only=True)
    ours = load_model(str(file), "cpu", "float32", configs=str(folder)).pipeline
    assert torch.equal(theirs.text_encoder.text_projection.weight, torch.eye(len(theirs.text_encoder.text_projection.weight)))
    assert_same_weights(original, ours)
    theirs.text_encoder.text_projection.weight.data.copy_(original.text_encoder.text_projection.weight)
    assert_same_weights(original, theirs)


def test_the_transformer_of_stable_diffusion_3_5():
    """Its normalised queries and keys, and its layers with a second attention, have places of their own."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers as back

    weights = SD3Transformer2DModel(
        sample_size=4, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=24,
        caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0, 1),
    ).state_dict()  # fmt: skip
    names = sd3_names(weights)
    assert {"joint_blocks.1.x_block.attn2.qkv.weight", "joint_blocks.2.context_block.attn.ln_k.weight"} <= names.keys()
    again = back({f"model.diffusion_model.{name}": value for name, value in names.items()})
    assert again.keys() == weights.keys() and all(torch.equal(value, again[name]) for name, value in weights.items())


def test_flux_at_its_own_width():
    """diffusers' converter knows FLUX's width alone (3072), so: one layer of each kind at that width, and its names of the whole model."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as back

    with torch.device("meta"):
        whole = FluxTransformer2DModel(guidance_embeds=True)
    names = flux_names(whole.state_dict())
    assert len(names) == 780 and {"double_blocks.18.txt_attn.norm.key_norm.scale", "single_blocks.37.linear1.weight"} <= names.keys()
    assert {name: value.shape for name, value in back(dict(names)).items()} == {n: v.shape for n, v in whole.state_dict().items()}
    with torch.device("meta"):
        small = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    draw = torch.Generator().manual_seed(0)
    weights = {name: torch.randint(-99, 99, value.shape, dtype=torch.int8, generator=draw) for name, value in small.state_dict().items()}
    again = back({f"model.diffusion_model.{name}": value for name, value in flux_names(weights).items()})
    assert again.keys() == weights.keys() and all(torch.equal(value, again[name]) for name, value in weights.items())


def test_flux_has_a_place_for_each_part(tmp_path):
    """ComfyUI's and Forge's prefixes for FLUX: `vae.` where Stable Diffusion has `first_stage_model.`."""
    pipeline = FluxPipeline.from_pretrained(tiny_families.save("flux", tmp_path / "flux"))
    layout = original_layout(pipeline)
    assert {name.split(".")[0] for name in layout} == {"model", "vae", "text_encoders"}
    assert {name.split(".")[1] for name in layout if name.startswith("text_encoders.")} == {"clip_l", "t5xxl"}
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    held = sum(value.numel() for part in parts for value in getattr(pipeline, part).state_dict().values())
    assert sum(value.numel() for value in layout.values()) == held
    assert "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight" in layout


def test_names_of_the_real_stable_diffusion_1():
    """On its real configuration, without its weights: every name is different, and known ones are where its checkpoints have them."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
                            up_block_types=("UpDecoderBlock2D",) * 4)
    names = [unet_name(name, unet.config) for name in unet.state_dict()]
    assert len(names) == len(set(names)) == 686
    assert {name: unet_name(name, unet.config) for name in SD1_UNET} == SD1_UNET
    assert SD1_UNET.keys() <= unet.state_dict().keys()
    names = [vae_name(name, 4) for name in vae.state_dict()]
    assert len(names) == len(set(names)) == 248
    assert {name: vae_name(name, 4) for name in SD1_VAE} == SD1_VAE
    assert SD1_VAE.keys() <= vae.state_dict().keys()


def test_the_autoencoders_attention_is_a_convolution_there(exported):
    tensors = load_file(exported.folder / "hfi-sharp-checkpoint.safetensors")
    assert tensors["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (4, 4, 1, 1)
    assert tensors["first_stage_model.encoder.mid.attn_1.q.bias"].shape == (4,)


def test_what_has_no_name_is_refused(pipeline_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    pipeline.unet.register_parameter("surprise", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(HFIError, match="surprise: the single-file layout has no name"):
        original_layout(pipeline)
    pipeline.unet = None
    with pytest.raises(HFIError, match="no family with a single-file layout"):
        original_layout(pipeline)


def test_every_file_says_what_it_is(exported, study):
    """Model, concept, settings and hashes stand in the header of every safetensors file that we name."""
    seen = set()
    for path in [*exported.folder.glob("*.safetensors"), *exported.folder.glob("diffusers/unet/*.safetensors")]:
        with safe_open(path, "pt") as opened:
            header = opened.metadata()
        seen.add(header["kind"])
        assert header["format"] == "pt" and header["concept"] == "sharp" and header["model"] == "pipeline"
        assert header["model_hash"] and header["tensors_sha256"]
        assert json.loads(header["settings"])["erase"]["steps"] == 4
        assert json.loads(header["hashes"])["erase"] == study.manifest("erase")["digest"]
        assert header["simulated_annotators"] == "false"
        assert str(study.root) not in json.dumps(header)  # no folder of this machine
        read_file(path)
    assert seen == {"hfi-delta", "hfi-lora", "hfi-token", "hfi-negative-embedding", "hfi-checkpoint", "hfi-pipeline"}


def test_equal_exports_are_equal_files(study, exported, tmp_path):
    from hfi.export.export import export

    export(study, "delta", tmp_path), export(study, "lora", tmp_path, max_error=1.0)
    for name in ("hfi-sharp-delta.safetensors", "hfi-sharp-lora.safetensors"):
        assert (tmp_path / name).read_bytes() == (exported.folder / name).read_bytes()
