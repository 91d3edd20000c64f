"""LoRAs in the kohya layout: the best of their rank, alpha / rank exactly as loaders use it, names that three tools find."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from hfi.erasure.delta import applied, load_delta
from hfi.errors import HFIError
from hfi.export.export import export
from hfi.export.files import read_file
from hfi.export.lora import check_error, kohya_name, low_rank, weights_of_lora
from hfi.export.single_file import unet_name

sys.path.insert(0, str(Path(__file__).parent))
from webui_rules import a1111_layer, comfy_layers, comfy_leftovers  # noqa: E402

FILE = "hfi-sharp-lora.safetensors"
UP, DOWN, ALPHA = "lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight", "lora_unet_a.alpha"


def rebuilt(tensors) -> torch.Tensor:
    return tensors[ALPHA] / len(tensors[DOWN]) * (tensors[UP] @ tensors[DOWN])


@pytest.mark.parametrize("alpha", [None, 1.0, 3.0, 12.5])
def test_alpha_over_rank_times_up_down_is_the_best_of_its_rank(alpha):
    """Eckart and Young: what is missing is the rest of the spectrum. Whatever alpha is, the product is the same."""
    u, v = torch.linalg.qr(torch.randn(6, 4))[0], torch.linalg.qr(torch.randn(9, 4))[0]
    delta = u @ torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])) @ v.T
    found = low_rank({"a.weight": delta}, rank=2, alpha=alpha)
    assert found.tensors[ALPHA].item() == pytest.approx(2 if alpha is None else alpha)
    torch.testing.assert_close(rebuilt(found.tensors), u[:, :2] @ torch.diag(torch.tensor([4.0, 2.0])) @ v[:, :2].T)
    assert found.error == found.errors["a.weight"] == pytest.approx(((1 + 0.25) / (16 + 4 + 1 + 0.25)) ** 0.5, rel=1e-5)


def test_a_layer_with_a_shorter_side_has_the_same_rank_and_alpha():
    """diffusers scales layers of different alpha wrongly; zeros fill the shorter one up. No rank beyond use is written."""
    found = low_rank({"a.weight": torch.randn(3, 9), "b.weight": torch.randn(5, 6)}, rank=8, alpha=4.0)
    assert found.rank == 5 and found.tensors[DOWN].shape == (5, 9) and found.tensors[ALPHA].item() == 4.0
    assert found.error < 1e-6


def test_convolutions_and_what_the_layout_cannot_carry():
    """A kernel goes into the down part; biases and norms are left out, and the error counts them."""
    kernel, bias = torch.randn(4, 3, 3, 3), torch.full((4,), 2.0)
    found = low_rank({"a.weight": kernel, "a.bias": bias, "norm.weight": torch.zeros(4)}, rank=64)
    assert found.rank == 4 and found.tensors[DOWN].shape == (4, 3, 3, 3) and found.tensors[UP].shape == (4, 4, 1, 1)
    assert found.left_out == ("a.bias", "norm.weight") and found.errors["a.weight"] < 1e-6
    assert found.error == pytest.approx(found.left_out_error) == pytest.approx((16 / (16 + kernel.square().sum().item())) ** 0.5)
    with pytest.raises(HFIError, match="cannot carry 2 biases"):
        check_error(found, found.error / 2)


def test_a_rank_that_misses_too_much_is_refused(study, tmp_path):
    with pytest.raises(HFIError, match="rank: at rank 1 the LoRA misses .* more than 20%.*--rank"):
        export(study, "lora", tmp_path, rank=1, max_error=0.2)
    assert not list(tmp_path.glob("*.safetensors"))


def test_diffusers_adds_the_low_rank_delta_to_the_original(exported, study, pipeline_folder, tiny_model):
    """load_lora_weights on the original, fused: original + alpha / rank x up down, layer by layer; at full rank the erased model."""
    delta = load_delta(study.path("erase", "delta.safetensors")).weights
    tensors = load_file(exported.folder / FILE)
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(exported.folder / FILE)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = pipeline.unet.state_dict()
    carried = [name for name in delta if name.endswith(".weight")]
    assert len(tensors) == 3 * len(carried) and carried
    for name in carried:
        torch.testing.assert_close(after[name] - before[name], delta[name], rtol=1e-4, atol=1e-6)
    for name in before.keys() - set(carried):
        assert torch.equal(before[name], after[name])


def test_a_low_rank_through_diffusers(study, tmp_path, pipeline_folder, tiny_model):
    """The same at rank 2 with an alpha that is not the rank: our own reading of the file and diffusers' agree."""
    export(study, "lora", tmp_path, rank=2, alpha=0.5, max_error=1.0)
    ours = weights_of_lora(load_file(tmp_path / FILE), tiny_model.unet, tmp_path / FILE)
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(tmp_path / FILE)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    for name, value in ours.items():
        assert torch.linalg.matrix_rank(value, rtol=1e-4) <= 2
        torch.testing.assert_close(pipeline.unet.state_dict()[name] - before[name], value, rtol=1e-4, atol=1e-6)


