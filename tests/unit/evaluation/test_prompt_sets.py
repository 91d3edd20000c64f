"""What may and may not stand in the prompts that score."""

from __future__ import annotations

import pytest

from hfi.config import Concept
from hfi.diffusion.prompts import feedback_prompts, load_vocabulary, members, preserved_objects
from hfi.errors import HFIError
from hfi.evaluation import prompt_sets
from hfi.seeds import numpy_generator

WEAPON = Concept(name="weapon", unlisted=("axe", "dagger"))
CONCEPTS = (WEAPON, Concept(name="alcohol"), Concept(name="fire and explosions"), Concept(name="twemoji", kind="style"))
ids = [concept.name for concept in CONCEPTS]


@pytest.fixture(scope="module")
def emoji():
    return load_vocabulary("emoji")


def sets(concept, vocabulary, seed=0, taken=frozenset()):
    named = prompt_sets.explicit(concept, vocabulary, 75, seed, taken)
    others = prompt_sets.other(concept, vocabulary, 120, seed, taken)
    near = list(vocabulary.styles[:3]) if concept.kind == "style" else prompt_sets.outside(concept, vocabulary)[:30]
    return {
        "explicit": named,
        "implicit": prompt_sets.implicit(concept, vocabulary, 75, seed, taken),
        "variations": prompt_sets.variations(concept, vocabulary, 75, seed, taken),
        "other": others,
        "neighbours": prompt_sets.neighbours(concept, vocabulary, near, others, 120, seed, taken),
        "gallery": prompt_sets.gallery(concept, vocabulary, {probe.object for probe in others}, seed),
    }


@pytest.mark.parametrize("concept", CONCEPTS, ids=ids)
def test_sets_have_the_asked_size_and_no_prompt_twice(concept, emoji):
    for name, probes in sets(concept, emoji).items():
        if name != "gallery":
            assert len(probes) == (120 if name in ("other", "neighbours") else 75)
        assert len({(probe.text, probe.copy) for probe in probes}) == len(probes)


@pytest.mark.parametrize("concept", CONCEPTS, ids=ids)
def test_wordings_are_not_those_of_the_feedback_prompts(concept, emoji):
    feedback = {prompt.text.lower() for seed in range(5) for prompt in feedback_prompts(concept, emoji, 1500, 0.4, seed)}
    found = sets(concept, emoji)
    same = {probe.text for name, probes in found.items() for probe in probes if probe.text.lower() in feedback}
    assert not {text for text in same if "," not in text}  # a template in common would show here
    fresh = sets(concept, emoji, taken=feedback)  # the stage hands over the study's own prompts: then nothing is shared
    assert not {probe.text for name, probes in fresh.items() if name != "gallery" for probe in probes if probe.text.lower() in feedback}


@pytest.mark.parametrize("concept", CONCEPTS, ids=ids)
def test_implicit_prompts_name_no_object_and_no_concept(concept, emoji):
    names = set(emoji.objects)
    inside = set(members(concept, emoji)) if concept.kind == "harm" else set()
    for probe in prompt_sets.implicit(concept, emoji, 150, 1):
        pieces = [piece for piece in probe.text.split(", ") if piece not in emoji.styles]
        assert pieces and not names & set(pieces)
        own = {word for name in inside | {probe.object} for word in name.split()} - prompt_sets.SMALL_WORDS
        words = {word for piece in pieces for word in piece.replace("-", " ").split()}
        assert not own & words
        if concept.kind == "harm":
            assert not {"weapon", "weapons", "alcohol", "booze", "fire", "explosion", "flames"} & words - (
                {"explosion"} if concept is WEAPON else set()
            )
            assert set(pieces) <= {*emoji.objects[probe.object].tags, *emoji.objects[probe.object].hints}
        else:
            assert probe.text.endswith(concept.name)


def test_ambiguous_tags_are_left_out(emoji):
    assert "comic" not in prompt_sets.telling_tags(emoji.objects["bomb"], WEAPON, emoji)  # speech balloons have it too
    assert "tool" not in prompt_sets.telling_tags(emoji.objects["kitchen knife"], WEAPON, emoji)
    assert "gun" in prompt_sets.telling_tags(emoji.objects["pistol"], WEAPON, emoji)


def test_unlisted_members_are_asked_for_and_flagged(emoji):
    probes = prompt_sets.explicit(WEAPON, emoji, 75, 0)
    assert {probe.object for probe in probes if probe.listed is False} == {"axe", "dagger"}
    assert {probe.object for probe in probes if probe.listed} == set(members(WEAPON, emoji)) - {"axe", "dagger"}
    words = [probe for probe in probes if probe.listed is None]
    assert words and all("weapon" in probe.text for probe in words)


def test_every_explicit_prompt_of_a_style_names_it_and_its_floor_does_not(emoji):
    style = Concept(name="blob", kind="style")
    probes = prompt_sets.explicit(style, emoji, 120, 0)
    assert all("blob" in probe.text for probe in probes)
    floor = prompt_sets.floor(probes, 75, 0)
    assert len(floor) == 75 and not any(other in probe.text.split() for probe in floor for other in emoji.styles)


@pytest.mark.parametrize("concept", CONCEPTS, ids=ids)
def test_other_prompts_never_ask_for_the_concept(concept, emoji):
    inside = set(members(concept, emoji))
    for name in ("other", "neighbours", "gallery"):
        for probe in sets(concept, emoji)[name]:
            assert probe.object not in inside
            assert concept.kind == "harm" or probe.style != concept.name


def test_a_style_is_named_only_where_the_object_exists_in_it(emoji):
    for probe in [*prompt_sets.explicit(WEAPON, emoji, 150, 2), *prompt_sets.other(WEAPON, emoji, 150, 2)]:
        if probe.object and probe.style:
            assert probe.style in emoji.objects[probe.object].styles


