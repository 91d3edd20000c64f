"""Bad input ends in one line that names the file, the field and the remedy, and loses nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import yaml
from driver import environment, outputs, same_outputs


def edit(study: Path, section: str, **values: object) -> None:
    """Change study.yaml as a person with an editor would."""
    settings = yaml.safe_load((study / "study.yaml").read_text())
    place = settings[section] if section else settings
    place.update(values)
    (study / "study.yaml").write_text(yaml.safe_dump(settings))


def png(width: int, height: int) -> bytes:
    """A grey PNG of any size in few bytes."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" * (1 + (width + 7) // 8)) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# --- the command line and study.yaml ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("arguments", "words"), [
    (["init", "s", "--model", "./nowhere"], ["./nowhere", "model", "hfi models"]),
    (["init", "s", "--concept", "unheard of"], ["unknown concept 'unheard of'", "concept.members", "list its members"]),
    (["init", "s", "--set", "concept.prompts=gone.txt"], ["gone.txt", "concept.prompts", "one prompt per line"]),
    (["init", "s", "--set", "erase.stepz=3"], ["erase.stepz", "no such setting", "hfi init --help"]),
    (["init", "s", "--set", "nowhere.steps=3"], ["nowhere.steps", "no such setting"]),
    (["init", "s", "--set", "erase.steps=many"], ["erase.steps", "valid integer", "'many'", "correct that value"]),
    (["init", "s", "--set", "erase.steps=-1"], ["erase.steps", "greater than 0"]),
    (["init", "s", "--set", "erase.steps"], ["--set", "section.field=value"]),
    (["init", "s", "--set", "concept.members=[a"], ["--set concept.members", "quote it"]),
    (["init", "s", "--device", "gpu9"], ["device", "use auto, cpu, cuda"]),
    (["init", "s", "--seed", "-1"], ["seed", "greater than or equal to 0"]),
    (["init", "s", "--set", "evaluate.judge=foo"], ["evaluate.judge", "unknown judge 'foo'", "clip:FOLDER"]),
    (["init", "s", "--set", "evaluate.judge=emoji:scorer"], ["evaluate.judge", "does not know", "goes by words"]),
    (["init", "s", "--set", "reward.encoder=nonexistent"], ["nonexistent", "reward.encoder", "unknown CLIP"]),
    (["init", "s", "--set", "label.machines=[foo]"], ["label.machines", "unknown detector 'foo'"]),
    (["init", "s", "--set", "label.machines=clip:emoji"], ["label.machines", "write a list: label.machines=[clip:emoji]"]),
    (["init", "s", "--set", "erase.templates=[a photo]"], ["erase.templates", "write {} once"]),
    (["init", "s", "--set", "erase.templates=[]"], ["erase.templates", "at least 1"]),
    (["init", "s", "--set", "erase.beta=[0,3]"], ["erase.beta", "greater than 0"]),
    (["init", "s", "--set", "attack.noise.shares=[0.3]"], ["attack.noise.shares", "0.7"]),
    (["init", "s", "--set", "concept.kind=style", "--concept", "jane doe"], ["unknown style 'jane doe'", '"styles": ["jane doe"]']),
    (["init", "s", "--from", "gone.yaml"], ["gone.yaml", "no such study file", "recipes/"]),
    (["run", "nothing"], ["nothing", "no study here", "hfi init nothing"]),
    (["run", "gone.yaml"], ["gone.yaml", "no such study file"]),
    (["status", "nothing"], ["nothing", "no study here"]),
    (["frobnicate"], ["No such command 'frobnicate'", "hfi --help"]),
    (["run", "s", "--bogus"], ["--bogus", "hfi run --help"]),
    (["run"], ["STUDY", "hfi run --help"]),
], ids=" ".join)
def test_words_that_mean_nothing(quick, recipe, arguments, words):
    if arguments[0] == "init" and "--from" not in arguments:
        arguments = [*arguments[:2], "--from", str(recipe), *arguments[2:]]
    done = quick(*arguments)
    assert done.code == 2
    for word in words:
        assert word in done.error
    assert not Path("s").exists()