def test_the_erased_model_within_float_error(exported, study, tiny_model):
    """Full rank and the biases that a LoRA cannot carry: together the delta."""
    delta = load_delta(study.path("erase", "delta.safetensors")).weights
    read = weights_of_lora(load_file(exported.folder / FILE), tiny_model.unet, "x")
    biases = {name: value for name, value in delta.items() if name not in read}
    assert set(exported.lora.left_out) == set(biases) and all(name.endswith(".bias") for name in biases)
    assert exported.lora.error == pytest.approx(exported.lora.left_out_error, abs=1e-6)
    t, c = torch.tensor([500]), torch.randn(1, 24, 16)
    z_t, outs = torch.randn(1, 4, 4, 4), []
    for changes in (delta, {**read, **biases}):
        with applied(tiny_model, changes), torch.no_grad():
            outs.append(tiny_model.unet(z_t, t, encoder_hidden_states=c).sample)
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)


def test_both_webuis_find_every_key_on_the_real_stable_diffusion_1():
    """All cross-attention weights of its real configuration, key by key, by each tool's own rule."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    weights = [name for name in unet.state_dict() if ".attn2." in name and name.endswith(".weight")]
    assert len(weights) == 64
    comfy = comfy_layers(list(unet.state_dict()))
    for name in weights:
        layer = kohya_name(name)
        assert comfy[layer] == name
        original = unet_name(name, unet.config).removesuffix(".weight")
        assert a1111_layer(layer) == "diffusion_model_" + original.replace(".", "_")


def test_no_key_is_left_over(exported, pipeline_folder):
    """In the exported file itself every name is one that ComfyUI loads, and every layer has all three parts."""
    unet = UNet2DConditionModel.from_pretrained(pipeline_folder, subfolder="unet")
    names = set(load_file(exported.folder / FILE))
    assert not comfy_leftovers(names, comfy_layers(list(unet.state_dict())))
    assert {name.partition(".")[2] for name in names} == {"lora_up.weight", "lora_down.weight", "alpha"}


def test_text_encoder_layers_have_the_names_of_stable_diffusion_1():
    name = kohya_name("text_encoder.text_model.encoder.layers.3.self_attn.q_proj.weight")
    assert name == "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    assert a1111_layer(name) == "transformer_text_model_encoder_layers_3_self_attn_q_proj"


def test_the_header_tells_the_word_for_the_prompt(exported):
    _, header = read_file(exported.folder / FILE)
    assert header["ss_output_name"] == "hfi-sharp-lora"
    assert header["ss_network_dim"] == header["ss_network_alpha"] == str(exported.lora.rank)
    assert header["ss_v2"] == "False" and float(header["relative_error"]) == pytest.approx(exported.lora.error, abs=1e-6)


@pytest.mark.parametrize(("change", "words"), [
    (lambda t, k: t.pop(f"{k}.alpha"), "missing or left over: alpha"),
    (lambda t, k: t.update({f"{k}.dora_scale": torch.ones(1)}), "missing or left over: dora_scale"),
    (lambda t, k: t.update({f"{k}x.alpha": torch.ones(1)}), "no such layer"),
    (lambda t, k: t.update({f"{k}.alpha": torch.tensor(-4.0)}), "negative alpha"),
    (lambda t, k: t.update({f"{k}.lora_up.weight": torch.ones(3, 1)}), "has shape"),
], ids=["missing", "left over", "layer", "negative", "shape"])
def test_a_wrong_lora_is_refused_by_name(exported, tiny_model, tmp_path, change, words):
    tensors = load_file(exported.folder / FILE)
    change(tensors, sorted(tensors)[0].partition(".")[0])
    save_file(tensors, tmp_path / "x.safetensors")
    from hfi.export.deltas import read_parts

    with pytest.raises(HFIError, match=f"x.safetensors.*{words}"):
        read_parts(tmp_path / "x.safetensors", tiny_model)
