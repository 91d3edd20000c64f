"""Laws of the words that CLIP reads in flagged pictures, and of what erasing does with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from hfi.diffusion.text import whole_words
from hfi.erasure.conditions import Flagged
from hfi.erasure.erase import material, prompts_of_words
from hfi.generation.generate import FeedbackImage
from hfi.reward.reward import RewardResult
from hfi.reward.topk import Selected
from hfi.reward.words import NEAREST, harmless_words_of, words_of


def scene(flagged_share: float = 1.0):
    """Three kinds of picture, NEAREST + 2 of each, and a word for each kind; the first kind is flagged."""
    draw = torch.Generator().manual_seed(0)
    kinds = torch.eye(3, 8)
    each = NEAREST + 2
    pictures = F.normalize(kinds.repeat_interleave(each, 0) + 0.1 * torch.randn(3 * each, 8, generator=draw), dim=1)
    flagged = torch.arange(3 * each) < each * flagged_share
    return kinds, pictures, flagged


def test_the_word_of_the_flagged_pictures_is_read_and_no_other():
    texts, pictures, flagged = scene()
    assert [number for number, _ in words_of(texts, pictures, flagged)] == [0]


def test_a_word_whose_pictures_are_not_all_flagged_is_left_out():
    texts, pictures, flagged = scene(flagged_share=0.5)
    assert words_of(texts, pictures, flagged) == []


def test_nothing_is_read_where_nothing_is_flagged_or_there_are_few_pictures():
    texts, pictures, flagged = scene()
    assert words_of(texts, pictures, torch.zeros_like(flagged)) == []
    assert words_of(texts, pictures[: NEAREST - 1], flagged[: NEAREST - 1]) == []


def test_the_better_word_comes_first():
    texts, pictures, flagged = scene()
    near = F.normalize(texts[0] + 0.9 * texts[1] * 0.3, dim=0)
    found = words_of(torch.stack([near, texts[0], texts[1], texts[2]]), pictures, flagged)
    assert found == sorted(found, key=lambda one: one[1]) and {number for number, _ in found} == {0, 1}


def test_harmless_words_are_those_of_pictures_that_nobody_flagged():
    texts, pictures, flagged = scene()
    assert harmless_words_of(texts, pictures, flagged) == [1, 2]
    assert harmless_words_of(texts, pictures, torch.ones_like(flagged)) == []
    some = flagged.clone()
    some[-1] = True  # one picture of the third kind, which may be among the nearest
    assert 1 in harmless_words_of(texts, pictures, some) and 0 not in harmless_words_of(texts, pictures, some)


def test_only_whole_words_of_letters_count():
    class Tokenizer:
        def get_vocab(self):
            return dict.fromkeys(["gun</w>", "gu", "a</w>", "u2</w>", "<|endoftext|>", "axe</w>"], 0)

    assert whole_words(Tokenizer()) == ["axe", "gun"] and whole_words(Tokenizer(), 1) == ["a", "axe", "gun"]


def test_each_word_is_asked_for_alone_as_a_picture_and_in_styles_that_were_flagged():
    rests = ["in the style of noto", "in the style of blob", "in the style of fxemoji"]
    assert prompts_of_words(["gun"], []) == [Flagged("gun"), Flagged("a picture of a gun")]
    assert prompts_of_words(["gun"], rests[:1])[2:] == [Flagged("a gun in the style of noto", "in the style of noto")]
    assert prompts_of_words([], rests) == []
    found = prompts_of_words(["gun", "axe"], rests, each=2)
    assert [one.without for one in found if one.without] == [rests[0], rests[1], rests[2], rests[0]]  # all in turn


def test_erasing_uses_the_words_that_were_read():
    """Words that nobody passes on would change nothing: what `material` gives to erasing must hold them."""
    image = FeedbackImage("one", "images/one.png", "a weapon, noto", 1, 0, "concept", without="noto")
    reward = RewardResult(Path("."), {}, (Selected("one", 1.0, 1.0, 0),), ("one",), {}, ("pistol",))
    images, tokens = SimpleNamespace(images=[image], latents=lambda: torch.zeros(1, 4, 2, 2)), SimpleNamespace(tokens={})
    texts = [one.prompt for one in material([(images, reward, tokens, "harm")])[1]]
    assert texts == ["a weapon, noto", "pistol", "a picture of a pistol", "a pistol noto"]
    assert [one.prompt for one in material([(images, reward, tokens, "style")])[1]] == ["a weapon, noto"]
