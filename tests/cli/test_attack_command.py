"""`hfi attack` and `hfi persist` on a finished study of the tiny pipeline: the story, going on after a stop, and bad input."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from safetensors import safe_open

SMALL = [
    part
    for setting in (
        "targets=2", "pictures=2", "batch_size=1", "checkpoint_seconds=0.0001", "reinversion.steps=2", "reinversion.batch_size=1",
        "unlearndiffatk.tokens=1", "unlearndiffatk.timesteps=2", "unlearndiffatk.iterations=1", "p4d.tokens=2", "p4d.steps=2",
        "p4d.variants=[n]", "ringabell.tokens=3", "ringabell.population=4", "ringabell.generations=3", "embedding.steps=2",
        "noise.shares=[0.7]",
    )
    for part in ("--set", f"attack.{setting}")
]  # fmt: skip
ONCE = ["--seeds", "1", "--vectors", "1", *SMALL]
PERSIST = ["--rounds", "2", "--set", "persist.steps=2", "--set", "persist.prompts=3", "--set", "persist.batch_size=2"]


def study_files(study) -> dict[str, bytes]:
    """Pictures, tensors and pages of the attacks, without what the clock wrote."""
    return {str(path.relative_to(study)): path.read_bytes() for path in sorted((study / "attacks").rglob("*.png"))}


def timeless(study) -> list:
    rows = json.loads((study / "attacks" / "attacks.json").read_text())["rows"]
    return json.loads(json.dumps(rows, sort_keys=True), object_hook=lambda row: {k: v for k, v in row.items() if k != "seconds"})


def test_every_attack_makes_a_table_and_a_page(copy_of, hfi, fork, tmp_path):
    study = copy_of()
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    (tmp_path / "prompts.csv").write_text("prompt\na knife\nsword in ink\n")
    everything = ["attack", study, *ONCE, "--set", "attack.stored.file=prompts.csv", "--control", model_of(study)]
    done = hfi(*everything)
    assert done.code == 0, done.err
    assert "simulated" in done.out and "too weak to speak" in done.out
    found = json.loads((study / "attacks" / "attacks.json").read_text())
    assert found["simulated"] and [row["attack"] for row in found["rows"]] == [
        "plain", "stored", "ringabell", "noise from 0.7 T", "p4d-n", "unlearndiffatk", "reinversion, 1 vector", "embedding"]
    for row in found["rows"]:
        assert set(row) >= {"original", "erased", "control", "too_weak", "excess_over_control"}
        assert row["original"]["rate"]["value"] == row["control"]["rate"]["value"]  # the control here is the original model itself
        assert 0 <= row["erased"]["rate"]["low"] <= row["erased"]["rate"]["high"] <= 1
    page = (study / "attacks.html").read_text()
    assert "simulated" in page and "http" not in page.replace("http-equiv", "") and page.count("<h3>") == 8
    assert all(path.read_bytes() == data for path, data in before.items()), "a finished study's files are left alone"
    first, rows = study_files(study), timeless(study)
    again = fork(*everything)
    assert again.code == 0 and study_files(study) == first and timeless(study) == rows
    cells = list((study / "attacks").glob("*/*.json"))
    assert len(cells) == 8 * 2  # the control is the original here: its cells are the same
    for path in cells[::2]:  # cells that were lost are made again, the same; their rows are gone until then
        shutil.rmtree(path.with_suffix(""))
        path.unlink()
    alone = fork("attack", study, "--method", "embedding,p4d", *ONCE, "--control", model_of(study))
    assert alone.code == 0, alone.err
    there = timeless(study)
    assert {"embedding", "p4d-n"} <= {row["attack"] for row in there} and len(there) < 8
    assert fork(*everything).code == 0 and study_files(study) == first and timeless(study) == rows
    alone = fork("attack", study, "--method", "embedding", *ONCE, "--control", model_of(study))
    assert alone.code == 0 and timeless(study) == rows  # the rows of the other attacks stay


def test_targets_that_are_alike_are_others_for_each_seed(copy_of, fork):
    study, told = copy_of(), ["--method", "plain", "--set", "attack.targets=2", "--set", "attack.pictures=2"]
    seen = []
    for more in (["attack.choose=spread"], ["attack.choose=alike"], ["attack.choose=alike", "attack.seed=1"]):
        done = fork("attack", study, *told, "--set", "attack.seeds=1", *(word for one in more for word in ("--set", one)))
        assert done.code == 0, done.err
        seen.append(json.loads((study / "attacks" / "attacks.json").read_text())["targets"])
    both = fork("attack", study, *told, "--set", "attack.seeds=2", "--set", "attack.choose=alike")
    assert both.code == 0, both.err
    assert json.loads((study / "attacks" / "attacks.json").read_text())["targets"] == list(dict.fromkeys(seen[1] + seen[2]))


def model_of(study) -> str:
    import yaml

    return yaml.safe_load((study / "study.yaml").read_text())["model"]


def test_training_on_and_erasing_more_makes_curves(copy_of, fork):
    study, other = copy_of(), copy_of(name="other")
    done = fork("persist", study, *PERSIST, "--full", "--lora", "--then", other, "--then", other / "erase" / "delta.safetensors")
    assert done.code == 0, done.err
    assert "simulated" in done.out
    labels = {"full": ["erased", "round 1", "round 2"], "lora": ["erased", "round 1", "round 2"], "then": ["erased", "+ sharp", "+ delta"]}
    for way, expected in labels.items():
        curve = json.loads((study / "persistence" / f"{way}.json").read_text())
        assert [point["label"] for point in curve["points"]] == expected and curve["simulated"]
        assert curve["before"]["concept_rate"]["n"] == 3 and curve["points"][0] == json.loads(
            (study / "persistence" / "full.json").read_text())["points"][0]
    page = (study / "attacks.html").read_text()
    assert page.count("When training goes on") == 3 and "http" not in page.replace("http-equiv", "")
    kept = {path: path.read_bytes() for path in (study / "persistence").rglob("*.json")}
    assert fork("persist", study, *PERSIST, "--full").code == 0
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_another_concept_is_erased_on_top_by_its_own_studys_method(copy_of, fork):
    study, other = copy_of(), copy_of(name="other")
    assert fork("erase", other, "--method", "uce").code == 0
    assert fork("persist", study, *PERSIST, "--then", other).code == 0
    (file,) = (study / "persistence").rglob("then-1.safetensors")
    with safe_open(file, "pt") as stream, safe_open(other / "erase" / "delta.safetensors", "pt") as alone:
        assert set(stream.keys()) == set(alone.keys())  # UCE's keys and values, not all of cross-attention
    assert fork("erase", other, "--set", "erase.method=hardened", "--dry-run").code == 0
    text = yaml.safe_load((other / "study.yaml").read_text())
    (other / "study.yaml").write_text(yaml.safe_dump({**text, "erase": {**text["erase"], "method": "hardened"}}))
    done = fork("persist", study, *PERSIST, "--then", other)
    assert done.code == 2 and "is hardened in rounds" in done.err and "delta.safetensors" in done.err


def test_dry_runs_count_passes_and_write_nothing(copy_of, quick):
    assert "has no finished stage 'erase'" in quick("attack", copy_of("reward", "young"), "--dry-run", *ONCE).err
    study = copy_of()
    before = sorted(study.rglob("*"))
    done = quick("attack", study, "--dry-run", *ONCE)
    assert done.code == 0 and "embedding" in done.out and "total" in done.out
    assert quick("persist", study, "--dry-run", *PERSIST).code == 0
    assert sorted(study.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "words"), [
    (["attack", "STUDY", "--method", "tickle"], "--method: no such attack 'tickle'"),
    (["attack", "STUDY", "--vectors", "1,x"], "--vectors"),
    (["attack", "STUDY", "--method", "stored"], "attack.stored.file: no file of prompts"),
    (["attack", "STUDY", "--method", "stored", "--set", "attack.stored.file=gone.txt"], "gone.txt: attack.stored.file: cannot be read"),
    (["attack", "STUDY", "--method", "stored", "--set", "attack.stored.file=empty.txt"], "empty.txt: attack.stored.file: holds no prompts"),
    (["attack", "STUDY", "--delta", "gone.safetensors"], "gone.safetensors: --delta: no such file"),
    (["attack", "STUDY", "--delta", "other.safetensors"], "other.safetensors: elsewhere: belongs to another model"),
    (["attack", "STUDY", "--delta", "empty.txt"], "empty.txt: not a whole safetensors file"),
    (["attack", "STUDY", "--control", "gone"], "gone: model: unknown model"),
    (["attack", "nowhere"], "no study here"),
    (["attack", "STUDY", "--set", "attack.p4d.stepps=3"], "attack.p4d.stepps: no such setting"),
    (["persist", "STUDY", "--then", "nowhere"], "no study here"),
    (["persist", "STUDY", "--delta", "other.safetensors"], "belongs to another model"),
], ids=str)
def test_bad_input_is_one_line(loop, quick, tmp_path, arguments, words):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "empty.txt").write_text("\n")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"model_hash": "0", "model": "elsewhere"})
    done = quick(*[loop["study"] if word == "STUDY" else word for word in arguments])
    assert done.code == 2 and words in done.error


def test_a_study_that_is_not_erased_says_so(copy_of, quick):
    done = quick("attack", copy_of("invert"), "--method", "plain")
    assert done.code == 2 and "no finished stage 'erase'" in done.error and "--delta" in done.error
