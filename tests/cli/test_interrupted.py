"""Ctrl-C and kill -9 in every stage: the same command continues, and the results are those of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from driver import STAGES, environment, forked, same_outputs

BEFORE = dict(zip(STAGES[2:], STAGES[1:-1], strict=True)) | {"generate": None, "label": "generate"}


def interrupted(loop, copy_of, quick, stage: str, nth: int, sign: int, after: bool = False) -> int:
    """Stop `hfi run` at a write of a stage, continue it, compare; returns how many writes there were before the end."""
    study = _study_before(loop, copy_of, stage)
    code, writes = forked(["run", study], stage, nth, sign, after)
    if writes > nth:
        assert code == (-signal.SIGKILL if sign == signal.SIGKILL else 130)
    done = quick("run", study)
    assert done.code == 0, done.err
    same_outputs(loop["study"], study)
    return writes


def _study_before(loop, copy_of, stage: str):
    import shutil

    study = copy_of(BEFORE[stage] or "generate", f"{stage}-{time.monotonic_ns()}")
    if stage == "generate":  # people's judgements name pictures by id, and the same settings draw the same ids
        shutil.rmtree(study / "generate")
    return study


@pytest.mark.parametrize(("stage", "nth", "sign"), [("erase", 3, signal.SIGKILL), ("invert", 2, signal.SIGINT)])
def test_stopped_in_the_middle(loop, copy_of, quick, stage, nth, sign):
    assert interrupted(loop, copy_of, quick, stage, nth, sign) > nth


def test_ctrl_c_for_real(copy_of, quick, loop):
    """A person presses Ctrl-C while the erased model is measured: one line, exit 130, no half file, and it goes on."""
    study = copy_of("invert")
    # what a shell starts in the background ignores the key, and so would this process: a person's terminal does not
    process = subprocess.Popen([sys.executable, "-m", "hfi.cli", "run", str(study)], env=environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 240
    while not (study / "erase" / "partial.json").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "hfi: stopped; the same command continues" in err and "Traceback" not in err
    assert quick("run", study).code == 0
    same_outputs(loop["study"], study)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at_every_kind_of_write(loop, copy_of, quick, stage, sign):
    """Every early write of the stage, and then ever sparser ones up to its last."""
    nth, step = 0, 1
    while interrupted(loop, copy_of, quick, stage, nth, sign, after=bool(nth % 2)) > nth:
        nth += step
        step = 1 if nth < 4 else max(1, nth // 2)
    assert nth > 0


@pytest.mark.slow
def test_killed_again_and_again(loop, copy_of, quick):
    """One study, killed at its first write, continued, killed at its second, and so on: the results are the same."""
    study = copy_of("label")
    for stage in STAGES[2:]:
        for nth in range(400):
            code, writes = forked(["run", study], stage, nth, signal.SIGKILL, after=bool(nth % 2))
            if writes <= nth:
                break
            assert code == -signal.SIGKILL
    assert quick("run", study).code == 0
    same_outputs(loop["study"], study)
