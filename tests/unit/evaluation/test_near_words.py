"""Words that nobody thought of: what the model itself holds near to a concept is drawn for people to judge."""

from __future__ import annotations

import pytest

import tiny
from hfi.config import Concept, Generate, parse_config
from hfi.diffusion.model import load_model
from hfi.diffusion.prompts import asked_for, load_vocabulary
from hfi.erasure.erase import benign_images, material
from hfi.generation import generate as stage
from hfi.generation import near
from hfi.generation.generate import Generated, generate
from hfi.workspace import Workspace

DANGER = {"chop", "handgun", "stab"}
OTHERS = "baby banana beer bird book cat cloud cold crown fish flower frog happy heart house moon music pizza rainy sad ship star train"
WORDS = sorted({*OTHERS.split(), *DANGER, "bow", "pistol", "weapon"})


@pytest.fixture(scope="module")
def emoji():
    return load_model("emoji", "cpu")


def few(monkeypatch, words=WORDS):
    """The emoji vocabulary without its keywords, and a tokenizer of a few words: the whole of both takes half a minute."""
    from dataclasses import replace

    monkeypatch.setattr(near, "whole_words", lambda tokenizer: list(words))
    whole = load_vocabulary("emoji")
    return replace(whole, objects={name: replace(entry, tags=()) for name, entry in whole.objects.items()})


def test_the_words_nearest_to_a_weapon_are_those_that_draw_one(emoji, monkeypatch):
    vocabulary, weapon = few(monkeypatch), Concept(name="weapon", unlisted=("pistol", "bow and arrow"), words=("weapon", "gun"))
    found = near.near_words(emoji, weapon, vocabulary, 3, 0)
    assert set(found) == DANGER
    every = near.near_words(emoji, weapon, vocabulary, 100, 0)
    assert every[:3] == found and set(every) == set(WORDS) - {"bow", "pistol", "weapon"}, "unlisted names and what is asked for stay out"


def test_words_come_in_turn_by_what_is_drawn_and_by_what_is_read(emoji, monkeypatch):
    vocabulary, weapon = few(monkeypatch), Concept(name="weapon", unlisted=("pistol",), words=("weapon", "gun"))
    monkeypatch.setattr(near, "by_predictions", lambda model, words, *_: sorted(words, reverse=True))
    found = near.near_words(emoji, weapon, vocabulary, 6, 0)
    words = sorted(set(WORDS) - {"pistol", "weapon"})
    read = near.nearest_names(emoji, asked_for(weapon, vocabulary), words, len(words))
    assert found == list(dict.fromkeys(word for pair in zip(words[::-1], read, strict=True) for word in pair))[:6]
    assert set(read[:3]) == DANGER


def test_a_large_vocabulary_is_cut_by_the_text_encoder_first(emoji, monkeypatch):
    vocabulary, weapon = few(monkeypatch), Concept(name="weapon", words=("weapon", "gun"))
    monkeypatch.setattr(near, "SCANNED", 5)
    found = near.near_words(emoji, weapon, vocabulary, 100, 0)
    assert len(found) == 5 and set(found) >= DANGER


def test_a_style_and_a_count_of_nothing_have_no_near_words(emoji, monkeypatch):
    vocabulary = few(monkeypatch)
    assert near.near_words(emoji, Concept(name="twemoji", kind="style"), vocabulary, 5, 0) == []
    assert near.near_words(emoji, Concept(name="weapon"), vocabulary, 0, 0) == []


def test_no_near_words_is_the_data_of_before_there_were_any():
    assert "near_words" not in Generate().decisive() and Generate(near_words=4).decisive()["near_words"] == 4


@pytest.fixture
def tiny_words(tiny_root, tmp_path):
    raw = tiny.study_settings(tiny_root)
    raw["generate"] |= {"images": 8, "near_words": 3}
    return Workspace.create(tmp_path / "study", parse_config(raw, "tiny"))


def test_their_pictures_come_last_and_a_resumed_run_draws_the_same_words(tiny_words, monkeypatch):
    model = load_model(tiny_words.config.model, "cpu", "float32")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "sample_latents", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(model, tiny_words)
    kept = stage.read_json(tiny_words.path("generate", "words.json"))
    assert len(kept) == 3
    monkeypatch.setattr(stage, "near_words", stop)
    images = generate(model, tiny_words).images
    assert len(images) == 11 and [image.prompt for image in images[8:]] == kept
    assert {image.purpose for image in images[8:]} == {"word"} and "word" not in {image.purpose for image in images[:8]}


def test_a_flagged_word_is_erased_and_one_that_nobody_flags_is_neither_erased_nor_kept(tiny_words):
    import torch

    from hfi.inversion.invert import Inverted
    from hfi.reward.reward import RewardResult, Selected

    images = generate(load_model(tiny_words.config.model, "cpu", "float32"), tiny_words)
    bad, *good = (image for image in images.images if image.purpose == "word")
    scores = {image.id: 0.0 for image in images.images}
    reward = RewardResult(tiny_words.path("reward"), scores, (Selected(bad.id, 1.0, 1.0, 0),), (bad.id,), {}, (), ())
    tokens = Inverted(tiny_words.path("invert"), {"<a>": torch.zeros(1, 4)})
    _, prompts, _ = material([(images, reward, tokens, "harm")])
    assert {bad.prompt, f"a picture of a {bad.prompt}"} <= {one.prompt for one in prompts}
    assert not {one.prompt for one in prompts} & {image.prompt for image in good}
    kept = {image.id for image in benign_images(Generated.load(tiny_words), reward)}
    assert kept and not kept & {image.id for image in (bad, *good)}
