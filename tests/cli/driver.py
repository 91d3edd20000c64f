"""The real command line on the tiny pipeline: as a subprocess, and forked where it must die at a chosen write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

STAGES = ("generate", "label", "reward", "invert", "erase", "evaluate", "report")


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a person reads; asserts that it is one line and no traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("hfi: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        return lines[0]


def run_hfi(*arguments: object, cwd: Path, timeout: float = 300, **options) -> Done:
    """`hfi ARGUMENTS` in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "hfi.cli", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
                          env=environment(), **options)
    return Done(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}


@pytest.fixture
def hfi(tmp_path) -> Callable[..., Done]:
    """Run `hfi` in the test's own folder."""
    return lambda *arguments, **options: run_hfi(*arguments, cwd=options.pop("cwd", tmp_path), **options)


@pytest.fixture
def fork(tmp_path) -> Callable[..., Done]:
    """Run `hfi` forked, in the test's own folder."""
    import hfi.evaluation.evaluate  # noqa: F401 - so that every fork has it

    return lambda *arguments, **options: fork_hfi(*arguments, cwd=options.pop("cwd", tmp_path), **options)


@pytest.fixture
def quick(tmp_path, monkeypatch, capfd) -> Callable[..., Done]:
    """The same entry point called in this process: for the many errors that need no process of their own."""
    from hfi.cli.app import call

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code = call([str(argument) for argument in arguments])
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, tiny_root) -> Path:
    """A recipe for the tiny pipeline; checkpoints after every step, so that interruptions meet them all."""
    import tiny

    settings = tiny.study_settings(tiny_root)
    for stage in ("invert", "erase"):
        settings[stage]["checkpoint_seconds"] = 0.0001
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def judge_by_hand(study: Path, path: Path) -> Path:
    """What a person would write: one JSON row a picture; "present" for the brighter ones that were asked for as the concept."""
    from PIL import Image

    rows = [json.loads(line) for line in (study / "generate" / "images.jsonl").read_text().splitlines()]
    light = {row["id"]: sum(Image.open(study / "generate" / row["file"]).convert("L").tobytes()) for row in rows}
    asked = {row["id"] for row in rows if row["purpose"] == "concept"}
    low = sorted(light[name] for name in asked)[len(asked) // 6]
    said = {name: "present" if name in asked and value >= low else "absent" for name, value in light.items()}
    path.write_text("".join(json.dumps({
        "image": name, "label": label, "annotator": "ann", "kind": "human", "seconds": 1.5,
        "created": "2026-01-02T03:04:05+00:00"}) + "\n" for name, label in said.items()))
    return path


@pytest.fixture(scope="session")
def loop(tmp_path_factory, recipe) -> dict:
    """The whole loop, one command at a time, as a person would type it; {"folder", "study", command: what it left}.

    Made once for all workers of pytest-xdist: eight processes that each load the libraries take a minute.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "loop"
    told = folder / "told.json"
    with FileLock(f"{folder}.lock"):
        if not told.exists():
            folder.mkdir()
            steps = {"init": run_hfi("init", "mine", "--from", recipe, cwd=folder)}
            steps["generate"] = run_hfi("generate", "mine", cwd=folder)
            judge_by_hand(folder / "mine", folder / "judgements.jsonl")
            steps["label"] = run_hfi("label", "mine", "--import", "judgements.jsonl", cwd=folder)
            for stage in STAGES[2:]:
                steps[stage] = run_hfi(stage, "mine", cwd=folder)
            told.write_text(json.dumps({name: asdict(done) for name, done in steps.items()}))
    steps = {name: Done(**done) for name, done in json.loads(told.read_text()).items()}
    return {"folder": folder, "study": folder / "mine", **steps}


@pytest.fixture
def copy_of(loop, tmp_path) -> Callable[[str], Path]:
    """A copy of the finished study as it was when `until` had just been done."""

    def copy(until: str = "report", name: str = "study") -> Path:
        study = tmp_path / name
        later = STAGES[STAGES.index(until) + 1 :]
        shutil.copytree(loop["study"], study, ignore=lambda folder, names: [
            name for name in names if Path(folder) == loop["study"] and (name in later or name in {".lock", "report.html", "metrics.json"})
        ] if until != "report" else [".lock"])
        return study

    return copy


def outputs(study: Path) -> dict[str, object]:
    """What must be equal, bit for bit, however often a study was interrupted; seconds and memory are left out."""
    found: dict[str, object] = {}
    for path in sorted(study.rglob("*")):
        name = str(path.relative_to(study))
        if path.suffix in {".safetensors", ".png"} or path.name in {"images.jsonl", "scores.json", "judgements.jsonl", "verdicts.jsonl"}:
            found[name] = path.read_bytes()
        elif path.name in {"selected.json", "tokens.json", "prompts.json", "metrics.json", "losses.json", "calibration.json",
                           "curve.json"}:
            found[name] = timeless(json.loads(path.read_text()))
        elif path.name == "log.jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return found


def timeless(data: object) -> object:
    """Plain data without what the clock and the memory meter wrote."""
    if isinstance(data, dict):
        return {name: timeless(value) for name, value in data.items() if name not in {"seconds", "peak_memory_mib", "created", "study"}}
    return [timeless(value) for value in data] if isinstance(data, list) else data


def same_outputs(one: Path, other: Path) -> None:
    """Assert that two finished studies hold the same results."""
    a, b = outputs(one), outputs(other)
    assert sorted(a) == sorted(b)
    assert not [name for name in a if a[name] != b[name]]


def fork_hfi(*arguments: object, cwd: Path, before: Callable[[], object] = lambda: None) -> Done:
    """`hfi ARGUMENTS` in a process of its own, forked from this one: its libraries are loaded already, so it starts at once."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 99
            with contextlib.suppress(BaseException):
                from hfi.cli.app import call

                os.chdir(cwd)
                sys.stdout = open(os.dup(out.fileno()), "w", encoding="utf-8")  # noqa: SIM115 - pytest holds the old ones
                sys.stderr = open(os.dup(err.fileno()), "w", encoding="utf-8")  # noqa: SIM115
                before()
                code = call([str(argument) for argument in arguments])
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return Done(os.waitstatus_to_exitcode(status), *texts)


def forked(arguments: list[object], stage: str, nth: int, sign: int, after: bool = False) -> tuple[int, int]:
    """`hfi ARGUMENTS` in a forked process that gets a signal at its nth write into a stage's folder.

    Args:
        nth: which write, from 0; more writes than there are let the command finish.
        sign: signal.SIGKILL or signal.SIGINT.
        after: just after the file took its name, instead of just before.

    Returns (exit code, or minus the signal that ended it; writes that were begun).
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            from hfi.cli.app import call

            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            replace, count = os.replace, 0

            def counted(source, target, **options):
                nonlocal count
                here = f"/{stage}/" in str(target)
                if here:
                    os.write(write, b".")
                    count += 1
                if here and count - 1 == nth and not after:
                    os.kill(os.getpid(), sign)
                replace(source, target, **options)
                if here and count - 1 == nth and after:
                    os.kill(os.getpid(), sign)

            os.replace = counted
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = call([str(argument) for argument in arguments])
        os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        writes = len(stream.read())
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), writes
