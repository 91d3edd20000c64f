"""What is traded for memory changes nothing that it should not: low-rank learning, half matrices, recomputed activations, waiting parts."""

from __future__ import annotations

import pytest
import torch

import tiny_families
from hfi.config import Erase, Memory, parse_config
from hfi.diffusion import text
from hfi.diffusion.lora import low_rank, weight_delta
from hfi.diffusion.memory import awake, save_memory
from hfi.diffusion.model import load_model, predict_noise
from hfi.diffusion.text import encode_prompts
from hfi.erasure.conditions import build_conditions
from hfi.erasure.delta import applied
from hfi.erasure.sdd import Benign, train_sdd
from hfi.erasure.trainable import cross_attention
from hfi.errors import HFIError

SMALL = {"steps": 4, "sampling_steps": 2, "batch_size": 2, "ema_decay": 0.5, "learning_rate": 1e-2, "replay_runs": 2, "snapshots": 1,
         "preservation": 1.0}  # fmt: skip


@pytest.fixture(scope="module", params=["sdxl", "flux"])
def folder(request, tmp_path_factory):
    return tiny_families.save(request.param, tmp_path_factory.mktemp(request.param) / "pipeline")


@pytest.fixture
def model(folder):
    return load_model(str(folder), "cpu", "float32")


def parts(model):
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 4, 4, 4, generator=draw)
    conditions = build_conditions(
        model, {"<a>": torch.randn(1, sum(e.table.shape[1] for e in model.encoders), generator=draw)}, ("{}",), [], 0.0)  # fmt: skip
    return conditions, encode_prompts(model, [""]), latents, Benign(latents, encode_prompts(model, ["cat", "dog", "sun", "moon"]))


def inputs(model):
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3)), torch.tensor([100, 700]), encode_prompts(model, ["a", "b"])


def test_what_a_model_remembers_of_prompts_has_a_size_and_changes_nothing(model, monkeypatch):
    """The empty prompt is what the family makes of it (SDXL: zeros) however full the memory is; a soft token is never plain text."""
    width = sum(encoder.table.shape[1] for encoder in model.encoders)
    prompts, soft = ["", "a", "b", "c", "<t>"], {"<t>": torch.ones(1, width)}
    first = encode_prompts(model, prompts)
    held = next(iter(model.text_cache.values()))
    model.text_cache.clear()
    monkeypatch.setattr(text, "MAX_CACHE", 2 * held.nbytes)
    assert torch.equal(encode_prompts(model, prompts), first) and len(model.text_cache) == 2
    assert all(torch.allclose(encode_prompts(model, [prompt])[0], c, atol=1e-5) for prompt, c in zip(prompts, first, strict=True))
    learned = encode_prompts(model, ["<t>", ""], soft)
    assert not torch.equal(learned[0], first[-1]) and torch.equal(learned[1], first[0]) and len(model.text_cache) == 2
    assert all(c.untyped_storage().nbytes() == held.nbytes for c in model.text_cache.values())


def test_a_low_rank_delta_is_what_the_adapters_did(model):
    """The prediction under learned adapters is the one under their delta; before and after, the network is the original, key by key."""
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    z, t, c = inputs(model)
    first = predict_noise(model, z, t, c)
    with low_rank(model.network, cross_attention(model.network), rank=3, alpha=6.0, seed=1) as adapters:
        assert torch.equal(predict_noise(model, z, t, c), first)  # B starts at zero
        for number, (name, parameter) in enumerate(adapters.items()):
            if name.endswith("lora_B"):
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        changed = predict_noise(model, z, t, c)
        delta = weight_delta({name: parameter.detach() for name, parameter in adapters.items()}, 3, 6.0)
    after = model.network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert all(torch.linalg.matrix_rank(value) <= 3 for value in delta.values())
    with applied(model, delta):
        torch.testing.assert_close(predict_noise(model, z, t, c), changed, rtol=0, atol=1e-5)
    assert not torch.allclose(first, changed, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_low_rank_learning_leaves_an_ordinary_delta_and_resumes_bit_for_bit(model, eta):
    config, kept, saved = Erase(**SMALL, trainable="lora", lora_rank=2, lora_alpha=4.0, negative_guidance=eta), {}, {}
    delta = train_sdd(model, *parts(model), config, seed=1, on_snapshot=kept.__setitem__).weights
    names = {name for name, weight in cross_attention(model.network).items() if name.endswith(".weight") and weight.ndim == 2}
    assert set(delta) == names and list(kept) == [2] and set(kept[2]) == names
    assert any(value.abs().sum() > 0 for value in delta.values())
    assert not [name for name, _ in model.network.named_modules() if "lora" in name]

    def stop(done, checkpoint):
        if done == 2:
            saved.update({name: value.clone() for name, value in checkpoint().items()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sdd(model, *parts(model), config, seed=1, on_step=stop)
    again = train_sdd(model, *parts(model), config, seed=1, resume=saved).weights
    assert all(torch.equal(delta[name], again[name]) for name in delta)
    with pytest.raises(HFIError, match="erase.start"):
        train_sdd(model, *parts(model), Erase(**SMALL, trainable="lora", start="closed_form"), seed=1)


def test_half_matrices_change_no_bit_under_bfloat16(folder):
    """Predictions and a whole erasure are equal, and what learns has float32 masters."""
    results = []
    for memory in (Memory(), Memory(weights="bfloat16", gradient_checkpointing=True)):
        model = load_model(str(folder), "cpu", "bfloat16", memory=memory)
        z, t, c = inputs(model)
        with torch.no_grad():
            results.append((predict_noise(model, z, t, c), train_sdd_deltas(model)))
    (one, first), (other, second) = results
    assert torch.equal(one, other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    dtypes = {name: weight.dtype for name, weight in model.network.named_parameters()}
    learns = set(cross_attention(model.network))
    assert all(dtypes[name] == torch.float32 for name in learns)
    assert sum(dtype == torch.bfloat16 for dtype in dtypes.values()) > len(dtypes) // 3


def train_sdd_deltas(model):
    with torch.enable_grad():
        return train_sdd(model, *parts(model), Erase(**{**SMALL, "steps": 2, "latents": "forward"}), seed=1).weights


def test_recomputed_activations_give_the_same_delta(folder):
    one, other = (load_model(str(folder), "cpu", "float32", memory=Memory(gradient_checkpointing=on)) for on in (False, True))
    first, second = train_sdd_deltas(one), train_sdd_deltas(other)
    assert other.network.is_gradient_checkpointing
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)


def test_parts_wait_on_the_cpu_unless_gradients_flow(model, monkeypatch):
    """There is no second device here, so the moves themselves are what is counted."""
    moves = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, place: moves.append(str(place)) or self)
    with awake(model, model.vae):
        pass
    assert moves == []  # off by default
    model.offload, model.device = True, torch.device("cuda")
    with torch.no_grad(), awake(model, model.vae):
        pass
    assert moves == ["cuda", "cpu"]
    with awake(model, model.vae):
        pass
    assert moves[2:] == ["cuda"]


def test_half_matrices_without_half_arithmetic_are_refused(model):
    with pytest.raises(HFIError, match="memory.weights"):
        save_memory(model, Memory(weights="bfloat16"))
    with pytest.raises(HFIError, match="memory.weights=bfloat16 goes with"):
        parse_config({"dtype": "float32", "memory": {"weights": "bfloat16"}}, "x")
