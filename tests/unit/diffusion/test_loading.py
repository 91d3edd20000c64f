"""Models that cannot be used end in one line that names what is wrong with them; half precision and single files load equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import single_file
import tiny
import tiny_families
from hfi.diffusion import checks, loading
from hfi.diffusion.families import FAMILIES
from hfi.diffusion.model import load_model, parts_of
from hfi.diffusion.sampling import decode, sample_latents
from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny.save_pipeline(tmp_path_factory.mktemp("whole") / "pipeline")


@pytest.fixture(scope="module")
def whole_file(whole) -> Path:
    return single_file.save(whole, whole.parent / "one.safetensors")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Path:
    return tiny_families.save("sdxl", tmp_path_factory.mktemp("sdxl") / "pipeline")


def load(path, **options):
    return load_model(str(path), "cpu", "float32", **options)


def refused(path, *words: str, **options) -> None:
    with pytest.raises(HFIError) as caught:
        load(path, **options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def weights(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def index(folder: Path, **changes) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def test_a_key_that_is_missing(copy):
    weights(copy / UNET, lambda tensors: tensors.pop("mid_block.resnets.0.conv1.weight"))
    refused(copy, "mid_block.resnets.0.conv1.weight", "missing", "get the pipeline whole")


def test_a_key_that_is_left_over(copy):
    weights(copy / UNET, lambda tensors: tensors.update({"mid_block.strange.weight": torch.zeros(2)}))
    refused(copy, "mid_block.strange.weight", "left over")


def test_a_key_of_a_text_encoder_that_is_missing_or_left_over(copy, tmp_path):
    path = copy / "text_encoder" / "model.safetensors"
    kept = load_file(path)
    name = next(key for key in kept if key.endswith("fc1.weight"))
    weights(path, lambda tensors: tensors.pop(name))
    refused(copy, "text_encoder", "missing", "fc1.weight")
    save_file({**kept, "strange.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    refused(copy, "strange.weight", "left over")
    save_file({**kept, "embeddings.position_ids": torch.arange(24)[None]}, path, metadata={"format": "pt"})
    assert load(copy).encoders  # a buffer that old files hold and newer classes compute


def test_mixed_dtypes_within_a_part(copy):
    weights(copy / UNET, lambda tensors: tensors.update({"conv_in.weight": tensors["conv_in.weight"].half()}))
    refused(copy, "mixed dtypes in unet", "conv_in.weight", "F16", "F32")


def test_quantised_weights(copy):
    weights(copy / UNET, lambda tensors: tensors.update({name: value.to(torch.float8_e4m3fn) for name, value in tensors.items()}))
    refused(copy, "F8_E4M3", "float16")


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt"])
def test_pickled_weights(copy, name):
    (copy / UNET).rename(copy / "unet" / name)
    refused(copy, name, "is pickled", "never opened")


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt"])
def test_a_pickled_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    refused(tmp_path / name, name, "is pickled")


def test_code_in_the_folder(copy):
    (copy / "unet" / "my_unet.py").write_text("print('hello')")
    refused(copy, "my_unet.py", "code to execute")


def test_classes_of_its_own(copy):
    kept = json.loads((copy / "model_index.json").read_text())
    index(copy, unet=["my_unet", "MyUNet"])
    refused(copy, "unet", "MyUNet", "code to execute")
    index(copy, **kept, _class_name=["pipeline", "MyPipeline"]) if "_class_name" not in kept else index(
        copy, **{**kept, "_class_name": ["pipeline", "MyPipeline"]}
    )
    refused(copy, "_class_name", "code to execute")
    index(copy, **{**kept, "scheduler": ["my_scheduler", "MyScheduler"]})
    refused(copy, "scheduler", "not one of diffusers'")


def test_another_family(copy):
    index(copy, _class_name="KandinskyPipeline")
    refused(copy, "KandinskyPipeline is of another family", "hfi models")


def test_a_text_encoder_that_is_missing(copy, sdxl, tmp_path):
    kept = json.loads((copy / "model_index.json").read_text())
    index(copy, text_encoder=[None, None])
    refused(copy, "the text encoder is missing", "text_encoder")
    index(copy, **kept)
    shutil.rmtree(copy / "text_encoder")
    refused(copy, "text_encoder", "weights are missing")
    other = Path(shutil.copytree(sdxl, tmp_path / "xl"))
    index(other, text_encoder_2=[None, None])
    refused(other, "text_encoder_2", "the text encoder is missing")


def test_a_text_encoder_of_another_model(sdxl, copy, tmp_path):
    """An SDXL network with one text encoder's width too few is named before anything is drawn."""
    other = Path(shutil.copytree(sdxl, tmp_path / "xl"))
    shutil.rmtree(other / "unet")
    shutil.copytree(copy / "unet", other / "unet")
    refused(other, "width 16", "give 32")


def test_an_inpainting_model(copy, tmp_path):
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 9}))
    weights(copy / UNET, lambda tensors: tensors.update({"conv_in.weight": torch.zeros(8, 9, 3, 3)}))
    refused(copy, "9 channels", "inpainting")


