"""`hfi compare` on the tiny pipeline: cells, their page, and that nothing is done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import tiny
from hfi.compare import compare as room
from hfi.compare.level import level_of, shown
from hfi.compare.page import pareto
from hfi.compare.tests import paired_tests
from hfi.config import Evaluate, parse_config
from hfi.errors import HFIError
from hfi.generation.generate import Generated, generate
from hfi.workspace import Workspace


@dataclass(frozen=True)
class Reward:
    """What erasing reads of a reward."""

    selected: list
    flagged: list[str]
    scores: dict[str, float]
    words: tuple[str, ...]
    kept_words: tuple[str, ...]


def reward_of(images: Generated) -> Reward:
    chosen = [SimpleNamespace(image_id=image.id) for image in images.images[:4]]
    return Reward(chosen, [one.image_id for one in chosen], {image.id: 0.1 for image in images.images}, (), ())


@pytest.fixture
def study(tiny_root, tiny_model, tmp_path, monkeypatch):
    """A study up to its soft tokens, with a made-up reward and token."""
    settings = tiny.study_settings(tiny_root)
    settings["erase"] |= {"steps": 2, "ca": {"steps": 2, "pictures": 2, "sampling_steps": 2, "batch_size": 2}}
    study = Workspace.create(tmp_path / "study", parse_config(settings, "tiny"))
    generate(tiny_model, study)
    rows = tiny_model.text_encoder.get_input_embeddings().weight[[40, 50]].detach().clone()
    monkeypatch.setattr(room.RewardResult, "load", lambda of: reward_of(Generated.load(of)))
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


def test_a_cell_stopped_between_its_delta_and_its_cost_goes_on(study, tiny_model, monkeypatch):
    real = room.write_json

    def stopping(path, data):
        if path.name == "cost.json":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(room, "write_json", stopping)
    with pytest.raises(KeyboardInterrupt):
        room.compare(tiny_model, study, ["uce"], ["words"], quick=4)
    assert study.path("compare", "uce-words", "delta.safetensors").exists()
    monkeypatch.setattr(room, "write_json", real)
    room.compare(tiny_model, study, ["uce"], ["words"], quick=4)
    assert json.loads(study.path("compare", "uce-words", "cell.json").read_text())["cost"]["bytes"] > 0


def test_every_concept_of_a_run_is_compared(study, tiny_model, tiny_root, tmp_path, monkeypatch):
    monkeypatch.setattr("hfi.erasure.erase.flagged_elsewhere", lambda *args: set())  # it asks a reward network; here is none
    others = []
    for name, concept in (("pets", {"name": "pets", "members": ["cat", "dog"]}), ("ink", {"name": "ink", "kind": "style", "members": []})):
        settings = tiny.study_settings(tiny_root)
        settings["concept"] |= {"unlisted": []} | concept
        others.append(Workspace.create(tmp_path / name, parse_config(settings, name)))
        generate(tiny_model, others[-1])
        for stage in ("label", "reward", "invert"):
            with others[-1].stage(stage) as run:
                run.path("made-up.txt").write_text("made up")
    erase = study.config.erase.model_copy(update={"also": tuple(other.root for other in others)})
    several = Workspace(study.root, study.config.model_copy(update={"erase": erase}))
    page = room.compare(tiny_model, several, ["uce"], ["words", "tokens"], quick=4)
    html, result = page.read_text(), json.loads(study.path("compare", "compare.json").read_text())
    for cell in result["cells"]:
        pets, ink = cell["also"]
        assert (pets["concept"], ink["concept"], ink["kind"], pets["floor"]) == ("pets", "ink", "style", None)
        assert pets["concept_rate"]["explicit"]["after"]["n"] == ink["concept_rate"]["explicit"]["before"]["n"] == 4
    assert {row["set"] for row in result["tests"]} >= {"explicit", "also-1-explicit", "also-2-explicit", "other"}
    assert "pets, named" in html and "ink, named" in html and "also-1" not in html and "draws ink in" in html
    outcomes = json.loads(study.path("compare", "uce-words", "cell.json").read_text())["outcomes"]
    found = result["cells"][0]["also"][0]["concept_rate"]["explicit"]["after"]["value"]
    assert sum(hit for _, hit in outcomes["also-1-explicit"]) / 4 == found
    before = study.path("compare", "uce-words", "cell.json").stat().st_mtime_ns
    room.compare(tiny_model, several, ["uce"], ["words", "tokens"], quick=4)
    assert study.path("compare", "uce-words", "cell.json").stat().st_mtime_ns == before


def test_of_several_concepts_the_worst_counts_in_the_plot():
    from hfi.compare.page import _erasure

    rates = lambda value: {name: {"after": {"value": value}} for name in ("explicit", "implicit")}  # noqa: E731
    cell = {"rates": rates(0.1), "also": [{"concept_rate": rates(0.4)}, {"concept_rate": rates(0.2)}]}
    assert _erasure(cell) == 0.4 and _erasure({**cell, "also": []}) == 0.1


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


def test_a_row_says_when_flagged_prompts_were_told_as_well():
    from hfi.compare.page import name_of

    row = {"method": "uce", "given_as": "tokens", "settings": {"flagged_prompts": 0.5}}
    assert name_of(row) == "uce, tokens, prompts"
    assert name_of({**row, "settings": {"flagged_prompts": 0.0}}) == name_of({**row, "settings": {}}) == "uce, tokens"


def test_erasures_are_compared_where_each_keeps_as_much(study, tiny_model, monkeypatch):
    page = room.compare(tiny_model, study, ["uce"], ["words", "tokens"], quick=4, strengths=[0.5, 1, 2])
    result = json.loads(study.path("compare", "compare.json").read_text())
    assert [row["told_by"] for row in result["at_level"]] == ["words", "tokens"] and result["level_tests"][0]["method"] == "uce"
    for row in result["at_level"]:
        assert 0 <= row["rate"]["low"] <= row["rate"]["value"] <= row["rate"]["high"] <= 1 and 0 < row["strength"] <= 2
    assert "Where each keeps 0.95 of the rest" in page.read_text()
    kept = json.loads(study.path("compare", "uce-words", "strengths.json").read_text())["at"]
    assert set(kept) == {"0.5", "2"} and not study.path("compare", "uce-words", "partial.json").exists()

    monkeypatch.setattr(room, "_do_cell", None)  # nothing is erased or drawn again, but for what is new
    calls, real = [], room.draw_and_judge
    monkeypatch.setattr(room, "draw_and_judge", lambda *arguments: calls.append(arguments[6]) or real(*arguments))
    room.compare(tiny_model, study, ["uce"], ["words", "tokens"], quick=4, strengths=[0.5, 1, 1.5, 2])
    assert {name for name in calls if name.startswith("strength")} == {"strength-1.5"}
    room.compare(tiny_model, study, ["uce"], ["words", "tokens"], quick=4)
    assert not json.loads(study.path("compare", "compare.json").read_text())["at_level"]


def test_several_studies_are_taken_together(study, tiny_model, tmp_path):
    """Twice one comparison is a mean equal to it; what a study alone has is not compared; what does not compare is refused before work."""
    from hfi.compare.together import read_comparison

    room.compare(tiny_model, study, ["uce"], ["words", "tokens"], quick=4, strengths=[0.5, 1])
    other = Workspace(tmp_path / "other", study.config)
    shutil.copytree(study.root, other.root)
    file = other.path("compare", "compare.json")
    there = {**json.loads(file.read_text()), "concept": "blunt"}
    file.write_text(json.dumps(there))
    methods, told = ["uce", "negative_prompt"], ["words", "tokens"]
    page = room.compare(tiny_model, study, methods, told, quick=4, strengths=[0.5, 1], others_too=[other])
    result = json.loads(study.path("compare", "compare.json").read_text())
    found, cells = result["together"], {cell["given_as"]: cell for cell in result["cells"] if cell["method"] == "uce"}
    assert found["concepts"] == ["sharp", "blunt"]
    assert [(row["method"], row["given_as"], row["one_setting"]) for row in found["rows"]] == [("uce", one, True) for one in told]
    for row in found["rows"]:
        marks = read_comparison(other)["cells"][row["given_as"] == "tokens"]["outcomes"]
        hits = [hit for name in ("explicit", "implicit", "variations") for _, hit in marks[name]]
        assert row["rate"]["value"] == pytest.approx(sum(hits) / len(hits), abs=1e-4) and row["at_level"]["n"] == 2 * len(hits)
        assert row["rate"]["low"] < row["rate"]["high"]
        kept = [one["value"] for name in ("other", "styles") if (one := cells[row["given_as"]]["retention"][name])["value"] is not None]
        assert row["retention"] == ({"mean": min(kept), "lowest": min(kept), "concepts": 2} if kept else None)
    assert {row["set"] for row in found["tests"]} >= {"level", "explicit", "other"} and "Over 2 concepts" in page.read_text()
    assert all(row["p"] <= row["p (Holm)"] and row["low"] <= row["value"] <= row["high"] for row in found["tests"])

    room.compare(tiny_model, study, methods, told, quick=4, strengths=[1], others_too=[other])  # at other strengths: no level
    result = json.loads(study.path("compare", "compare.json").read_text())["together"]
    assert all(row["at_level"] is None for row in result["rows"]) and "level" not in {row["set"] for row in result["tests"]}

    for change, words in (
        ({"judge": "another"}, "different judges"),
        ({"quick": 9}, "different numbers of pictures"),
        ({"cells": []}, "share no method"),
        ({"concept": "sharp"}, "comes twice"),
        ({"inputs": {}}, "before it changed"),
        ({"at_level": None, "inputs": None}, "before it changed"),
    ):
        file.write_text(json.dumps({**there, **change}))
        stamp = study.path("compare", "compare.json").stat().st_mtime_ns
        with pytest.raises(HFIError, match=words):
            room.compare(tiny_model, study, ["uce"], ["words"], quick=4, others_too=[other])
        assert study.path("compare", "compare.json").stat().st_mtime_ns == stamp
    for lost in ("cell.json", "level.json"):
        file.write_text(json.dumps(there))
        other.path("compare", "uce-words", lost).unlink()
        with pytest.raises(HFIError, match="not done, or not whole"):
            read_comparison(other)


def test_the_p_value_over_concepts_is_held_against_all_methods():
    """Ten concepts whose tokens draw half as much as words under one method, and as much under another."""
    from hfi.compare.together import together

    def cell(method: str, told: str, hits: list[int]) -> dict:
        marks = {"explicit": [[f"p{i}", hit] for i, hit in enumerate(hits)]}
        return {"method": method, "given_as": told, "settings": {}, "retention": {}, "outcomes": marks}

    half, some = [1, 0] * 6, [1, 1, 0, 0] * 3
    told = [("sdd", "words", [1] * 12), ("sdd", "tokens", half), ("uce", "words", half), ("uce", "tokens", some)]
    studies = [{"concept": str(i), "judge": "j", "quick": 0, "cells": [cell(*one) for one in told]} for i in range(10)]
    found = together(studies, 0, 500)
    sdd, uce = (row for row in found["tests"] if row["set"] == "explicit")
    assert (sdd["value"], uce["value"]) == (-0.5, 0.0) and sdd["p (Holm)"] < 0.05 < uce["p"]
    assert sdd["p (Holm)"] == pytest.approx(2 * sdd["p"], abs=1e-3)
    words = found["rows"][0]
    assert words["rate"]["value"] == 1 and words["rate"]["low"] < 0.8  # ten of ten concepts alike is no certainty of others


def test_the_place_of_equal_retention_by_hand():
    """Objects fall from 10 to 9 of ten at strength 1 and 8 at 2: 0.95 lies halfway to 1. Styles, of which all stay, do not matter."""
    ask = lambda hits: [[f"p{i}", hit] for i, hit in enumerate(hits)]  # noqa: E731
    look = lambda named, right: {"explicit": ask(named), "other": ask([1] * right + [0] * (10 - right)), "styles": ask([1] * 5)}  # noqa: E731
    before, at = look([1, 1, 1, 1], 10), {"1": look([1, 1, 0, 0], 9), "2": look([0, 0, 0, 0], 8)}
    found = level_of(before, at)
    assert found["strength"] == 0.5 and found["retention"] == 0.95 and found["reached"]
    assert found["values"] == pytest.approx([1.0, 1.0, 0.5, 0.5]) and found["prompts"] == ["p0", "p1", "p2", "p3"]
    gentle = level_of(before, {"1": look([1, 0, 0, 0], 10)})
    assert gentle["strength"] == 1 and not gentle["reached"] and sum(gentle["values"]) == 1
    half = shown({**gentle, "values": [0.5] * 4}, 0, Evaluate())["rate"]  # interpolated alike everywhere
    assert half["value"] == 0.5 and half["low"] < 0.5 < half["high"]
