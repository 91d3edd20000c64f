"""What is supported, how fast this machine is, and what a dry run makes of it."""

from __future__ import annotations

import json

import pytest

from hfi.cli.estimate import estimate, memory_mib, seconds_of
from hfi.config import StudyConfig, parse_config
from hfi.diffusion.families import FAMILIES, STAGES


def test_models_says_what_each_family_can_do(quick):
    found = json.loads(quick("models", "--json").out)["families"]
    assert {row["key"] for row in found} == {"sd", "sdxl", "sd3", "flux"}
    assert all(set(row["stages"]) == set(STAGES) and row["tested_with"]["diffusers"] for row in found)
    assert {row["key"] for row in found if "closed_form" in row["refuses"]} == {"sd3", "flux"}
    shown = quick("models").out
    assert all(family.title.split(",")[0] in shown for family in FAMILIES.values()) and "refuses closed_form" in shown


def test_a_family_refuses_what_it_cannot_do_by_name(quick, recipe, tiny_root, tmp_path):
    import tiny_families

    folder = tiny_families.save("flux", tmp_path / "flux")
    done = quick("init", "s", "--from", recipe, "--model", folder, "--set", "erase.start=closed_form")
    assert done.code == 2 and "FLUX.1 cannot" in done.error and "erase.start" in done.error and "one pass" in done.error
    assert quick("init", "s", "--from", recipe, "--model", folder).code == 0


@pytest.mark.parametrize(("batch", "expected"), [(1, 1.0), (2, 2.0), (5, 3.5), (8, 5.0), (10, 6.0), (0.5, 1.0)])
def test_a_batch_between_two_measured_ones_lies_on_their_line(batch, expected):
    assert seconds_of({1: 1.0, 2: 2.0, 8: 5.0}, batch) == pytest.approx(expected)


def test_an_estimate_counts_passes():
    """Passes that cost 1 s a sample, decoding free: the seconds are the samples, counted by hand."""
    one = {1: 1.0, 8: 8.0}
    times = {"forward": one, "erase": {1: 3.0, 8: 24.0}, "invert": {1: 2.0, 8: 16.0}, "text": {1: 0.5, 8: 4.0}, "decode": {1: 0.0, 8: 0.0}}
    config = parse_config({
        "generate": {"images": 10, "steps": 5, "batch_size": 4, "guidance_scale": 2.0},
        "invert": {"steps": 7, "batch_size": 2},
        "erase": {"steps": 100, "batch_size": 2, "latents": "forward", "snapshots": 0},
        "evaluate": {"reinversions": 0, "prompts_per_set": 1, "token_pictures": 1, "retention_prompts": 1, "steps": 1, "batch_size": 1,
                     "guidance_scale": 1.0},
    }, "x")  # fmt: skip
    found = estimate(config, times)
    assert found["generate"] == pytest.approx(10 * 5 * 2)
    assert found["invert"] == pytest.approx(7 * (2 * 2 + 4 * 0.5) + 6 * 5 * 2)  # with four texts a step, and six pictures of the token
    assert found["erase"] == pytest.approx(100 * (2 * 3 + 2) + 100 / 25 * 2 * 16)
    assert found["evaluate"] == pytest.approx(2 * (3 + 1 + 2))
    replay = config.model_copy(update={"erase": config.erase.model_copy(update={"latents": "replay"})})
    assert estimate(replay, times)["erase"] - found["erase"] == pytest.approx(100 * 2 * 2)  # a guided pass for each state drawn
    steered = config.model_copy(update={"erase": config.erase.model_copy(update={"negative_guidance": 0.5})})
    assert estimate(steered, times)["erase"] - found["erase"] == pytest.approx(100 * 2 * 2)  # two passes for each state
    sharp = config.model_copy(update={"erase": config.erase.model_copy(update={"pag_scale": 0.5})})
    assert estimate(sharp, times)["erase"] - found["erase"] == pytest.approx(100 * 2)  # one for each


def test_memory_counts_what_learns_six_times():
    found, half = memory_mib(StudyConfig()), memory_mib(parse_config({"dtype": "bfloat16", "memory": {"weights": "bfloat16"}}, "x"))
    assert found["learning"] == pytest.approx(756_768 * 24 / 2**20)
    assert found["weights"] > half["weights"] and found["learning"] == half["learning"]
    assert memory_mib(StudyConfig(model="somebody/unknown")) is None
    told = [{"method": "hardened", "hardened": {"layers": layers}} for layers in ("all", "cross_attention")]
    hard = [memory_mib(parse_config({"erase": one}, "x")) for one in told]
    assert hard[1] == found and hard[0]["learning"] > 3 * found["learning"] and hard[0]["weights"] < found["weights"]


def test_near_words_are_drawn_searched_and_judged_in_the_estimate(quick, recipe):
    quick("init", "s", "--from", recipe, "--set", "generate.near_words=6")
    shown = quick("run", "s", "--dry-run")
    assert shown.code == 0 and "draw 30 pictures" in shown.out, shown.err or shown.out
    times = {"forward": {1: 0.1, 8: 0.5}, "erase": {8: 1.0}, "invert": {4: 0.2}, "text": {8: 0.01}, "decode": {8: 0.1}}
    harm = StudyConfig(generate={"near_words": 96})
    style = StudyConfig(generate={"near_words": 96}, concept={"name": "noto", "kind": "style", "vocabulary": "emoji"})
    plain = estimate(StudyConfig(), times)["generate"]
    assert estimate(harm, times)["generate"] > plain == estimate(style, times)["generate"]


def test_a_dry_run_tells_seconds_once_the_doctor_has_measured(quick, recipe, tiny_root, tmp_path, monkeypatch):
    monkeypatch.setenv("HFI_CACHE", str(tmp_path / "cache"))
    quick("init", "s", "--from", recipe)
    before = quick("run", "s", "--dry-run")
    assert before.code == 0 and "run 'hfi doctor s' first" in before.out and "parameters: unet" in before.out
    done = quick("doctor", "s", "--json")
    assert done.code == 0, done.err
    measured = json.loads(done.out)
    assert {"forward", "erase", "invert", "text", "decode"} <= set(measured["passes"]) and all(measured["passes"]["forward"].values())
    after = quick("run", "s", "--dry-run")
    assert after.code == 0 and "what 'hfi doctor' measured" in after.out
    kept = tmp_path / "cache" / "calibration.json"
    kept.write_text("{damaged")
    assert "first" in quick("run", "s", "--dry-run").out and quick("doctor", "s").code == 0 and json.loads(kept.read_text())
