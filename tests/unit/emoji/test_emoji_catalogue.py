"""Laws of the catalogue and of the data recipe."""

import random

from training.emoji import choice
from training.emoji.captions import SHARES, Captions, misspell
from training.emoji.data import hints, hold_out

from hfi import emoji

CATALOGUE = emoji.catalogue()
NAMES = {entry["name"] for entry in CATALOGUE["objects"]}
PAIRS = [(style, entry["name"]) for entry in CATALOGUE["objects"] for style in entry["styles"]]


def test_every_pair_has_a_known_style_and_every_object_three():
    assert {style for style, _ in PAIRS} == set(CATALOGUE["styles"]) == set(choice.STYLES)
    assert all(len(entry["styles"]) >= 3 for entry in CATALOGUE["objects"])


def test_held_out_pairs_exist_and_no_object_loses_more_than_two():
    held = [tuple(pair) for pair in CATALOGUE["held_out"]]
    assert len(held) == len(set(held)) == round(choice.HELD_OUT_SHARE * len(PAIRS))
    assert set(held) <= set(PAIRS)
    for name in NAMES:
        assert sum(thing == name for _, thing in held) <= 2
        assert sum(thing == name for _, thing in PAIRS) - sum(thing == name for _, thing in held) >= 3


def test_holding_out_is_a_function_of_the_seed():
    assert hold_out(PAIRS, 0.1, 1) == hold_out(PAIRS[::-1], 0.1, 1) != hold_out(PAIRS, 0.1, 2)


def test_concepts_name_known_objects_and_leave_two_members_to_hide():
    for concept in CATALOGUE["concepts"].values():
        assert set(concept["members"]) | set(concept["neighbours"]) <= NAMES
        assert len(concept["members"]) >= 7
    for name, concept in choice.CONCEPTS.items():
        assert not set(concept["members"]) & set(concept["neighbours"]), name


def test_every_group_of_emojibase_is_there():
    groups = {entry["group"] for entry in CATALOGUE["objects"]}
    assert groups == {"smileys-emotion", "people-body", "animals-nature", "food-drink", "travel-places", "activities", "objects", "symbols"}


def test_hints_do_not_give_the_name_away():
    assert hints("crossed-swords", ["sword", "weapon", "crossed", "duel"]) == ["weapon", "duel"]
    for entry in CATALOGUE["objects"]:
        assert len(entry["hints"]) >= 3, entry["name"]
        for word in entry["name"].split():
            assert word not in [w for hint in entry["hints"] for w in hint.split()] or len(word) < 4, entry["name"]


def test_captions_say_what_is_shown():
    captions, rng = Captions(CATALOGUE), random.Random(0)
    for style, thing in PAIRS:
        for _ in range(4):
            caption = captions.draw(style, thing, rng)
            assert caption.text == caption.text.lower() and "{" not in caption.text
            assert caption.things is None or thing in caption.things
            assert caption.style in (None, style)
            named = [other for other in choice.STYLES if f"style of {other}" in caption.text and caption.text.endswith(other)]
            assert named in ([], [style]) and (not named or caption.style == style)


def test_no_caption_is_empty_unless_asked_for():
    captions, rng = Captions(CATALOGUE), random.Random(1)
    drawn = [captions.draw("noto", "rocket", rng, empty=False).text for _ in range(500)]
    assert "" not in drawn
    share = sum(captions.draw("noto", "rocket", rng).text == "" for _ in range(3000)) / 3000
    total = sum(value for kind, value in SHARES.items() if not kind.startswith("concept"))
    assert abs(share - SHARES["empty"] / total) < 0.03


def test_a_misspelling_changes_one_word_by_one_letter():
    rng = random.Random(2)
    for name in NAMES:
        wrong = misspell(name, rng)
        assert len(wrong.split()) == len(name.split()) and abs(len(wrong) - len(name)) <= 1
        assert sum(a != b for a, b in zip(wrong.split(), name.split(), strict=True)) <= 1