def test_a_prompt_file_is_used_and_an_empty_one_refused(quick, recipe, tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    done = quick("init", "s", "--from", recipe, "--set", "concept.prompts=empty.txt")
    assert done.code == 2 and "empty.txt" in done.error and "write one prompt per line" in done.error
    (tmp_path / "mine.txt").write_text("a knife on a table\n")
    assert quick("init", "s", "--from", recipe, "--set", "concept.prompts=mine.txt").code == 0


@pytest.mark.parametrize(("text", "words"), [
    (b"name: tiny\nmodel: [", ["not readable as YAML", "mend it"]),
    (b"\xff\xfe\x00\x01", ["not readable as YAML"]),
    (b"- a\n- b\n", ["holds no settings"]),
    (b"erase:\n  steps: three\n", ["erase.steps", "valid integer"]),
    (b"erase:\n  stepz: 3\n", ["erase.stepz", "no such setting"]),
    (b"concept: {kind: sound}\n", ["concept.kind", "'harm' or 'style'"]),
])
@pytest.mark.parametrize("command", ["run", "status", "generate"])
def test_a_study_file_that_cannot_be_read(quick, tmp_path, text, words, command):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.yaml").write_bytes(text)
    done = quick(command, "s")
    assert done.code == 2
    for word in ["study.yaml", *words]:
        assert word in done.error


def test_files_of_a_study_are_found_from_anywhere(quick, recipe, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("a knife on a table\n")
    assert quick("init", "s", "--from", recipe, "--set", "concept.prompts=mine.txt").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = quick("run", "../s", "--dry-run")
    assert done.code == 0, done.error


def test_a_recipe_never_overwrites_a_study_with_other_settings(quick, recipe, tmp_path):
    assert quick("init", "s", "--from", recipe, "--set", "erase.steps=9").code == 0
    done = quick("run", recipe, "--study", "s")
    assert done.code == 2 and "erase.steps" in done.error and "hfi run s" in done.error
    assert quick("init", "s", "--from", recipe).code == 2
    (tmp_path / "file").write_text("")
    assert "not a folder" in quick("run", recipe, "--study", "file").error


def test_a_slip_in_a_setting_costs_nothing_that_is_done(quick, copy_of, tmp_path):
    """Neither a name that cannot be nor a network that cannot be loaded clears the stage that stands, or stays in study.yaml."""
    study = copy_of("reward")
    (tmp_path / "empty").mkdir()
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file() and path.name != ".lock"}
    for setting in ("reward.encoder=nonexistent", f"reward.encoder={tmp_path / 'empty'}"):
        for command in ("reward", "run"):
            assert quick(command, study, "--set", setting).code == 2
            assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_a_dry_run_refuses_what_cannot_run(quick, copy_of):
    study = copy_of("reward")
    assert "unknown judge" in quick("run", study, "--dry-run", "--set", "evaluate.judge=foo").error
    assert "unknown CLIP" in quick("reward", study, "--dry-run", "--set", "reward.encoder=nonexistent").error
    assert quick("erase", study, "--dry-run").code == 0


def test_another_model_is_not_looked_at_by_what_knows_emoji_alone(quick, tmp_path):
    done = quick("init", "s", "--model", "CompVis/stable-diffusion-v1-4", "--concept", "weapon", "--set", "label.source=simulated",
                 "--set", "label.simulated_judge=clip:emoji")
    assert done.code == 0 and "reward.encoder=openai/clip-vit-large-patch14" in done.err and "label.source" not in done.err
    made = yaml.safe_load(Path("s/study.yaml").read_text())
    assert made["evaluate"]["judge"] == "clip:openai/clip-vit-large-patch14" and made["label"]["source"] == "simulated"
    assert quick("init", "t", "--from", "s").code == 0, "settings of another study"
    asked = quick("init", "u", "--model", "CompVis/stable-diffusion-v1-4", "--concept", "weapon", "--set", "reward.encoder=emoji",
                  "--set", "evaluate.judge=clip:emoji")
    assert asked.code == 0 and not asked.err
    assert yaml.safe_load(Path("u/study.yaml").read_text())["reward"]["encoder"] == "emoji"


@pytest.mark.parametrize("setting", ["erase.trainable=lora", "erase.hardened.vectors=[2]", "erase.hardened.judge=tiny-scorer"])
def test_settings_that_contradict_are_refused_and_not_kept(quick, copy_of, setting):
    """By the stage's own command and by the whole loop, before anything is loaded: the study is as it was."""
    study = copy_of("invert")
    before = (study / "study.yaml").read_bytes()
    known = yaml.safe_load(before)
    setting = setting.replace("tiny-scorer", known["evaluate"]["judge"]).replace("[2]", f"[{known['invert']['vectors']}]")
    for arguments in (["erase", study, "--method", "hardened"], ["run", study, "--set", "erase.method=hardened"]):
        done = quick(*arguments, "--set", setting)
        assert done.code == 2 and setting.split("=")[0] in done.error
        assert (study / "study.yaml").read_bytes() == before


# --- damaged studies ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file", ["generate/manifest.json", "reward/manifest.json"])
def test_a_half_written_manifest(quick, copy_of, file):
    study = copy_of("reward")
    (study / file).write_text((study / file).read_text()[:40])
    done = quick("run", study)
    assert done.code == 2 and file in done.error and "delete it" in done.error


@pytest.mark.parametrize(("file", "until", "command"), [
    ("generate/images.jsonl", "generate", "label"), ("generate/images.jsonl", "label", "reward"),
    ("generate/latents.safetensors", "reward", "invert"), ("label/judgements.jsonl", "label", "reward"),
    ("reward/selected.json", "reward", "invert"), ("erase/delta.safetensors", "erase", "evaluate"),
    ("evaluate/metrics.json", "evaluate", "report"),
])
def test_a_half_written_result(quick, copy_of, file, until, command):
    study = copy_of(until)
    path = study / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = quick(command, study, *(["--gather"] if command == "label" else []))
    assert done.code == 2 and file in done.error
    assert "delete" in done.error or "again" in done.error or "restore" in done.error


def test_a_truncated_picture(quick, copy_of):
    study = copy_of("label")
    path = sorted((study / "generate" / "images").glob("*.png"))[3]
    path.write_bytes(path.read_bytes()[:200])
    done = quick("reward", study)
    assert done.code == 2 and path.name in done.error


def test_a_decompression_bomb(quick, copy_of):
    study = copy_of("label")
    path = sorted((study / "generate" / "images").glob("*.png"))[3]
    path.write_bytes(png(40000, 40000))
    assert path.stat().st_size < 1_000_000
    done = quick("reward", study)
    assert done.code == 2 and path.name in done.error


def test_a_token_of_the_wrong_width(quick, copy_of):
    import torch

    from hfi.workspace import read_tensors, write_tensors

    study = copy_of("invert")
    path = next(path for path in (study / "invert").glob("*.safetensors"))
    write_tensors(path, {name: torch.zeros(rows.shape[0], rows.shape[1] + 3) for name, rows in read_tensors(path).items()})
    done = quick("erase", study)
    assert done.code == 2 and path.name in done.error


def test_a_model_that_changed_or_went_away(quick, copy_of, tmp_path):
    study = copy_of("generate")
    edit(study, "", model=str(tmp_path / "gone"))
    done = quick("generate", study)
    assert done.code == 2 and "gone" in done.error and "model" in done.error
    (tmp_path / "gone").mkdir()
    assert "model_index.json is missing" in quick("generate", study).error


def test_a_damaged_model(quick, copy_of, tiny_root, tmp_path):
    study = copy_of("generate")
    broken = shutil.copytree(tiny_root / "pipeline", tmp_path / "broken")
    weights = next((broken / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    edit(study, "", model=str(broken))
    done = quick("generate", study)
    assert done.code == 2 and "broken" in done.error and "model" in done.error


def test_a_damaged_store(quick, copy_of):
    study = copy_of("label")
    for path in study.glob("feedback.sqlite*"):
        path.unlink()
    (study / "feedback.sqlite").write_bytes(b"this is no database" * 100)
    done = quick("label", study, "--gather")
    assert done.code == 2 and "feedback.sqlite" in done.error


def test_a_style_that_nobody_draws(quick, recipe):
    done = quick("init", "s", "--from", recipe, "--set", "concept.kind=style", "--set", "concept.name=cubism",
                 "--set", "concept.members=[]", "--set", "concept.unlisted=[]")
    assert done.code == 2 and "unknown style 'cubism'" in done.error and "ink, chalk" in done.error


# --- the machine --------------------------------------------------------------------------------------------------------------

def test_a_full_disk_stops_cleanly_and_the_same_command_continues(loop, copy_of, quick, monkeypatch):
    """The system refuses a write in the middle of erasure; with space again the result is the uninterrupted one."""
    study, sync, count = copy_of("invert"), os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count > 4:
            raise OSError(28, "No space left on device")
        return sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    done = quick("run", study)
    assert done.code == 2 and "the disk is full" in done.error and str(study) in done.error and "continues" in done.error
    assert not list(study.rglob(".*.safetensors.*"))  # no half-written file is left behind
    monkeypatch.setattr(os, "fsync", sync)
    assert quick("run", study).code == 0
    same_outputs(loop["study"], study)


def test_a_limit_on_file_sizes(copy_of, fork):
    """The same for real: the system stops a file at 6 KiB."""
    study = copy_of("label")
    shutil.rmtree(study / "generate")
    done = fork("generate", study, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 10, 6 << 10)))
    assert done.code == 2 and "may not grow" in done.error and str(study) in done.error


@pytest.mark.parametrize("failure", ["python", "torch", "accelerator"])
def test_out_of_memory(copy_of, quick, monkeypatch, failure):
    import torch

    from hfi.generation import generate

    def greedy(*_, **__):
        if failure == "python":
            raise MemoryError
        if failure == "accelerator":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return torch.empty(1 << 50)  # torch's own words for it

    study = copy_of("generate")
    shutil.rmtree(study / "generate")
    monkeypatch.setattr(generate, "sample_latents", greedy)
    done = quick("generate", study)
    assert done.code == 2 and "out of memory" in done.error and "generate.batch_size" in done.error
    monkeypatch.undo()


def test_two_processes_on_one_study(copy_of, hfi):
    from hfi.workspace import Workspace

    study = copy_of("reward")
    with Workspace.open(study).lock():
        for arguments in (["run", study], ["invert", study], ["label", study, "--import", "x.jsonl"]):
            done = hfi(*arguments)
            assert done.code == 2 and f"another process (pid {os.getpid()})" in done.error and str(study) in done.error
        assert hfi("status", study).code == 0  # looking is always allowed


def test_a_place_that_cannot_be_written_to(quick, recipe):
    done = quick("init", "/proc/nowhere", "--from", recipe)
    assert done.code == 2 and "/proc/nowhere" in done.error


def test_a_defect_is_one_line_and_debug_shows_where(copy_of, quick, monkeypatch):
    from hfi import method

    monkeypatch.setattr(method, "run", lambda *_, **__: 1 / 0)
    study = copy_of("generate")
    done = quick("label", study, "--gather")
    assert done.code == 1 and "unexpected ZeroDivisionError" in done.error and "--debug" in done.error
    shown = quick("label", study, "--gather", "--debug")
    assert shown.code == 1 and "Traceback" in shown.err


def test_label_files_that_do_not_fit(copy_of, quick, tmp_path):
    """One of each kind through the command line; the feedback room's own tests hold the rest."""
    study = copy_of("generate")
    name = json.loads((study / "generate" / "images.jsonl").read_text().splitlines()[0])["id"]
    cases = {
        "unknown": {"image": "nosuchpicture", "label": "present", "annotator": "a"},
        "wrong": {"image": name, "label": 17, "annotator": "a"},
    }
    for word, row in cases.items():
        path = tmp_path / f"{word}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        done = quick("label", study, "--import", path)
        assert done.code == 2 and path.name in done.error
    assert "gone.jsonl" in quick("label", study, "--import", "gone.jsonl").error
    assert json.loads(quick("status", study, "--json").out)["judgements"]["judgements"] in (0, 24)


def test_closing_the_pipe_early_is_no_error(copy_of):
    study = copy_of("generate")
    done = subprocess.run(f"{sys.executable} -m hfi.cli status {study} --json | head -c 1", shell=True, capture_output=True, text=True,
                          env=environment())
    assert done.stdout == "{" and done.stderr == ""


def test_outputs_sees_a_change(loop, copy_of):
    """The comparison that the interruption tests rest on can fail."""
    study = copy_of()
    assert outputs(study) == outputs(loop["study"])
    path = study / "erase" / "delta.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(AssertionError):
        same_outputs(loop["study"], study)
