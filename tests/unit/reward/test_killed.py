"""kill -9 in the middle of an import, of stage 2 and of stages 3 and 4: the next run gives what an undisturbed one gives."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

import tiny
from hfi.config import parse_config
from hfi.feedback.interchange import export_judgements, import_judgements
from hfi.feedback.judgements import Judgement
from hfi.feedback.label import label
from hfi.feedback.store import Store
from hfi.generation.generate import Generated, generate
from hfi.reward.reward import reward
from hfi.workspace import Workspace

KILLED = """
import os, signal, sys
from pathlib import Path
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
"""
IN_IMPORT = """
import hfi.feedback.merge as merge
from hfi.feedback.interchange import import_judgements
from hfi.workspace import Workspace
move = merge._move
merge._move = lambda *a: (move(*a), die())
import_judgements(Workspace.open(sys.argv[1]), Path(sys.argv[2]))
"""
IN_STAGES = """
import torch
torch.set_num_threads(1)
import hfi.feedback.play as play, hfi.reward.fit as fit
from hfi.feedback.label import label
from hfi.generation.generate import Generated
from hfi.reward.reward import reward
from hfi.workspace import Workspace
study = Workspace.open(sys.argv[1])
play.BATCH, seen = 5, []
room, name = (play, "_look") if sys.argv[2] == "label" else (fit, "loss")
real = getattr(room, name)
setattr(room, name, lambda *a: die() if seen.append(1) or len(seen) > 3 else real(*a))
images = Generated.load(study)
reward(images, label(images, study), study)
"""


def killed(code: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED + code, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def drawn(tiny_root, tmp_path_factory) -> Workspace:
    from hfi.diffusion.model import load_model

    raw = tiny.study_settings(tiny_root)
    # an annotator who answers at random: whatever the random judge sees, both answers come up
    raw["concept"] = {
        "name": "sharp",
        "vocabulary": raw["concept"]["vocabulary"],
        "members": ["knife", "sword", "needle", "apple", "pear", "house"],
    }
    raw["label"] = {"source": "simulated", "simulated_judge": raw["evaluate"]["judge"], "annotators": 1, "overlap": 1, "error_rate": 0.5}
    raw["evaluate"]["judge"] = "emoji:scorer"  # the one there is plays the annotator
    study = Workspace.create(tmp_path_factory.mktemp("drawn") / "study", parse_config(raw, "tiny"))
    generate(load_model(study.config.model, "cpu", "float32"), study)
    return study


@pytest.mark.slow
def test_stages_killed_halfway_end_as_undisturbed_ones(drawn, tmp_path):
    whole, broken = (Workspace(shutil.copytree(drawn.root, tmp_path / name), drawn.config) for name in "ab")
    killed(IN_STAGES, broken.root, "label")
    with Store.of(broken) as store:
        assert store.counts()["judgements"] == 15  # three batches of five pictures
    killed(IN_STAGES, broken.root, "reward")
    assert not broken.path("reward", "manifest.json").exists()
    for study in (whole, broken):
        images = Generated.load(study)
        reward(images, label(images, study), study)
    for stage in ("label", "reward"):
        assert broken.manifest(stage)["outputs"] == whole.manifest(stage)["outputs"]


def test_an_import_killed_before_its_end_adds_nothing(drawn, tmp_path):
    study = Workspace(shutil.copytree(drawn.root, tmp_path / "s"), drawn.config)
    other = Workspace(shutil.copytree(drawn.root, tmp_path / "o"), drawn.config)
    with Store.of(other) as store:
        store.record_many(Judgement((image.id,), "ann", value="present") for image in Generated.load(other).images)
    export_judgements(other, tmp_path / "rows.jsonl")
    killed(IN_IMPORT, study.root, tmp_path / "rows.jsonl")
    with Store.of(study) as store:
        assert store.last() == 0
    assert import_judgements(study, tmp_path / "rows.jsonl")["added"] == 24