def test_variations_have_all_kinds_and_change_the_words(emoji):
    probes = prompt_sets.variations(WEAPON, emoji, 75, 0)
    assert {probe.kind for probe in probes} == {"typo", "plural", "capitals", "order", "filler"}
    assert all(probe.text == probe.text.upper() for probe in probes if probe.kind == "capitals")
    for probe in probes:
        if probe.kind == "typo" and probe.object:
            assert f" {probe.object} " not in f" {probe.text.replace(',', ' ')} "


def test_filler_words_ask_for_nothing(emoji):
    """A filler that is some object's keyword would ask for two things ("one nice bomb" for a grinning face as well)."""
    fillers = {word for part in prompt_sets.VARIATIONS["filler"] for text in part for word in text.split() if "{" not in word}
    carried = {word for entry in emoji.objects.values() for text in (*entry.tags, *entry.hints) for word in text.lower().split()}
    assert not (fillers - {"in", "of", "style"}) & carried  # the frame's own words are in captions too


def test_small_changes_of_words():
    rng = numpy_generator(0, "test")
    assert prompt_sets.plural("kitchen knife") == "kitchen knives" and prompt_sets.plural("crossed swords") == "crossed sword"
    assert [prompt_sets.plural(name) for name in ("axe", "wine glass", "cherry", "fox")] == ["axes", "wine glasses", "cherries", "foxes"]
    for name in ("axe", "kitchen knife", "bow and arrow", "a", "abcd"):
        for _ in range(20):
            changed = prompt_sets.misspelt(name, rng)
            assert changed and abs(len(changed) - len(name)) <= 1
    assert prompt_sets.article("axe") == "an axe" and prompt_sets.article("scissors") == "scissors"
    assert prompt_sets.article("an alcoholic drink") == "an alcoholic drink" and prompt_sets.article("top hat") == "a top hat"


def test_sets_depend_on_nothing_but_concept_vocabulary_and_seed(emoji):
    assert sets(WEAPON, emoji, 5) == sets(WEAPON, emoji, 5)
    assert sets(WEAPON, emoji, 5)["explicit"] != sets(WEAPON, emoji, 6)["explicit"]


def test_tokens_stand_alone_in_a_third_and_all_are_used(emoji):
    probes = prompt_sets.tokens(["<a>", "<b>"], WEAPON, emoji, 60, 0)
    assert sum(probe.text in ("<a>", "<b>") for probe in probes) == 20
    assert sum("<a>" in probe.text for probe in probes) == 30
    assert prompt_sets.tokens([], WEAPON, emoji, 60, 0) == []


def test_neighbours_share_what_other_asks_for_and_cover_all_of_the_near(emoji):
    others = prompt_sets.other(WEAPON, emoji, 120, 0)
    near = prompt_sets.outside(WEAPON, emoji)[:25]
    probes = prompt_sets.neighbours(WEAPON, emoji, near, others, 120, 0)
    assert [probe for probe in others if probe.object in near] == [probe for probe in probes if probe in others]
    assert {probe.object for probe in probes} == set(near)


def test_a_gallery_shows_every_object_that_nothing_else_does(emoji):
    others = prompt_sets.other(WEAPON, emoji, 60, 0)
    shown = {probe.object for probe in [*others, *prompt_sets.gallery(WEAPON, emoji, {probe.object for probe in others}, 0)]}
    assert shown == set(prompt_sets.outside(WEAPON, emoji))


def test_a_vocabulary_without_styles_or_tags_still_has_prompts(tmp_path):
    import json

    file = tmp_path / "words.json"
    file.write_text(json.dumps({"objects": [{"name": "gun"}, {"name": "rose"}, {"name": "tree"}]}))
    vocabulary = load_vocabulary(str(file))
    concept = Concept(name="gun", members=("gun",), vocabulary=str(file))
    found = sets(concept, vocabulary)
    assert found["implicit"] == [] and len(found["explicit"]) == 75
    assert all(probe.style is None for probes in found.values() for probe in probes)


def test_feedback_prompts_that_use_up_every_wording_are_an_error(emoji):
    class Everything(set):
        def __contains__(self, item):
            return True

    with pytest.raises(HFIError, match="concept.prompts.*explicit.*feedback prompt"):
        prompt_sets.explicit(WEAPON, emoji, 4, 0, Everything())


def test_near_misses_are_named_by_benign_prompts_and_members_never(emoji):
    concept = Concept(name="weapon", members=("axe", "bomb", "pistol"), unlisted=("pistol",), vocabulary="emoji")
    prompts = feedback_prompts(concept, emoji, 2000, 0.5, 0, near=["hammer", "wrench"])
    named = {prompt.object for prompt in prompts if prompt.purpose == "benign"}
    assert {"hammer", "wrench"} <= named and not named & {"axe", "bomb", "pistol"}
    assert named - {"hammer", "wrench"} <= set(preserved_objects(concept, emoji))
    assert not any("pistol" in prompt.text for prompt in prompts if prompt.purpose == "concept")


def test_near_misses_of_a_weapon_are_tools_and_of_a_style_none(emoji):
    from hfi.diffusion.model import load_model
    from hfi.generation.generate import near_misses

    model, weapon = load_model("emoji"), Concept(name="weapon", unlisted=("pistol", "bow and arrow"))
    found = near_misses(model, weapon, emoji, 20)
    assert {"hammer", "wrench"} <= set(found) and len(set(found)) == 20 and not set(found) & set(members(weapon, emoji))
    assert near_misses(model, weapon, emoji, 4) == found[:4] and near_misses(model, weapon, emoji, 0) == []
    assert near_misses(model, Concept(name="twemoji", kind="style"), emoji, 10) == []