def test_nan_in_a_text_encoder(copy):
    weights(copy / "text_encoder" / "model.safetensors", lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    refused(copy, "NaN", "text_encoder")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_truncated_files_are_named(copy, part):
    path = next((copy / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-7])
    refused(copy, path.name, part, "truncated")


def test_half_precision_files_load_as_the_floats_they_are(whole, tmp_path):
    """A folder that has fp16 variants alone, as the hub's smaller downloads do."""
    folder = Path(shutil.copytree(whole, tmp_path / "half"))
    for path in list(folder.rglob("*.safetensors")):
        halves = {name: value.half() if value.is_floating_point() else value for name, value in load_file(path).items()}
        path.unlink()
        save_file(halves, path.with_name(path.stem + ".fp16.safetensors"), metadata={"format": "pt"})
    half, full = load(folder), load(whole)
    for (name, one), (_, other) in zip(half.network.named_parameters(), full.network.named_parameters(), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other.half().float()), name


def test_names_that_older_files_use_are_understood(whole, copy):
    """SD 1.4 as published: attention of the autoencoder under other names, and text encoders with a prefix that newer classes drop."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(key: str) -> str:
        for new, name in old.items() if ".attentions." in key else ():
            key = key.replace(new, name)
        return key

    for path, rename in ((copy / "vae" / "diffusion_pytorch_model.safetensors", renamed),
                         (copy / "text_encoder" / "model.safetensors", lambda key: f"text_model.{key}")):
        save_file({rename(key): value for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
    assert any(".query." in key for key in load_file(copy / "vae" / "diffusion_pytorch_model.safetensors"))
    one, other = load(copy), load(whole)
    for name, part in parts_of(one.pipeline, FAMILIES["sd"]).items():
        assert all(torch.equal(*pair) for pair in zip(part.parameters(), getattr(other.pipeline, name).parameters(), strict=True))


def test_a_single_file_is_the_folder_bit_for_bit(whole, whole_file):
    one, other = load(whole_file, configs=whole), load(whole)
    for name, part in parts_of(one.pipeline, FAMILIES["sd"]).items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, getattr(other.pipeline, name).state_dict()[key]), key
    drawn = [decode(m, sample_latents(m, encode_prompts(m, ["a cat"]), encode_prompts(m, [""]), [5], 2, 2.0)) for m in (one, other)]
    assert torch.equal(*drawn) and one.hash != other.hash and one.content == other.content


def test_a_single_file_with_keys_missing_left_over_or_foreign(whole, whole_file, tmp_path):
    tensors, path = load_file(whole_file), tmp_path / "bad.safetensors"

    def saved(change) -> Path:
        changed = dict(tensors)
        change(changed)
        save_file(changed, path)
        return path

    network, text = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
    refused(saved(lambda t: t.pop(f"{network}middle_block.0.in_layers.2.weight")), "missing", configs=whole)
    refused(saved(lambda t: t.update({f"{network}strange.weight": torch.zeros(3)})), "3 numbers are left over", "unet", configs=whole)
    refused(saved(lambda t: t.update({"first_stage_model.strange": torch.zeros(3)})), "left over", "vae", configs=whole)
    refused(saved(lambda t: t.update({f"{text}strange": torch.zeros(3)})), "left over", "text_encoder", configs=whole)
    refused(saved(lambda t: t.pop(f"{text}final_layer_norm.weight")), "missing", "text_encoder", configs=whole)
    refused(saved(lambda t: t.update({"lora_unet_strange.alpha": torch.zeros(3)})), "lora_unet_strange.alpha", "left over", configs=whole)
    refused(saved(lambda t: [t.pop(key) for key in list(t) if key.startswith("cond_stage")]), "text encoders is missing", configs=whole)
    refused(
        saved(lambda t: [t.pop(key) for key in list(t) if key.startswith("model.")]), "no checkpoint of a whole pipeline", configs=whole
    )
    mixed = f"{network}input_blocks.0.0.bias"
    refused(saved(lambda t: t.update({mixed: t[mixed].half()})), "mixed dtypes in network", mixed, configs=whole)


def test_a_single_file_without_its_configs_says_how_to_give_them(whole_file, sdxl, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(whole_file, "configs", "diffusers folder")
    refused(whole_file, "no such folder", configs="nowhere")
    refused(whole_file, "another family", configs=sdxl)


def test_a_network_alone_is_no_model(tmp_path):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, tmp_path / "flux.safetensors")
    refused(tmp_path / "flux.safetensors", "the network alone", "diffusers folder")
    with pytest.raises(HFIError, match="no .safetensors file"):
        checks.check_single(tmp_path / "model.onnx")


def test_the_hub_when_it_cannot_be_reached_and_its_local_cache(whole, tmp_path, monkeypatch):
    """Offline, a model in the cache loads and another is answered in one line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.HF_HUB_CACHE", str(tmp_path), raising=False)
    cached = tmp_path / "models--some--model"
    shutil.copytree(whole, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    refused("nobody/nothing", "nobody/nothing", "not in the local cache", "hf download nobody/nothing")
    model, same = load("some/model"), load(whole)
    assert all(torch.equal(*pair) for pair in zip(model.network.parameters(), same.network.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "words"), [
    ("GatedRepoError", ["gated", "accept the licence", "hf auth login"]),
    ("RepositoryNotFoundError", ["not on the hub", "check the name"]),
    ("LocalEntryNotFoundError", ["cannot be reached", "hf download"]),
])  # fmt: skip
def test_what_the_hub_says_is_answered(monkeypatch, kind, words):
    import diffusers

    def refuse(*_, **__):
        raise OSError("the library's own long words\nover lines") from type(kind, (Exception,), {})("no")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", refuse)
    refused("some/model", "some/model", *words)


def test_no_code_of_a_model_is_ever_trusted():
    for path in Path(loading.__file__).parents[1].rglob("*.py"):
        assert "trust_remote_code=True" not in path.read_text()
