"""Laws of the door to diffusion: one noise convention, pictures that depend on their seed alone, exact swaps."""

from __future__ import annotations

import pytest
import torch

import tiny
from hfi.diffusion.fast import constant_weights
from hfi.diffusion.model import add_noise, load_model, predict_noise, to_eps
from hfi.diffusion.sampling import decode, initial_noise, sample_latents, schedule, trajectory
from hfi.diffusion.text import encode_prompts
from hfi.errors import HFIError
from hfi.seeds import derive, generator

PROMPTS = ["knife", "a cat", "sun", "a boat"]


def draw(model, prompts, seeds):
    return sample_latents(model, encode_prompts(model, prompts), encode_prompts(model, [""]), seeds, 3, 2.0)


def test_batch_four_is_four_times_batch_one(tiny_model):
    together = draw(tiny_model, PROMPTS, [1, 2, 3, 4])
    alone = torch.cat([draw(tiny_model, [prompt], [seed]) for prompt, seed in zip(PROMPTS, [1, 2, 3, 4], strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_picture_bit_for_bit(tiny_model):
    assert torch.equal(
        decode(tiny_model, draw(tiny_model, PROMPTS, [1, 2, 3, 4])), decode(tiny_model, draw(tiny_model, PROMPTS, [1, 2, 3, 4]))
    )


def test_our_pictures_are_those_of_the_diffusers_pipeline(tiny_model):
    tiny_model.pipeline.set_progress_bar_config(disable=True)
    theirs = tiny_model.pipeline(
        "a cat", num_inference_steps=3, guidance_scale=2.0, generator=torch.Generator().manual_seed(7), output_type="latent"
    ).images
    torch.testing.assert_close(draw(tiny_model, ["a cat"], [7]), theirs, rtol=0, atol=1e-4)


def test_dpmsolver_is_the_pipeline_with_that_scheduler(tiny_model):
    """diffusers' own pipeline with its DPM-Solver++ over the same timesteps draws what we draw, and the pipeline keeps its scheduler."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    c, c_0 = encode_prompts(tiny_model, ["a cat"]), encode_prompts(tiny_model, [""])
    ours = sample_latents(tiny_model, c, c_0, [7], 5, 2.0, sampler="dpmsolver++")
    config = tiny_model.pipeline.scheduler.config
    theirs = StableDiffusionPipeline(**tiny_model.pipeline.components, requires_safety_checker=False)
    theirs.scheduler = DPMSolverMultistepScheduler.from_config(
        config,
        algorithm_type="dpmsolver++",
        timestep_spacing="leading",
        steps_offset=1,
        final_sigmas_type="sigma_min",
        euler_at_final=True,
    )
    theirs.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    found = theirs("a cat", num_inference_steps=5, guidance_scale=2.0, generator=generator, output_type="latent").images
    torch.testing.assert_close(ours, found, rtol=0, atol=1e-4)
    assert not torch.allclose(ours, sample_latents(tiny_model, c, c_0, [7], 5, 2.0), atol=1e-3)


def test_dpmsolver_is_nearer_to_the_exact_flow(tiny_model, monkeypatch):
    """For normal data, whose noise is known exactly: from the same steps it ends nearer to where the flow ends than DDIM does."""
    spread = 0.6

    def exact(model, z_t, t, c, guidance_scale=1.0):
        level = model.alpha_bar[t].view(-1, 1, 1, 1).double()
        return (1 - level).sqrt() * z_t / (level * spread**2 + 1 - level)

    monkeypatch.setattr("hfi.diffusion.sampling.predict_noise", exact)
    c, seeds = encode_prompts(tiny_model, ["a cat"]), list(range(8))

    def far(sampler: str, steps: int, later: int = 0) -> float:
        t = int(schedule(tiny_model, steps, sampler).timesteps[later])
        first, begin, end = initial_noise(tiny_model, seeds).double(), *tiny_model.alpha_bar[[t, 0]].double()
        z_0 = sample_latents(tiny_model, c.expand(8, -1, -1), c, seeds, steps, 1.0, start=(first, t), sampler=sampler)
        scale = ((end * spread**2 + 1 - end) / (begin * spread**2 + 1 - begin)).sqrt()  # the flow scales normal data, and no more
        return float((z_0 - first * scale).abs().mean())

    for steps, share in ((8, 0.7), (16, 0.55), (32, 0.45)):
        assert far("dpmsolver++", steps) < share * far("ddim", steps)
        assert far("dpmsolver++", steps, 2) < share * far("ddim", steps, 2)  # begun on the way, as the noise start is


def test_the_sampler_of_old_changes_no_hash_and_another_one_does():
    from hfi.config import Evaluate, Generate

    for section in (Generate, Evaluate):
        assert "sampler" not in section().decisive() and section().drawn_with == [section().steps, 7.5]
        other = section(sampler="dpmsolver++")
        assert other.decisive()["sampler"] == "dpmsolver++" and other.drawn_with == [section().steps, 7.5, "dpmsolver++"]


def test_every_prediction_type_becomes_the_same_noise():
    z_0, eps = torch.randn(2, 3, 4, 5, 5)
    level = torch.rand(3).clamp(0.1, 0.9)
    signal, noise = level.sqrt().view(-1, 1, 1, 1), (1 - level).sqrt().view(-1, 1, 1, 1)
    z_t = signal * z_0 + noise * eps
    outputs = {"epsilon": eps, "v_prediction": signal * eps - noise * z_0, "sample": z_0}
    for prediction, out in outputs.items():
        torch.testing.assert_close(to_eps(out, z_t, level, prediction), eps, rtol=1e-4, atol=1e-4)


def test_a_v_model_is_converted_at_the_door(tmp_path):
    model = load_model(str(tiny.save_pipeline(tmp_path / "v", prediction_type="v_prediction")), "cpu", "float32")
    assert model.prediction == "v_prediction"
    z, t, c = torch.randn(1, 4, 4, 4), torch.tensor([500]), encode_prompts(model, ["cat"])
    v = model.unet(z, t, encoder_hidden_states=c).sample
    level = model.alpha_bar[500]
    torch.testing.assert_close(predict_noise(model, z, t, c), level.sqrt() * v + (1 - level).sqrt() * z)


def test_a_perfect_denoiser_is_sampled_back_to_its_point(tiny_model, monkeypatch):
    """An analytic model whose data is one point: DDIM must return that point from any noise."""
    point = torch.randn(1, 4, 4, 4)

    def exact(model, z_t, t, c):
        level = model.alpha_bar[t].view(-1, 1, 1, 1)
        return (z_t - level.sqrt() * point) / (1 - level).sqrt()

    monkeypatch.setattr("hfi.diffusion.sampling.predict_noise", exact)
    states = list(trajectory(tiny_model, torch.randn(2, 4, 4, 4), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), 10, 3.0))
    assert states[-1][0] == -1 and len(states) == 11
    level = tiny_model.alpha_bar[0]  # DDIM ends at alpha_bar_0, not at 1
    torch.testing.assert_close((states[-1][1]).mean(0, keepdim=True), point * level.sqrt() + 0 * point, rtol=0, atol=0.1)


def test_noising_keeps_unit_variance(tiny_model):
    z_0, eps = torch.randn(2, 2000, 4, 4, 4)
    for t in (0, 500, 999):
        assert add_noise(tiny_model, z_0, eps, torch.full((2000,), t)).var() == pytest.approx(1, abs=0.03)


def test_fast_passes_are_the_same_mathematics(tiny_root):
    """Under bf16 the written-out passes agree with float32 as closely as the library's own bf16 passes do."""
    exact, half, plain = (load_model(str(tiny_root / "pipeline"), "cpu", dtype) for dtype in ("float32", "bfloat16", "float32"))
    plain.dtype = torch.bfloat16  # the library's own passes, for they are written out only in a model that was loaded for bf16
    assert any(type(module) is not type(twin) for module, twin in zip(half.unet.modules(), plain.unet.modules(), strict=True))
    assert list(half.unet.state_dict()) == list(plain.unet.state_dict())
    z, t, c = torch.randn(8, 4, 4, 4), torch.randint(1000, (8,)), encode_prompts(exact, ["cat", "sun"] * 4)

    def prediction(model):
        with torch.no_grad():
            return predict_noise(model, z, t, c).flatten()

    def gradient(model):
        for parameter in model.unet.parameters():
            parameter.requires_grad_(True)
        predict_noise(model, z, t, c).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.unet.parameters()])

    for measure in (prediction, gradient):
        true = measure(exact)
        ours, theirs = ((measure(model) - true).norm() / true.norm() for model in (half, plain))
        assert 0 < ours < 1.5 * theirs + 1e-3


def test_constant_weights_change_nothing_and_never_outlive_their_promise(tiny_root):
    """Predictions and gradients are the same under the promise; what learns is read afresh, and afterwards so is everything."""
    model = load_model(str(tiny_root / "pipeline"), "cpu", "bfloat16")
    learning = {name: weight for name, weight in model.unet.named_parameters() if ".attn2." in name}
    for weight in learning.values():
        weight.requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    z, t = torch.randn(4, 4, 4, 4, generator=draw), torch.randint(1000, (4,), generator=draw)
    c = encode_prompts(model, PROMPTS)

    def measured():
        prediction = predict_noise(model, z, t, c)
        return torch.cat([prediction.flatten(), *(g.flatten() for g in torch.autograd.grad(prediction.square().sum(), learning.values()))])

    def close(one, other):
        return (one - other).norm() < 0.02 * other.norm()

    before = measured()
    with constant_weights(model.unet):
        inside = measured()
        learning["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.weight"].data *= 30
        learned = measured()
        with torch.no_grad(), constant_weights(model.unet):  # as when pictures are drawn between two steps
            drawn = predict_noise(model, z, t, c).flatten()
    assert close(inside, before) and close(measured(), learned) and close(drawn, learned[: len(drawn)])
    assert not close(learned, before)
    model.unet.conv_in.weight.data *= 2
    assert not close(measured(), learned)
    with constant_weights(model.unet):
        assert close(measured(), measured()) and not close(measured(), learned)


def test_a_batch_spread_over_threads_is_the_same_batch(tiny_model):
    """Two threads with half a batch each predict, and draw, what one thread does with the whole."""
    z, t, c = torch.randn(5, 4, 4, 4), torch.randint(1000, (5,)), encode_prompts(tiny_model, [*PROMPTS, "knife"])
    drawn = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with torch.no_grad():
                drawn.append((predict_noise(tiny_model, z, t, c), decode(tiny_model, draw(tiny_model, PROMPTS, [1, 2, 3, 4]))))
        finally:
            torch.set_num_threads(1)
    for one, two in zip(*drawn, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def test_seeds_differ_by_stage_and_index_and_never_touch_the_global_generator():
    state = torch.get_rng_state()
    values = {derive(0, stage, i) for stage in ("a", "b") for i in range(100)}
    assert len(values) == 200
    assert torch.equal(torch.randn(3, generator=generator(1, "x", 2)), torch.randn(3, generator=generator(1, "x", 2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("source, field", [("no/such/folder/here", "model"), ("./missing", "model")])
def test_an_unknown_model_is_a_line_with_a_remedy(source, field):
    with pytest.raises(HFIError, match=rf"{source}: {field}: unknown model. use 'emoji'"):
        load_model(source, "cpu", "float32")


def test_nan_weights_are_refused_by_name(tmp_path):
    folder = tiny.save_pipeline(tmp_path / "bad")
    from safetensors.torch import load_file, save_file

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"][0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(HFIError, match="conv_in.weight: holds NaN"):
        load_model(str(folder), "cpu", "float32")


def test_truncated_weights_are_refused(tmp_path):
    folder = tiny.save_pipeline(tmp_path / "cut")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(HFIError, match="cannot be loaded"):
        load_model(str(folder), "cpu", "float32")
