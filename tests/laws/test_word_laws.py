"""Laws of the words that CLIP reads in flagged pictures, and of what erasing does with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hfi.erasure.conditions import Flagged
from hfi.erasure.erase import prompts_of_words
from hfi.reward.words import NEAREST, vocabulary_words, words_of


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


def test_only_whole_words_of_letters_count():
    assert vocabulary_words(["gun</w>", "gu", "a</w>", "u2</w>", "<|endoftext|>", "axe</w>"]) == ["axe", "gun"]


def test_each_word_is_asked_for_alone_as_a_picture_and_in_a_style_that_was_flagged():
    rest = "in the style of noto"
    assert prompts_of_words(["gun"], []) == [Flagged("gun"), Flagged("a picture of a gun")]
    assert prompts_of_words(["gun"], [rest])[2] == Flagged(f"a gun {rest}", rest)
    assert prompts_of_words([], [rest]) == []
