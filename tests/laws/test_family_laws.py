"""Laws of every family: our text conditions and pictures are those of diffusers' own pipelines; flow is the same convention."""

from __future__ import annotations

import numpy
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

import tiny
import tiny_families
from hfi.diffusion.flow import Trailing, alpha_bar_of, eps_of_flow, flow_sigmas, to_flow
from hfi.diffusion.model import add_noise, load_model, predict_noise
from hfi.diffusion.networks import pooled_row, token_rows
from hfi.diffusion.sampling import ddim, decode, encode_images, sample_latents, schedule, trajectory
from hfi.diffusion.text import encode_ids, encode_prompts, split_rows, text_embeddings, token_ids, token_width, word_rows
from hfi.errors import HFIError

FLOW = ("sd3", "flux")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: tiny_families.save(family, root / family) for family in tiny_families.FAMILIES}


@pytest.fixture(params=tiny_families.FAMILIES)
def model(request, folders):
    return load_model(str(folders[request.param]), "cpu", "float32")


def of(family, folders):
    return load_model(str(folders[family]), "cpu", "float32")


def theirs(model, prompts):
    """(c, pooled) of diffusers' own encode_prompt; pooled is None where a family has none."""
    pipe, n = model.pipeline, {"device": "cpu", "num_images_per_prompt": 1}
    if model.family == "sd":
        return pipe.encode_prompt(prompts, do_classifier_free_guidance=False, **n)[0], None
    if model.family == "sdxl":
        c, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False, **n)
        return c, pooled
    longest = {"max_sequence_length": tiny_families.T5_LENGTH}
    if model.family == "sd3":
        c, _, pooled, _ = pipe.encode_prompt(prompts, None, None, do_classifier_free_guidance=False, **longest, **n)
        return c, pooled
    c, pooled, _ = pipe.encode_prompt(prompts, None, **longest, **n)
    return c, pooled


def test_text_conditions_are_those_of_encode_prompt(model):
    prompts = ["a cat", "two boats in the style of ink, at night on a very long river", "x"]
    with torch.no_grad():
        c, pooled = theirs(model, prompts)
    ours = encode_prompts(model, prompts)
    torch.testing.assert_close(token_rows(model, ours), c, rtol=0, atol=1e-5)
    if pooled is not None:
        torch.testing.assert_close(pooled_row(model, ours), pooled, rtol=0, atol=1e-5)
    assert text_embeddings(model, prompts).shape[0] == 3


def test_guided_pictures_are_those_of_the_pipeline(model):
    """The family's own pipeline call, with the scheduler that corresponds: DDIM, or Euler on the same flow times."""
    model.pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 2.5, "output_type": "latent", "generator": torch.Generator().manual_seed(7)}
    if model.family in FLOW:
        unshifted = [(int(t) + 1) / 1000 for t in ddim(model, 4).timesteps]
        options |= {"sigmas": unshifted, "max_sequence_length": tiny_families.T5_LENGTH, "height": 32, "width": 32}
    other = model.pipeline("a cat", **options).images
    ours = sample_latents(model, encode_prompts(model, ["a cat"]), encode_prompts(model, [""]), [7], 4, 2.5)
    if model.family == "flux":  # its noise is drawn unpacked, its result comes packed
        other = other.view(1, 2, 2, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 4, 4, 4)
    # the first Euler step of a flow starts at s = 1, ours at 1 - 2^-12
    torch.testing.assert_close(ours, other, rtol=0, atol=2e-3 if model.family in FLOW else 1e-4)


