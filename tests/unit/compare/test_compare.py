"""`hfi compare` on the tiny pipeline: cells, their page, and that nothing is done twice."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import tiny
from hfi.compare import compare as room
from hfi.compare.page import pareto
from hfi.compare.tests import paired_tests
from hfi.config import parse_config
from hfi.generation.generate import generate
from hfi.workspace import Workspace


@pytest.fixture
def study(tiny_root, tiny_model, tmp_path, monkeypatch):
    """A study up to its soft tokens, with a made-up reward and token."""
    settings = tiny.study_settings(tiny_root)
    settings["erase"] |= {"steps": 2, "ca": {"steps": 2, "pictures": 2, "sampling_steps": 2, "batch_size": 2}}
    study = Workspace.create(tmp_path / "study", parse_config(settings, "tiny"))
    images = generate(tiny_model, study)
    chosen = [SimpleNamespace(image_id=image.id) for image in images.images[:4]]
    reward = SimpleNamespace(
        selected=chosen,
        flagged=[one.image_id for one in chosen],
        scores={image.id: 0.1 for image in images.images},
        words=(),
        kept_words=(),
    )
    rows = tiny_model.text_encoder.get_input_embeddings().weight[[40, 50]].detach().clone()
    monkeypatch.setattr(room.RewardResult, "load", lambda study: reward)
    monkeypatch.setattr(room.Inverted, "load", lambda study: SimpleNamespace(tokens={"<sharp>": rows}))
    return study


def contents(study: Workspace) -> dict:
    files = [path for path in sorted(study.path("compare").rglob("*")) if path.suffix in {".png", ".safetensors"}]
    cells = {str(path.parent.name): json.loads(path.read_text()) for path in study.path("compare").glob("*/cell.json")}
    return {"files": {str(path): path.read_bytes() for path in files}, "cells": {k: {**v, "cost": 0} for k, v in cells.items()}}


def test_cells_make_a_page_and_are_done_once(study, tiny_model, monkeypatch):
    methods, given = ["ca", "negative_prompt"], ["words", "tokens"]
    real, calls = room.draw_and_judge, []

    def stopping(*arguments):
        calls.append(arguments[6])
        if len(calls) == 5:  # in the third cell, when it is erased but not yet drawn
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(room, "draw_and_judge", stopping)
    with pytest.raises(KeyboardInterrupt):
        room.compare(tiny_model, study, methods, given, quick=4)
    first = (study.path("compare", "ca-words", "cell.json")).stat().st_mtime_ns
    page = room.compare(tiny_model, study, methods, given, quick=4)
    assert study.path("compare", "ca-words", "cell.json").stat().st_mtime_ns == first
    found = contents(study)
    assert set(found["cells"]) == {f"{method}-{told}" for method in methods for told in given}
    html, result = page.read_text(), json.loads(study.path("compare", "compare.json").read_text())
    assert "Simulated" in html and "src=\"http" not in html and html.count("<svg") == 1 and 'class="soft"' in html
    assert all(f"{method}, {told}" in html for method in methods for told in given)
    assert {(row["method"], row["set"]) for row in result["tests"]} >= {("ca", "explicit"), ("negative_prompt", "other")}
    assert all(cell["cost"]["bytes"] > 0 and cell["rates"]["explicit"]["after"]["n"] == 4 for cell in result["cells"])

    monkeypatch.setattr(room, "erase_into", None)  # nothing is erased again
    calls.clear()
    monkeypatch.setattr(room, "draw_and_judge", lambda *arguments: (calls.append(arguments[6]), real(*arguments))[1])
    room.compare(tiny_model, study, methods, given, quick=4)
    assert set(calls) == {"before"} and contents(study) == found
    before, after = found["cells"]["ca-words"]["outcomes"], found["cells"]["negative_prompt-tokens"]["outcomes"]
    assert [prompt for prompt, _ in before["explicit"]] == [prompt for prompt, _ in after["explicit"]]


def test_a_cell_with_other_settings_is_done_again_and_no_other():
    from hfi.config import Erase

    def decisive(**changes) -> list[dict]:
        return [room.cell_settings(Erase(**changes), method, "words").decisive() for method in ("ca", "esd")]

    one, other = decisive(), decisive(esd={"steps": 9})
    assert one[0] == other[0] and one[1] != other[1]
    assert room.cell_settings(Erase(flagged_prompts=0.5), "sdd", "words").flagged_prompts == 0.0
    assert room.cell_settings(Erase(flagged_prompts=0.5), "sdd", "tokens").flagged_prompts == 0.5


def test_the_paired_difference_is_tokens_minus_words():
    outcomes = lambda hits: {"explicit": [[f"p{i}", hit] for i, hit in enumerate(hits)], "unlisted": []}  # noqa: E731
    cells = [
        {"method": "uce", "given_as": "words", "outcomes": outcomes([1, 1, 1, 0])},
        {"method": "uce", "given_as": "tokens", "outcomes": outcomes([0, 0, 1, 0])},
        {"method": "sld", "given_as": "words", "outcomes": outcomes([1, 1, 1, 1])},
    ]
    (row,) = paired_tests(cells, 0, 200)
    assert (row["method"], row["set"], row["value"], row["n"]) == ("uce", "explicit", -0.5, 4) and row["low"] <= -0.5 <= row["high"]


def test_the_front_of_the_plot_is_filled():
    drawn = str(pareto([("a", 0.1, 0.2), ("b", 0.2, 0.3), ("c", 0.3, 0.0), ("d", None, 0.1)]))
    filled = [part.split("</text>")[0].rsplit(">", 1)[1] for part in drawn.split("<circle")[1:] if 'fill="#0b6b63"' in part]
    assert filled == ["a", "c"] and "d:" not in drawn
