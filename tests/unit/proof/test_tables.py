"""The tables: what they are made of, what they cost, and what they say of made-up cells. No figure here is a result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from proof import scoring, table1_words, table2_bars, table4_attacks, write
from proof.__main__ import parse, wanted
from proof.cells import cost, read, record
from proof.studies import DEVELOPMENT, HARMS, arm_changes, depends, rejudged, study_config

from hfi.erasure.delta import applied
from hfi.errors import HFIError
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.statistics import wilson
from hfi.workspace import Workspace, write_json

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    nowhere = tmp_path_factory.mktemp("no models")
    return parse(["--control", str(nowhere / "control"), "--look", str(nowhere / "look")])


@pytest.fixture(scope="module")
def tables(options):
    return write.tables(options)


def test_the_subset_fits_into_150_minutes_and_full_holds_it(tables):
    every = [cell for cells in tables.values() for cell in cells]
    subset = {str(cell.path()): cell for cell in every if cell.subset}
    assert cost(list(subset.values())) <= 150 * 60
    assert {cell.table for cell in subset.values()} == {1, 3, 4, 5, 6, 7}  # 2 reads table 1; of 3 the look waits for its model
    assert len(subset) < len({str(cell.path()) for cell in every})


def test_the_look_is_looked_for_where_training_drew_it():
    from proof import table3_look
    from training.emoji import look

    assert look.OBJECTS == table3_look.OBJECTS and look.DROPS == table3_look.DROPS


def test_the_models_that_come_with_the_proof_are_planned_with():
    """From any folder: the control under every attack, the look under its tokens and under words."""
    every = write.tables(parse(["--control", str(ROOT / "proof/models/control"), "--look", str(ROOT / "proof/models/look")]))
    assert {"look-original", "look-tokens", "look-blood", "pistols-tokens"} <= {cell.name for cell in every[3]}
    assert any(cell.arguments.get("control") for cell in every[4])
    subset = {str(cell.path()): cell for cells in every.values() for cell in cells if cell.subset}
    assert cost(list(subset.values())) <= 150 * 60


def test_names_and_keys_tell_cells_apart(tables):
    for number, cells in tables.items():
        assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells), number
        json.dumps([dict(cell.arguments) for cell in cells])  # plain data


def test_arms_differ_in_what_is_told_and_in_nothing_else():
    for topic in ("alcohol", "fxemoji"):
        for method in table1_words.METHODS:
            arms = {arm: arm_changes(topic, arm, method) for arm in ("word", "oracle", "tokens", "prompts")}
            told = {"erase.concept", "erase.words", "erase.flagged_prompts"}
            assert len({json.dumps({k: v for k, v in one.items() if k not in told}) for one in arms.values()}) == 1
            assert arms["tokens"]["erase.flagged_prompts"] == 0 < arms["prompts"]["erase.flagged_prompts"]
    assert arm_changes("alcohol", "word", "uce")["erase.words"] == ["alcohol"]
    assert "wine glass" in arm_changes("alcohol", "oracle", "uce")["erase.words"]
    esd = study_config("alcohol", arm_changes("alcohol", "tokens", "esd")).erase
    assert (esd.esd.steps, esd.esd.batch_size, esd.esd.learning_rate) == (esd.steps, esd.batch_size, esd.learning_rate)


def test_the_scoring_judge_plays_no_annotator_and_settings_are_the_recipes():
    for topic in (*HARMS, "fxemoji", "pizza"):
        config = study_config(topic)
        assert config.evaluate.judge == "emoji:scorer" != config.label.simulated_judge
        harm = topic != "fxemoji"
        recipe = study_config("weapon" if harm else "fluent-ink")
        assert config.erase == recipe.erase and config.generate == recipe.generate


def test_scoring_prompts_stand_in_files_and_are_those_of_every_committed_cell(options):
    """What a reader finds in proof/prompts is what was drawn: the same prompts for the original and every strength of every arm."""
    compared = 0
    for topic in table1_words.TOPICS:
        written = {name: [Probe(**row) for row in rows] for name, rows in json.loads(scoring.prompt_file(topic).read_text()).items()}
        part = lambda sets: scoring.asked({name: written[name] for name in sets if name in written})  # noqa: E731, B023
        assert {name: len(rows) for name, rows in written.items()}.items() <= scoring.COUNTS.items()
        mine = [cell for cell in table1_words.cells(options) if cell.name.startswith(f"{table1_words.slug(topic)}-")]
        for found in filter(None, map(read, mine)):
            looks = found["result"].get("strengths") or {"": found["result"]}
            sets = {"": (*table1_words.FULL_SETS, "floor"), "1": table1_words.FULL_SETS}
            for strength, look in looks.items():
                assert look["asked"] == part(sets.get(strength, table1_words.SETS)), (found["name"], strength)
                compared += 1
    assert compared > 400


def test_a_feedback_prompt_scores_nothing(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from hfi.generation.generate import Generated

    text = json.loads(scoring.prompt_file("alcohol").read_text())["explicit"][0]["text"]
    study = Workspace(tmp_path, study_config("alcohol"))
    monkeypatch.setattr(Generated, "load", lambda study: SimpleNamespace(images=[SimpleNamespace(prompt=text.upper())]))
    with pytest.raises(HFIError, match="is a feedback prompt of this study"):
        scoring.probes(study, ("explicit",))


def test_a_changed_setting_is_another_cell(options):
    from dataclasses import replace

    one = next(cell for cell in table1_words.cells(options) if cell.name == "alcohol-sdd-hfi")
    slower = depends("alcohol", {}, {**arm_changes("alcohol", "tokens", "sdd"), "erase.steps": 301})
    assert replace(one, depends=[slower, scoring.COUNTS]).key != one.key
    with_set = next(cell for cell in wanted(parse(["--table", "1", "--set", "erase.steps=3"])) if cell.name == one.name)
    assert with_set.key != one.key


def marks(n: int, hits: int) -> str:
    return "1" * hits + "0" * (n - hits)


def made_up(before: int, rates: dict[str, tuple[int, int]], asked: str = "same") -> tuple[dict, dict]:
    """An original and a cell whose sets have ten prompts: strength -> (hits of implicit, others right)."""
    original = {"asked": asked, "hits": {"implicit": marks(10, before), "unlisted": "", "other": marks(10, 10), "styles": marks(10, 10),
                                         "explicit": marks(10, 10), "variations": marks(10, 10), "floor": marks(10, 1)}}
    strengths = {s: {"asked": asked, "hits": {"implicit": marks(10, hit), "unlisted": "", "other": marks(10, kept), "styles": marks(10, 10),
                                              "explicit": marks(10, hit), "variations": marks(10, hit)}}
                 for s, (hit, kept) in rates.items()}
    return original, {"cost": {"seconds": 1.0}, "strengths": strengths}


def test_every_strength_of_the_grid_can_be_put_on(tiny_model):
    """The grid goes further than users may: past their limit `applied` still refuses, unless told how far."""
    name, weight = next(iter(tiny_model.network.named_parameters()))
    before, change = weight.detach().clone(), {name: torch.ones_like(weight)}
    for strength in table1_words.STRENGTHS:
        with applied(tiny_model, change, strength, most=scoring.FURTHEST):
            assert torch.allclose(dict(tiny_model.network.named_parameters())[name].detach(), before + strength)
    with pytest.raises(HFIError, match="strength: is 3"), applied(tiny_model, change, max(table1_words.STRENGTHS)):
        pass


def test_rates_are_read_where_retention_falls_under_the_level():
    # retention 1, 1, 0.9: 0.95 lies half way between strengths 0.5 and 1, and so do the chances of each prompt
    original, cell = made_up(10, {"0.5": (6, 10), "1": (2, 9)})
    place = table1_words.at_level(original, cell)
    assert place["strength"] == 0.75 and place["reached"]
    assert place["values"] == pytest.approx([1.0] * 2 + [0.5] * 4 + [0.0] * 4)
    original, cell = made_up(10, {"0.5": (6, 10), "1": (2, 10)})
    place = table1_words.at_level(original, cell)
    assert not place["reached"] and place["strength"] == 1.0 and sum(place["values"]) == 2
    (row,) = table1_words.figures({"alcohol-original": original, "alcohol-uce-word": cell})["parts"]["by concept"]
    assert row["one word"] == 0.2 and row["HFI"] is None and row["captions that say the word"] == "6 of 9 members"


def test_the_primary_test_leaves_out_development_concepts_and_needs_the_same_prompts():
    found = {}
    for topic in ("weapon", "alcohol", "fxemoji"):
        original, word = made_up(10, {"1": (9, 10)})
        found |= {f"{topic}-original": original, f"{topic}-uce-word": word, f"{topic}-uce-hfi": made_up(10, {"1": (1, 10)})[1]}
    figures = table1_words.figures(found)
    (test,) = figures["parts"]["primary test"]
    assert test["concepts"] == 2 and test["HFI minus one word"]["value"] == -0.8 and test["p (Holm)"] < 0.05
    assert "weapon" in DEVELOPMENT and "not tested: negative_prompt" in figures["where_not"] and figures["shows"] is None
    assert {row["told by"]: row["rate at retention 0.95"]["value"] for row in figures["parts"]["rates"]} == {"one word": 0.9, "HFI": 0.1}
    assert figures["parts"]["what reward weights add"] == []
    (row,) = table1_words.figures({**found, "alcohol-uce-equal": made_up(10, {"1": (3, 10)})[1]})["parts"]["what reward weights add"]
    assert row["concepts"] == 1 and row["HFI minus tokens, equal weights"]["value"] == -0.2
    found["alcohol-uce-hfi"] = made_up(10, {"1": (1, 10)}, asked="others")[1]
    with pytest.raises(AssertionError, match="same prompts"):
        table1_words.figures(found)


def test_bars_are_held_against_figures_and_misses_are_told():
    original, good = made_up(10, {"1": (0, 10)})
    _, bad = made_up(10, {"1": (5, 9)})
    met = table2_bars.figures({"alcohol-original": original, "alcohol-sdd-hfi": good})
    assert met["shows"] and met["parts"]["bars"][0]["reduction"] == 1.0 and met["where_not"] == ""
    missed = table2_bars.figures({"alcohol-original": original, "alcohol-sdd-hfi": bad, "fxemoji-original": original,
                                 "fxemoji-sdd-prompts": bad})
    assert missed["shows"] is False and "alcohol (HFI + SDD): reduced by 50%, not over 90%" in missed["where_not"]
    assert "above its floor 0.10 + 0.05" in missed["where_not"] and "retention 0.90, under 0.97" in missed["where_not"]


def looked(drops: int, kept: int) -> dict[str, str]:
    return {"annotator": marks(10, drops), "drops": marks(10, drops), "twelve": marks(10, kept), "other": marks(10, 10)}


def test_tellings_of_the_look_are_compared_where_they_still_keep_the_objects():
    from proof import table3_look

    hfi = {"strengths": {"1": looked(4, 10), "2": looked(1, 9), "3": looked(0, 2)}}
    word = {"strengths": {"1": looked(9, 10), "2": looked(9, 10), "3": looked(9, 10)}}
    found = table3_look.figures({"look-original": looked(9, 10), "look-tokens": hfi, "look-blood": word})
    assert found["shows"] is None and found["where_not"] == "the pistols are not measured yet"  # 0.1 at strength 2 against 0.9 at 3
    assert [row["strength"] for row in found["parts"]["the look"][1:]] == [1.0, 2.0, 3.0] * 2
    worse = table3_look.figures({"look-original": looked(9, 10), "look-tokens": word, "look-blood": hfi})
    told = 'HFI leaves drops in 0.90 at strength 3, the best words ("blood") in 0.10 at strength 2'
    assert worse["shows"] is False and told in worse["where_not"]


def attacked(**rates) -> dict:
    """Twenty pictures a side: of ten targets two each, whose first ones are hit."""
    shown = lambda value: [[k // 2, int(k < 20 * value), f"{value}-{k}"] for k in range(20)]  # noqa: E731
    return {"sides": {side: {"pictures": shown(value), "queries": {}, "seconds": 1.0} for side, value in rates.items()}, "too_weak": False}


def test_attacks_are_read_as_excess_over_the_control_or_say_that_there_is_none():
    found = {"weapon-hardened-noise-from-0.8-T-0": attacked(original=0.9, erased=0.3, control=0.1)}
    figures = table4_attacks.figures(found)
    (row,) = figures["parts"]["attacks"]
    assert row["excess"]["value"] == 0.2 and 0 <= row["excess"]["low"] < 0.2 < row["excess"]["high"]
    assert row["held out"] == "yes" and "mean excess on held-out attacks on weapon is 0.20" in figures["where_not"]
    found = {"weapon-hardened-noise-from-0.8-T-0": attacked(original=0.2, erased=0.3)}
    figures = table4_attacks.figures(found)
    (row,) = figures["parts"]["attacks"]
    assert row["excess"] == row["control"] == "no control" and row["too weak"] == "yes" and figures["shows"] is None


def test_intervals_of_attacks_are_over_what_pictures_share():
    seeds = [{"pictures": [[place, hit, f"{n}{place}{k}"] for place in range(3) for k in range(4)]} for n, hit in enumerate((1, 1, 0))]
    tokens = table4_attacks.grouped(seeds, "re-inversion, 4 vectors")
    found = table4_attacks.pooled(tokens, "tokens")
    assert found["n"] == 36 and found["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["low"] == 0.0 and found["high"] == 1.0  # three tokens, one of which brings nothing, tell little
    targets = table4_attacks.grouped(seeds, "p4d-n")
    assert len(targets) == 1 and table4_attacks.pooled(targets, "targets")["prompts"] == 3
    again = table4_attacks.grouped([seeds[0], seeds[0], seeds[0]], "plain")
    assert table4_attacks.pooled(again, "again")["n"] == 12  # a picture that every seed draws alike is one picture
    none = table4_attacks.pooled(table4_attacks.grouped(seeds[2:], "plain"), "none")
    assert none["value"] == none["low"] == 0 and none["high"] == pytest.approx(wilson(0, 3)[1], abs=1e-4)
    assert table4_attacks.pooled([], "nothing") is None


def test_a_setting_of_attacks_or_of_further_training_is_another_cell(options, monkeypatch):
    def keys() -> dict[str, str]:
        return {cell.name: cell.key for cell in table4_attacks.cells(options)}

    before = keys()
    monkeypatch.setitem(table4_attacks.BUDGET, "attack.p4d.learning_rate", 0.5)
    monkeypatch.setitem(table4_attacks.PERSIST, "persist.learning_rate", 0.5)
    changed = {name for name, key in keys().items() if key != before[name]}
    assert changed == {name for name in before if "-p4d-n-" in name or name.endswith(("-full", "-lora", "-then"))}


def test_a_re_inversion_too_weak_to_speak_meets_no_bar_and_models_of_two_studies_have_an_original_each():
    again = "weapon-{}-re-inversion-4-vectors-0"
    found = {again.format("hardened"): attacked(original=0.2, erased=0.0, control=0.0)}
    figures = table4_attacks.figures(found)
    assert figures["shows"] is None
    assert "re-inversion, 4 vectors brings too little of weapon from the original model to speak" in figures["where_not"]
    found = {again.format(eraser): attacked(original=original, erased=0.5, control=0.0) for eraser, original in (
        ("sdd", 0.2), ("hardened", 0.2), ("esd", 1.0))}
    (chart,) = table4_attacks.charts(table4_attacks.figures(found)["parts"]).values()
    drawn = [chart.index(words) for words in ("original: 0.20", "sdd: 0.50", "hardened: 0.50", "original: 1.00", "esd: 0.50")]
    assert drawn == sorted(drawn) and chart.count("control: 0.00") == 2


def test_the_control_stands_in_the_table_as_full_retraining_with_its_cost(tmp_path):
    control = ROOT / "proof/models/control"
    cost = table4_attacks.retraining(control)
    report = json.loads((ROOT / "proof/models/control-report.json").read_text())
    assert cost["seconds"] == sum(report["training_seconds"].values()) > 0
    assert cost["bytes"] > (control / "unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert table4_attacks.retraining(tmp_path / "control") == {"seconds": None, "bytes": 0}
    seen = {"hits": {"explicit": "0011", "other": "1111", "styles": "1111"}}
    figures = table4_attacks.figures({"weapon-original": seen, "weapon-control-kept": {**seen, "cost": cost}})
    (row,) = figures["parts"]["kept"]
    assert row["eraser"] == "full retraining" and row["seconds"] == cost["seconds"] and row["KiB"] == round(cost["bytes"] / 1024)
    assert figures["shows"] is None  # the control alone says nothing of the erasers


def test_attacks_on_models_that_were_not_erased_are_paid_once(tables):
    made = {cell.name: cell for cell in tables[4]}
    one, other = made["weapon-uce-plain-0"], made["weapon-sld-plain-0"]
    shared = set(one.parts) & set(other.parts)
    assert any("plain 0 of weapon on original" in name for name, _ in shared)
    assert cost([one, other]) == pytest.approx(cost([one]) + cost([other]) - sum(seconds for _, seconds in shared))


def test_the_page_without_cells_says_what_is_missing_and_how_to_make_it(options, tmp_path):
    write.write(options, tmp_path / "cells", tmp_path / "proof.md", tmp_path / "proof.json")
    page, figures = (tmp_path / "proof.md").read_text().split("## The same of")[0], json.loads((tmp_path / "proof.json").read_text())
    assert page.count("Not yet made: no cell is there") == len(write.TABLES) == len(figures["tables"]) and "| " not in page
    assert "`.venv/bin/python -m proof --table 1`" in page and "The look model is not there" in page and "'no control'" in page
    assert all(one["made"] == 0 and one["shows"] is None for one in figures["tables"].values())


def test_the_page_with_fake_cells_has_their_figures_under_the_tables_number(options, tmp_path):
    cells = {cell.name: cell for cell in table1_words.cells(options)}
    original, word = made_up(10, {"1": (9, 10)})
    for name, result in (("alcohol-original", original), ("alcohol-uce-word", word), ("alcohol-uce-hfi", made_up(10, {"1": (1, 10)})[1])):
        write_json(cells[name].path(tmp_path / "cells"), record(cells[name], result, 1.0))
    write.write(options, tmp_path / "cells", tmp_path / "proof.md", tmp_path / "proof.json")
    page, figures = (tmp_path / "proof.md").read_text(), json.loads((tmp_path / "proof.json").read_text())["tables"]["1"]
    assert f"3 of {len(cells)} cells are made" in page and "-0.80 (" in page and "simulated" in page.split("## Table 1")[1].splitlines()[0]
    assert figures["primary test"][0]["HFI minus one word"]["value"] == -0.8 and figures["made"] == 3
    gentle = "in uce the word's erasure never fell to 0.95 in 1 of 1 concepts, so the two do not stand at equal retention"
    assert f"Where it does not: {gentle}; not tested: negative_prompt" in page


def test_judgements_are_cut_or_blinded_as_told():
    from types import SimpleNamespace

    from hfi.feedback.judgements import Judgement
    from hfi.feedback.label import Judgements

    rows = tuple(Judgement((f"p{i}",), f"a{i % 2}", "simulated", "present") for i in range(8))
    images = SimpleNamespace(images=[SimpleNamespace(id=f"p{i}", object="wine glass" if i < 4 else "sake") for i in range(8)])
    given, config = Judgements(Path(), rows, ()), study_config("alcohol")
    cut = rejudged(given, images, config, {"labels": 3}).binary
    assert len(cut) == 3 and set(cut) <= set(rows) and cut == rejudged(given, images, config, {"labels": 3}).binary
    blind = rejudged(given, images, config, {"blind": 0.5, "objects": ["wine glass"]}).binary
    assert [row.value for row in blind] == ["absent", "present"] * 2 + ["present"] * 4
    assert rejudged(given, images, config, {}) is given


def test_a_dry_run_tells_the_cost_without_torch_and_makes_nothing(tmp_path):
    code = "import sys; from proof.__main__ import main; code = main(sys.argv[1:]); sys.exit(code or ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, "--dry-run", "--table", "1", "--cells", str(tmp_path / "cells")], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "table 1:" in done.stdout and "subset, from nothing:" in done.stdout and "FULL, from nothing:" in done.stdout
    assert not list(tmp_path.iterdir())


def test_named_cells_are_made_in_the_order_in_which_they_are_named(options):
    names = ["weapon-hardened-plain-0", "weapon-sdd-plain-0", "weapon-sdd-kept"]
    for asked in (names, names[::-1]):
        options.cell = asked
        try:
            assert [cell.name for cell in wanted(options)] == asked
        finally:
            options.cell = []


def test_an_unknown_table_or_cell_is_one_line(capsys):
    from proof.__main__ import main

    assert main(["--table", "12", "--dry-run"]) == 2 and "no table '12'" in capsys.readouterr().err
    assert main(["--cell", "nothing", "--table", "2", "--dry-run"]) == 2 and "no cell 'nothing'" in capsys.readouterr().err
    assert main(["--full", "--cell", "alcohol-sld-equl", "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "alcohol-sld-equal" in told and len(told) < 300  # the nearest names, not all five hundred