def test_decoding_is_the_pipelines_own(model):
    """Scale and shift of the latents, both ways."""
    z_0 = torch.randn(1, *model.latent_shape)
    vae = model.vae
    direct = vae.decode(z_0 / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample
    torch.testing.assert_close(decode(model, z_0), (direct / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)
    pictures = torch.rand(1, 3, 32, 32)
    mean = vae.encode(pictures * 2 - 1).latent_dist.mean
    torch.testing.assert_close(encode_images(model, pictures), (mean - (vae.config.shift_factor or 0)) * vae.config.scaling_factor)


def test_a_ddim_step_is_an_euler_step_of_the_flow():
    """A perfect v for data at one point: our steps in eps and diffusers' Euler steps in v pass through the same states."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    sigmas = flow_sigmas(scheduler.config, 4)
    torch.testing.assert_close(sigmas.flip(0), scheduler.sigmas, rtol=0, atol=1e-6)
    alpha_bar, point = alpha_bar_of(sigmas), torch.randn(1, 4, 4, 4)
    steps = Trailing(alpha_bar, 8)
    scheduler.set_timesteps(sigmas=numpy.array([(int(t) + 1) / 1000 for t in steps.timesteps]))
    z = x = torch.randn(1, 4, 4, 4)

    def velocity(x, s):
        return torch.tanh(x) - point * s  # any field will do: both follow it

    for t, theirs in zip(steps.timesteps.tolist(), scheduler.timesteps, strict=True):
        sigma = sigmas[t].view(1, 1, 1, 1)
        x_s = to_flow(z, sigma)
        torch.testing.assert_close(x_s, x, rtol=0, atol=2e-3)
        z = steps.step(eps_of_flow(velocity(x_s, sigma), x_s, sigma), t, z).prev_sample
        x = scheduler.step(velocity(x, theirs / 1000), theirs, x).prev_sample
    torch.testing.assert_close(z, x, rtol=0, atol=2e-3)


@pytest.mark.parametrize("family", FLOW)
def test_the_noise_of_a_perfect_flow_is_its_noise(family, folders, monkeypatch):
    """x_0 and eps in, v = eps - x_0 from the network: eps comes out at every timestep, pure noise included."""
    flow = of(family, folders)
    z_0, eps = torch.randn(2, 5, 4, 4, 4)
    t = torch.tensor([0, 1, 500, 998, 999])
    z_t = add_noise(flow, z_0, eps, t)
    assert flow.alpha_bar[-1] == pytest.approx(2.0**-24, rel=1e-2) and torch.all(flow.alpha_bar.diff() < 0)
    monkeypatch.setattr("hfi.diffusion.networks._sd3", lambda *_: eps - z_0)
    monkeypatch.setattr("hfi.diffusion.networks._flux", lambda *_: eps - z_0)
    torch.testing.assert_close(predict_noise(flow, z_t, t, torch.zeros(5, 1, 1)), eps, rtol=0, atol=2e-3)


def test_a_dynamic_shift_is_the_pipelines(folders):
    """FLUX at its native resolution: the shift that its own pipeline computes for so many patches."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = of("flux", folders).pipeline.scheduler
    for patches in (4, 256, 4096):
        scheduler.set_timesteps(sigmas=numpy.array([1.0, 0.5, 0.25]), mu=calculate_shift(patches, 256, 4096, 0.5, 1.15))
        sigmas = flow_sigmas(scheduler.config, patches)
        torch.testing.assert_close(sigmas[[999, 499, 249]], scheduler.sigmas[:3], rtol=0, atol=1e-5)


def test_a_zero_snr_model_starts_at_pure_noise(tmp_path):
    folder = tiny_families.save("sd2", tmp_path / "zero", rescale_betas_zero_snr=True)
    model = load_model(str(folder), "cpu", "float32")
    assert model.alpha_bar[-1] == pytest.approx(2.0**-24)
    settings = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    scheduler = DDIMScheduler.from_config(model.pipeline.scheduler.config, **settings)
    scheduler.set_timesteps(5)
    assert ddim(model, 5).timesteps.tolist() == scheduler.timesteps.tolist() == [999, 799, 599, 399, 199]
    model.pipeline.scheduler = scheduler
    model.pipeline.set_progress_bar_config(disable=True)
    other = model.pipeline("a cat", num_inference_steps=5, guidance_scale=2.0, generator=torch.Generator().manual_seed(3),
                           output_type="latent").images  # fmt: skip
    ours = sample_latents(model, encode_prompts(model, ["a cat"]), encode_prompts(model, [""]), [3], 5, 2.0)
    torch.testing.assert_close(ours, other, rtol=0, atol=2e-3)
    with pytest.raises(HFIError, match=r"pure noise.*dpmsolver\+\+ is not supported.*set it to ddim"):
        schedule(model, 5, "dpmsolver++")


def test_steps_that_do_not_divide_the_schedule_end_clean(folders):
    flow, point = of("sd3", folders), torch.randn(1, 4, 4, 4)
    for count in (3, 7, 28):
        steps, z = ddim(flow, count), torch.randn(1, 4, 4, 4)
        for t in steps.timesteps.tolist():
            level = flow.alpha_bar[t]
            z = steps.step((z - level.sqrt() * point) / (1 - level).sqrt(), t, z).prev_sample
        torch.testing.assert_close(z, point, rtol=0, atol=1e-4)


def test_batch_of_three_is_three_batches_of_one(model):
    prompts, c_0 = ["knife", "a cat", "sun"], encode_prompts(model, [""])
    together = sample_latents(model, encode_prompts(model, prompts), c_0, [1, 2, 3], 2, 2.0)
    alone = [sample_latents(model, encode_prompts(model, [prompt]), c_0, [i + 1], 2, 2.0) for i, prompt in enumerate(prompts)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)


def test_a_soft_token_made_of_a_words_rows_is_that_word(model):
    """Every encoder's columns land in its own table's place, the pooled vector included, and gradients reach them all."""
    word = "q"
    rows = word_rows(model, word, 1)
    assert rows.shape == (1, token_width(model)) and sum(part.shape[1] for part in split_rows(model, rows).values()) == rows.shape[1]
    plain, soft = encode_prompts(model, [f"a {word} cat"]), encode_prompts(model, ["a <s> cat"], {"<s>": rows})
    torch.testing.assert_close(plain, soft, rtol=0, atol=1e-5)
    assert not torch.allclose(plain, encode_prompts(model, ["a <s> cat"], {"<s>": rows + torch.randn_like(rows)}), atol=1e-3)
    learning = {"<s>": rows.clone().requires_grad_(True)}
    encode_ids(model, token_ids(model, ["a <s> cat"], learning), learning).square().sum().backward()
    for name, part in split_rows(model, learning["<s>"].grad).items():
        assert part.abs().sum() > 0, name


def test_sdxl_takes_zeros_for_the_empty_prompt_where_it_was_trained_so(tmp_path, folders):
    assert not encode_prompts(of("sdxl", folders), [""]).any() and encode_prompts(of("sdxl", folders), ["a"]).any()
    other = load_model(str(tiny_families.save("sdxl", tmp_path / "x", force_zeros_for_empty_prompt=False)), "cpu", "float32")
    assert encode_prompts(other, [""]).any()


def test_sd3_without_t5_reads_zeros_in_its_place(tmp_path):
    model = load_model(str(tiny_families.save("sd3", tmp_path / "small", with_t5=False)), "cpu", "float32")
    c, _, pooled, _ = model.pipeline.encode_prompt(["a cat"], None, None, do_classifier_free_guidance=False, device="cpu")
    ours = encode_prompts(model, ["a cat"])
    torch.testing.assert_close(token_rows(model, ours), c, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled_row(model, ours), pooled, rtol=0, atol=1e-5)
    assert token_width(model) == tiny.WIDTH + 24


def test_a_guidance_distilled_flux_is_told_its_guidance_and_another_is_guided(tmp_path, folders):
    told, plain = of("flux", folders), load_model(str(tiny_families.save("flux", tmp_path / "s", guidance_embeds=False)), "cpu", "float32")
    for model, same in ((told, True), (plain, False)):
        c, c_0 = encode_prompts(model, ["a cat"]), encode_prompts(model, [""])
        z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
        ends = [list(trajectory(model, z, c, other, 2, 3.0))[-1][1] for other in (c_0, c_0 + 1)]
        assert torch.equal(*ends) is same  # c_0 counts only where there is classifier-free guidance
        assert not torch.equal(list(trajectory(model, z, c, c_0, 2, 1.5))[-1][1], ends[0])
