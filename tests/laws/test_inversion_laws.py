"""Laws of inversion: weights, resuming, what learns and what does not, and that diffusers loads the result."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from hfi.diffusion.text import embedding_table, encode_ids, encode_prompts, token_ids
from hfi.errors import Diverged, HFIError
from hfi.inversion.invert import token_name
from hfi.inversion.learn import Lesson, State, fresh_state, initial_rows, learn_tokens
from hfi.inversion.objective import weighted_denoising_loss

SETTINGS = {"steps": 6, "batch_size": 2, "learning_rate": 1e-2, "weight_decay": 0.0, "seed": 0, "stage": "invert"}


def learn_token(model, latents, weights, state, on_step=None):
    keep = (lambda states, losses: on_step(states[0], losses[0])) if on_step else None
    return learn_tokens(model, [Lesson(0, state, latents, weights)], **SETTINGS, on_step=keep)[0]


@pytest.fixture
def latents():
    return torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_equal_weights_are_plain_textual_inversion():
    eps, predicted = torch.randn(2, 4, 3, 5, 5)
    plain = torch.nn.functional.mse_loss(predicted, eps)
    torch.testing.assert_close(weighted_denoising_loss(eps, predicted, torch.ones(4)), plain)


def test_a_picture_of_weight_zero_teaches_nothing(tiny_model, latents):
    rows = initial_rows(tiny_model, 2, "", 0)
    weights = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, 0.0])
    other = latents.clone()
    other[3:] = torch.randn(3, 4, 4, 4)
    first, second = (learn_token(tiny_model, z, weights, fresh_state(rows)) for z in (latents, other))
    assert torch.equal(first, second)


def test_resuming_equals_not_stopping_bit_for_bit(tiny_model, latents):
    rows, weights, saved = initial_rows(tiny_model, 2, "knife", 0), torch.ones(6), {}
    whole = learn_token(tiny_model, latents, weights, fresh_state(rows))

    def keep(state, _):
        if state.step == 3:
            saved.update({name: value.clone() for name, value in state.tensors().items()})

    assert torch.equal(learn_token(tiny_model, latents, weights, fresh_state(rows), on_step=keep), whole)
    assert torch.equal(learn_token(tiny_model, latents, weights, State.from_tensors(saved)), whole)


def test_tokens_that_learn_side_by_side_learn_what_each_learns_alone(tiny_model, latents):
    weights = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    lessons = [Lesson(i, fresh_state(initial_rows(tiny_model, 2, "", 0, i)), latents[i:], weights[i:]) for i in range(3)]
    alone = [learn_tokens(tiny_model, [lesson], **SETTINGS)[0] for lesson in lessons]
    for one, other in zip(learn_tokens(tiny_model, lessons, **SETTINGS), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)  # sums in another order, then Adam's square root


def test_only_the_rows_learn(tiny_model, latents):
    before = {name: value.clone() for name, value in tiny_model.text_encoder.state_dict().items()}
    unet = {name: value.clone() for name, value in tiny_model.unet.state_dict().items()}
    rows = initial_rows(tiny_model, 2, "", 0)
    learned = learn_token(tiny_model, latents, torch.ones(6), fresh_state(rows))
    assert not torch.equal(learned, rows)
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.text_encoder.state_dict().items())
    assert all(torch.equal(value, unet[name]) for name, value in tiny_model.unet.state_dict().items())


def test_a_soft_token_equal_to_a_words_rows_is_that_word(tiny_model):
    ids = tiny_model.tokenizer("knife", add_special_tokens=False)["input_ids"]
    rows = embedding_table(tiny_model)[ids]
    soft = encode_prompts(tiny_model, ["a <x> on grass"], {"<x>": rows})
    torch.testing.assert_close(soft, encode_prompts(tiny_model, ["a knife on grass"]), rtol=0, atol=1e-6)


def test_two_tokens_in_one_prompt_keep_their_own_rows(tiny_model):
    tokens = {"<a>": torch.randn(2, 16), "<b>": torch.randn(3, 16)}
    size = embedding_table(tiny_model).shape[0]
    ids = token_ids(tiny_model, ["<b> <a>"], tokens)[0].tolist()
    assert ids[1:6] == [size + 2, size + 3, size + 4, size, size + 1]
    assert encode_ids(tiny_model, torch.tensor([ids]), tokens).isfinite().all()


def test_a_token_of_the_wrong_width_is_refused_by_name(tiny_model):
    with pytest.raises(HFIError, match="<x>.*width 7.*16"):
        encode_prompts(tiny_model, ["<x>"], {"<x>": torch.zeros(2, 7)})


def test_a_word_starts_every_row_near_its_embedding(tiny_model):
    ids = tiny_model.tokenizer("k", add_special_tokens=False)["input_ids"]
    rows = initial_rows(tiny_model, 3, "k", 0)
    table = embedding_table(tiny_model)
    assert (rows - table[ids[0]]).abs().max() < 0.1 * table.std(0).max()
    assert not torch.equal(rows[0], rows[1])  # identical rows could never part


def test_nan_stops_with_the_field_to_change(tiny_model, latents):
    rows = initial_rows(tiny_model, 2, "", 0)
    with pytest.raises(Diverged, match="invert.learning_rate"):
        learn_token(tiny_model, latents * float("nan"), torch.ones(6), fresh_state(rows))


def test_diffusers_loads_the_token_and_draws_with_it(tiny_model, tmp_path):
    name = token_name("A Weapon!", 1)
    assert name == "<a-weapon-2>"
    save_file({name: torch.randn(2, 16)}, tmp_path / "token.safetensors")
    tiny_model.pipeline.load_textual_inversion(str(tmp_path / "token.safetensors"))
    tiny_model.pipeline.set_progress_bar_config(disable=True)
    assert tiny_model.pipeline(f"a {name}", num_inference_steps=2, output_type="np").images.shape[0] == 1
