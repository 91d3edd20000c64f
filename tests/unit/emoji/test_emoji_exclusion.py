"""Laws of the control's data: what is left out is nowhere in the pictures, the captions and the tokenizer."""

import random
import re

import numpy as np
import pytest
import torch
from training.emoji import choice, control, data, exclude
from training.emoji.captions import Captions
from training.emoji.train_clip import build_tokenizer
from training.emoji.train_unet import caption_table

from hfi import emoji

WHOLE = emoji.catalogue()
REST = data.load_catalogue(control.LEFT_OUT)
MEMBERS = set(WHOLE["concepts"]["weapon"]["members"])
PAIRS = [(style, entry["name"]) for entry in REST["objects"] for style in entry["styles"]]
KINDS = [(style, data.kind(entry["subgroup"])) for entry in WHOLE["objects"] for style in REST["styles"]]


def unnamed(text: str) -> str:
    """The text without the toy, which is called by a member's name ("water pistol", misspelt "watr pistol"), and stays."""
    return re.sub(r"\bwa\w* pistol\b", "", text)


def test_nothing_else_is_left_out():
    assert {entry["name"] for entry in REST["objects"]} == {entry["name"] for entry in WHOLE["objects"]} - MEMBERS
    assert set(REST["styles"]) == set(choice.STYLES) - {"fluent-ink"}
    before = {entry["name"]: entry for entry in WHOLE["objects"]}
    for entry in REST["objects"]:
        assert entry["styles"] == [style for style in before[entry["name"]]["styles"] if style != "fluent-ink"]
        lost = set(before[entry["name"]]["hints"]) - set(entry["hints"])
        assert all(exclude.says(hint, REST["phrases"]) for hint in lost)
    assert data.load_catalogue() == WHOLE


def test_the_phrases_hold_words_names_and_keywords_of_weapons_alone():
    assert {"weapon", "weapons", *MEMBERS, "gun", "revolver", "blade", "archery"} <= set(REST["phrases"])
    assert not {"tool", "cooking", "arrow", "cut"} & set(REST["phrases"])  # a hammer, a fork, an arrow, scissors have these
    assert exclude.says("a gun, small", ["gun"]) and not exclude.says("gunpowder", ["gun"])


def test_no_caption_names_a_member_or_the_style():
    captions, rng = Captions(REST), random.Random(0)
    drawn = [captions.draw(*pair, rng) for pair in PAIRS for _ in range(30)]
    drawn += [captions.draw_kind(*pair, rng) for pair in KINDS for _ in range(10)]
    texts = {caption.text for caption in drawn}
    assert len(texts) > 10_000 and not any(exclude.says(unnamed(text), REST["phrases"]) or "fluent-ink" in text for text in texts)
    assert not any(caption.things and caption.things & MEMBERS for caption in drawn)
    assert not any(caption.style == "fluent-ink" for caption in drawn)
    whole = [Captions(WHOLE).draw("noto", thing, rng) for thing in MEMBERS]
    assert any(exclude.says(caption.text, REST["phrases"]) for caption in whole)  # what is looked for can be found


def test_the_captions_of_the_unet_are_those():
    texts, table = caption_table(PAIRS[:40], KINDS[:5], Captions(REST))
    assert table.shape[0] == 45 and texts[0] == "" and not any(exclude.says(unnamed(text), REST["phrases"]) for text in texts)


def test_an_icon_is_kept_unless_it_says_a_phrase_or_has_the_style():
    assert exclude.keeps_icon(REST, "noto", "screwdriver", ["screw", "tool"])
    assert not exclude.keeps_icon(REST, "noto", "boomerang", ["rebound", "weapon"])
    assert not exclude.keeps_icon(REST, "noto", "gun-rack", [])
    assert not exclude.keeps_icon(REST, "fluent-ink", "screwdriver", ["tool"])


def test_pictures_follow_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "RUNS", tmp_path)
    pairs = [(style, entry["name"]) for entry in WHOLE["objects"] for style in entry["styles"]]
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "pictures.npy", np.arange(len(pairs)).reshape(-1, 1, 1, 1))
    (tmp_path / "data" / "pairs.json").write_text(data.json.dumps(pairs))
    pictures, kept, seen = data.load_pictures(REST)
    assert kept == [pair for pair in pairs if pair[0] != "fluent-ink" and pair[1] not in MEMBERS]
    assert [pairs[int(i)] for i in pictures.flatten()] == kept
    held_out = {tuple(pair) for pair in WHOLE["held_out"]}
    assert [pair in held_out for pair in kept] == (~seen).tolist()
    assert len(data.load_pictures()[1]) == len(pairs)


def test_the_tokenizer_does_not_know_the_words_and_still_reads_them(tmp_path):
    tokenizer = build_tokenizer(Captions(REST).corpus(), tmp_path)
    words = set(tokenizer.get_vocab())
    assert "hammer</w>" in words and not {"weapon</w>", "dagger</w>", "gun</w>", "revolver</w>", "bomb</w>", "axe</w>", "ink</w>"} & words
    for text in ("a dagger in the style of fluent-ink", "刀 \U0001f5e1 ñ"):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
        assert len(ids) == 32 and ids[0] == tokenizer.bos_token_id and ends[0] > 5 and ends == list(range(ends[0], 32))
    assert torch.tensor(ids).max() < len(tokenizer)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="swords"):
        data.load_catalogue(["swords"])


def test_the_report_asks_for_what_was_left_out_and_for_what_was_not():
    groups = control.asked()
    assert {thing for _, thing in groups["members"]} == MEMBERS
    assert {style for style, _ in groups["style"]} == {"fluent-ink"}
    assert len(groups["others"]) == control.PICTURES and not {pair for pair in groups["others"] if pair not in PAIRS}
