"""A person's way through a study, one command at a time."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from driver import STAGES, judge_by_hand, same_outputs


@pytest.mark.parametrize("command", ["init", *STAGES])
def test_every_command_succeeds(loop, command):
    assert loop[command].code == 0, loop[command].err
    assert "Traceback" not in loop[command].err


def test_the_study_is_whole(loop):
    study = loop["study"]
    for stage in STAGES:
        manifest = json.loads((study / stage / "manifest.json").read_text())
        assert manifest["seconds"] > 0 and manifest["versions"]["torch"] and manifest["outputs"] is not None
        if stage in ("generate", "erase"):  # which sums of floats it took
            assert manifest["versions"]["cpu kernels"].startswith(torch.backends.cpu.get_cpu_capability())
    assert (study / "report.html").stat().st_size > 1000
    metrics = json.loads((study / "metrics.json").read_text())
    assert metrics["simulated"] is True and metrics["annotators_simulated"] is False  # a network scores, people judged
    assert {"concept_rate", "neither", "retention", "clip_score", "cmmd", "seconds"} <= set(metrics)


def test_status_shows_all_stages_done(loop, hfi):
    done = hfi("status", "mine", "--json", cwd=loop["folder"])
    found = json.loads(done.out)
    assert [row["state"] for row in found["stages"]] == ["done"] * 7
    assert found["judgements"]["judgements"] == 24
    assert "done" in hfi("status", "mine", cwd=loop["folder"]).out


@pytest.mark.parametrize(("limit", "pictures", "code"), [(0.01, 2, 6), (0.99, 2, 0)])
def test_the_gate_of_a_release(copy_of, fork, recipe, limit, pictures, code):
    """`hfi check` as a release pipeline calls it: the exit code is the verdict, and the JSON has its numbers."""
    model = yaml.safe_load(recipe.read_text())["model"]
    done = fork("check", model, "--study", copy_of("report"), "--max-rate", limit, "--pictures", pictures, "--json")
    found = json.loads(done.out)
    assert done.code == found["exit_code"] == code, done.err
    assert found["pictures"] <= pictures and found["low"] <= found["rate"] <= found["high"] and found["simulated"]


def test_run_on_a_finished_study_does_nothing_and_shows_the_numbers(loop, hfi):
    before = {path: path.stat().st_mtime_ns for path in loop["study"].rglob("manifest.json")}
    done = hfi("run", "mine", cwd=loop["folder"])
    assert done.code == 0 and "concept rate, explicit" in done.out and "done before" in done.out
    assert done.out.rstrip().endswith("report.html")
    assert before == {path: path.stat().st_mtime_ns for path in loop["study"].rglob("manifest.json")}


def test_run_does_what_is_missing_in_order(loop, copy_of, fork):
    """One `hfi run` after the judgements equals the commands one by one."""
    study = copy_of("label")
    done = fork("run", study)
    assert done.code == 0, done.err
    same_outputs(loop["study"], study)


def test_a_recipe_makes_a_study_and_waits_for_people(recipe, tmp_path, fork):
    """`hfi run RECIPE` draws, then says in one line that people are needed; with their judgements it goes on from there."""
    first = fork("run", recipe)
    assert first.code == 3
    assert "judge" in first.error
    study = tmp_path / "studies" / "tiny"
    assert (study / "generate" / "manifest.json").exists()
    judge_by_hand(study, tmp_path / "j.jsonl")
    assert fork("label", study, "--import", "j.jsonl").code == 0
    second = fork("run", recipe, "--set", "evaluate.reinversions=0")
    assert second.code == 0, second.err
    assert "report: studies/tiny/report.html" in second.out
    assert yaml.safe_load((study / "study.yaml").read_text())["evaluate"]["reinversions"] == 0
    assert (study / "invert" / "manifest.json").exists()


def test_a_stage_alone_names_the_missing_one(hfi, copy_of):
    study = copy_of("label")
    done = hfi("erase", study)
    assert done.code == 2 and "'erase' needs 'reward'" in done.error and f"hfi reward {study}" in done.error
    assert not (study / "erase").exists()


def test_changed_settings_make_later_stages_stale(copy_of, quick):
    study = copy_of()
    assert quick("invert", study, "--set", "invert.steps=5").code == 0
    assert yaml.safe_load((study / "study.yaml").read_text())["invert"]["steps"] == 5
    states = {row["stage"]: row["state"] for row in json.loads(quick("status", study, "--json").out)["stages"]}
    assert states == {"generate": "done", "label": "done", "reward": "done", "invert": "done", "erase": "stale", "evaluate": "stale",
                      "report": "stale"}


def test_a_veto_leaves_the_picture_out(copy_of, quick):
    study = copy_of("reward")
    picked = json.loads((study / "reward" / "selected.json").read_text())
    name = json.dumps(picked).split('"image_id": "')[1].split('"')[0]
    assert quick("reward", study, "--veto", name).code == 0
    assert name not in (study / "reward" / "selected.json").read_text()
    assert yaml.safe_load((study / "study.yaml").read_text())["reward"]["veto"] == [name]
    wrong = quick("reward", study, "--veto", "nosuchpicture")
    assert wrong.code == 2 and "--veto" in wrong.error


def test_judgements_go_out_and_come_in_again(copy_of, quick, tmp_path):
    study = copy_of("label")
    assert "24 judgements" in quick("label", study, "--export", "out.csv").out
    again = quick("label", study, "--import", "out.csv")
    assert again.code == 0 and "24 known already" in again.out
    shutil.rmtree(study / "label")
    assert quick("label", study, "--gather").code == 0


def test_new_judgements_are_taken_up(copy_of, quick, tmp_path):
    """A second person judges a finished study: what rests on judgements is stale, and `hfi run` brings it up to date."""
    study = copy_of()
    rows = [json.loads(line) for line in judge_by_hand(study, tmp_path / "first.jsonl").read_text().splitlines()]
    (tmp_path / "second.jsonl").write_text("".join(json.dumps({**row, "annotator": "bob"}) + "\n" for row in rows))
    from hfi.feedback.interchange import import_judgements
    from hfi.workspace import Workspace

    import_judgements(Workspace.open(study), tmp_path / "second.jsonl")
    states = [row["state"] for row in json.loads(quick("status", study, "--json").out)["stages"]]
    assert states == ["done"] + ["stale"] * 6
    assert quick("run", study).code == 0
    found = json.loads(quick("status", study, "--json").out)
    assert [row["state"] for row in found["stages"]] == ["done"] * 7 and found["stages"][1]["facts"]["judgements"] == 48


def test_two_studies_are_erased_together(copy_of, quick):
    first, second = copy_of("invert", "first"), copy_of("invert", "second")
    assert quick("erase", first, "--also", second).code == 0
    assert yaml.safe_load((first / "study.yaml").read_text())["erase"]["also"] == [str(second)]
    done = quick("run", first)  # measures both
    assert done.code == 0 and "also erased: sharp, explicit" in done.out
    assert json.loads((first / "metrics.json").read_text())["also"][0]["concept_rate"]["explicit"]["after"]["n"] == 4
    assert "Also erased in this run" in (first / "report.html").read_text()


def test_erasers_are_compared_at_equal_retention_and_with_other_draws(copy_of, hfi):
    study = copy_of()
    before = (study / "study.yaml").read_bytes()
    told = ["--methods", "uce", "--with", "tokens", "--quick", "2"]
    for more in (["--strengths", "0.5,1"], ["--seed", "7"]):
        done = hfi("compare", study, *told, *more)
        assert done.code == 0, done.err
        result = json.loads((study / "compare" / "compare.json").read_text())
        assert len(result["at_level"]) == (more[0] == "--strengths") and result["cells"][0]["rates"]["explicit"]["after"]["n"] == 2
    assert (study / "study.yaml").read_bytes() == before
    assert "--strengths: is 3" in hfi("compare", study, *told, "--strengths", "3").err
    assert "at strength 0.5, 1" in hfi("compare", study, *told, "--strengths", "0.5", "--dry-run").out

    assert "names a study twice" in hfi("compare", study, *told, "--together", study).err
    other = copy_of("report", "other")
    assert "its comparison is not done" in hfi("compare", study, *told, "--together", other).err
    assert "its comparison is not done" in hfi("compare", study, *told, "--together", other, "--dry-run").err
    assert hfi("compare", other, *told).code == 0
    assert "'sharp' comes twice" in hfi("compare", study, *told, "--together", other).err
    found = json.loads((other / "compare" / "compare.json").read_text())
    (other / "compare" / "compare.json").write_text(json.dumps({**found, "concept": "blunt"}))
    assert str(other) in hfi("compare", study, *told, "--together", other, "--dry-run").out
    assert hfi("compare", study, *told, "--together", other).code == 0
    assert json.loads((study / "compare" / "compare.json").read_text())["together"]["concepts"] == ["sharp", "blunt"]


@pytest.mark.parametrize("arguments", [["run", "STUDY"], ["invert", "STUDY", "--set", "invert.steps=9"], ["run", "RECIPE"],
                                       ["init", "other", "--from", "RECIPE"],
                                       ["label", "STUDY", "--simulated", "--set", "label.simulated_judge=clip:emoji"]], ids=" ".join)
def test_a_dry_run_changes_nothing(copy_of, hfi, recipe, tmp_path, arguments):
    study = copy_of("reward")
    names = {"STUDY": study, "RECIPE": recipe}
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    done = hfi(*[names.get(word, word) for word in arguments], "--dry-run")
    assert done.code == 0, done.err
    assert done.out
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}


def test_a_dry_run_says_what_it_would_do(recipe, hfi):
    out = hfi("run", recipe, "--dry-run").out
    for words in ("draw 24 pictures, 2 steps each", "z_t from replay", "2 snapshots", "8 on the way", "7 of 7 stages to do",
                  "re-inversions"):
        assert words in out


def test_models_and_env_answer(hfi):
    models = json.loads(hfi("models", "--json").out)
    assert models["embedded"]["name"] == "emoji" and models["families"]
    env = json.loads(hfi("env", "--json").out)
    assert env["versions"]["torch"] and env["cores"] >= 1 and env["disk_free_mib"] > 0
    assert "Stable Diffusion 1.x" in hfi("models").out


def test_a_closed_pipe_is_quiet(loop):
    import subprocess
    import sys

    done = subprocess.run(f"{sys.executable} -m hfi.cli init --help | head -1", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr
