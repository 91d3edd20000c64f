"""A study on disk: one folder per stage, each finished one sealed by a manifest.json that says where it came from.

    STUDY/study.yaml            settings
    STUDY/feedback.sqlite       judgements (never removed by any stage)
    STUDY/pictures/             pictures that people brought, where they did
    STUDY/<stage>/              what a stage made; manifest.json once it is whole, partial.json while it is not
    STUDY/report.html, metrics.json

A stage's key is the hash of its settings, the study's seed, model and concept, and the keys and outputs of the stages
it reads. A manifest with that key means done; anything else means to be done, or done again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from hfi.config import StudyConfig, dump_config, load_config
from hfi.errors import HFIError, disk_errors

STAGES = ("generate", "label", "reward", "invert", "erase", "evaluate", "report")
READS = {
    "generate": (),
    "label": ("generate",),
    "reward": ("generate", "label"),
    "invert": ("generate", "reward"),
    "erase": ("generate", "reward", "invert"),
    "evaluate": ("generate", "reward", "invert", "erase"),
    "report": ("generate", "label", "reward", "invert", "erase", "evaluate"),
}
PACKAGES = ("hfi", "torch", "diffusers", "transformers", "numpy", "safetensors", "pillow", "SQLAlchemy", "pydantic")


def digest(data: object) -> str:
    """SHA-256 (hex) of plain data as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A stream for a file that is there whole or not at all: a reader never sees half of it, also after kill -9 or on a full disk."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as stream:
        stream.write(data)


def write_json(path: Path, data: object) -> None:
    """Write plain data as indented JSON, atomically."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n").encode())


def read_json(path: Path) -> object:
    """Read JSON; raises HFIError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HFIError("missing", file=path, remedy="run 'hfi run' on the study to make it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise HFIError("half-written or damaged", file=path, remedy="delete it and run 'hfi run' on the study again") from None


def write_tensors(path: Path, tensors: dict, header: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, with a text header; streams, so what fits into memory once can be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            save_file(plain, temporary, metadata=header or None)
            _sort_header(Path(temporary))
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except SafetensorError as error:  # it hides the system's own error in its text
            Path(temporary).unlink(missing_ok=True)
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _sort_header(path: Path) -> None:
    """Put the text header in order in place: the library's order changes from run to run, and equal tensors must be equal files."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # the same characters in another order
            stream.seek(8)
            stream.write(text + b" " * (length - len(text)))
        stream.flush()
        os.fsync(stream.fileno())


def read_tensors(path: Path) -> dict:
    """Read safetensors onto the CPU; raises HFIError when the file is missing, truncated or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise HFIError("missing", file=path, remedy="run 'hfi run' on the study to make it again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise HFIError(f"not a whole safetensors file ({str(error)[:80]})", file=path, remedy="delete it and run the stage again") from None


def read_header(path: Path) -> dict[str, str]:
    """The text header of a safetensors file that `read_tensors` has read."""
    with path.open("rb") as stream:
        return json.loads(stream.read(int.from_bytes(stream.read(8), "little"))).get("__metadata__", {})


@dataclass
class StageRun:
    """A stage at work: its folder, its seed, and what will stand in its manifest."""

    name: str
    folder: Path
    key: str
    seed: int
    facts: dict = field(default_factory=dict)
    resumed_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    @property
    def seconds(self) -> float:
        """Seconds of work so far, earlier interrupted runs included up to their last checkpoint."""
        return self.resumed_seconds + time.perf_counter() - self.started

    def checkpoint(self) -> None:
        """Note the seconds spent, so that a resumed stage still reports its whole cost."""
        write_json(self.path("partial.json"), {"key": self.key, "seconds": self.seconds})


class Workspace:
    """One study's folder."""

    def __init__(self, root: Path, config: StudyConfig):
        self.root, self.config = Path(root), config

    @classmethod
    def create(cls, root: str | Path, config: StudyConfig) -> Workspace:
        """Make a study folder; raises HFIError when one with other settings is there already."""
        root = Path(root)
        if (root / "study.yaml").exists() and load_config(root / "study.yaml") != config:
            raise HFIError(
                "a study with other settings is there already", file=root / "study.yaml", remedy="edit that file, or choose another folder"
            )
        if root.exists() and not root.is_dir():
            raise HFIError("is a file, not a folder", file=root, remedy="choose another folder")
        workspace = cls(root, config)
        workspace.save_config()
        return workspace

    @classmethod
    def open(cls, root: str | Path) -> Workspace:
        """Open a study folder; raises HFIError when there is none."""
        root = Path(root)
        if not (root / "study.yaml").is_file():
            raise HFIError("no study here (study.yaml is missing)", file=root, remedy=f"make one with 'hfi init {root}'")
        return cls(root, load_config(root / "study.yaml"))

    def save_config(self) -> None:
        write_bytes(self.root / "study.yaml", dump_config(self.config).encode())

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    @property
    def store_path(self) -> Path:
        return self.root / "feedback.sqlite"

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the study: a second process gets an HFIError instead of spoiling the first one's work, or waits for its turn.

        Args:
            waiting: is told for whom it waits; None: it does not wait.
        """
        import fcntl

        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("a+")
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                other = f"another process ({handle.read().strip() or 'unknown'})"
                if waiting is None:
                    remedy = "wait until it is done or stop it"
                    raise HFIError(f"{other} is at work on this study", file=self.root, remedy=remedy) from None
                waiting(f"{self.root}: waiting for {other}, which is at work on this study")
                fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0)
            handle.truncate()
            handle.write(f"pid {os.getpid()}")
            handle.flush()
            yield
        finally:
            handle.close()

    def manifest(self, stage: str) -> dict | None:
        """The stage's manifest, or None when it has not been finished."""
        path = self.path(stage, "manifest.json")
        return read_json(path) if path.exists() else None  # type: ignore[return-value]

    def key(self, stage: str) -> str:
        """What the stage's outputs depend on, as one hash."""
        from hfi.diffusion.identity import model_hash

        common = {
            "seed": self.config.seed,
            "model": model_hash(self.config.model),
            "dtype": self.config.dtype,
            "concept": self.config.concept.model_dump(mode="json"),
        }
        if self.config.configs:  # they say what a single file's weights mean
            common["configs"] = self.config.configs
        if files := self.files():
            common["files"] = files
        upstream = {}
        for name in READS[stage]:
            manifest = self.manifest(name)
            upstream[name] = None if manifest is None else [manifest["key"], manifest["digest"]]
        if stage == "erase" and self.config.erase.also:  # they have tokens and pictures in the run
            upstream["also"] = self.also_reads()
        if stage == "erase" and self.config.erase.method == "hardened":  # its rounds are judged on pictures drawn so
            upstream["rounds"] = [self.config.evaluate.drawn_with, self.config.label.simulated_judge]
        brought = self.path("pictures", "images.jsonl")  # pictures that people brought: hfi.generation.brought
        if stage == "generate" and brought.exists():
            upstream["pictures"] = file_hash(brought)
        return digest({"stage": stage, **common, "settings": getattr(self.config, stage).decisive(), "reads": upstream})

    def files(self) -> dict[str, str]:
        """What the files that the concept names hold: {"prompts" or "vocabulary": hash}; those that are not there are left out."""
        named = {name: getattr(self.config.concept, name) for name in ("prompts", "vocabulary")}
        return {name: file_hash(Path(file)) for name, file in named.items() if file and Path(file).is_file()}

    def also_reads(self) -> list:
        """What an erasure reads of the other studies of the run (`erase.also`): key and digest of each finished stage."""
        manifests = [Workspace(Path(root), self.config).manifest(name) for root in self.config.erase.also for name in READS["erase"]]
        return [None if manifest is None else [manifest["key"], manifest["digest"]] for manifest in manifests]

    def is_done(self, stage: str) -> bool:
        """Whether the stage and all that it reads are finished under the present settings."""
        manifest = self.manifest(stage)
        return manifest is not None and all(self.is_done(name) for name in READS[stage]) and manifest["key"] == self.key(stage)

    def require(self, stage: str) -> None:
        """Raise HFIError unless everything the stage reads is there."""
        for name in READS[stage]:
            if not self.is_done(name):
                raise HFIError(
                    f"'{stage}' needs '{name}', which is not done under the present settings",
                    file=self.root,
                    remedy=f"run 'hfi {name} {self.root}' first, or 'hfi run {self.root}' for all of them",
                )

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageRun]:
        """Work on a stage: puts aside what other settings left, and seals the folder with a manifest at the end.

        Partial work under the same key is kept, so that the stage can continue from its own checkpoints. What was put aside is cleared
        when the stage ends, done or begun; where nothing was begun, for an encoder cannot be loaded say, it is put back.
        """
        self.require(name)
        folder, key, resumed = self.path(name), self.key(name), 0.0
        partial, aside = folder / "partial.json", self.path(f".{name}-before")
        if aside.exists():  # of a run that was killed
            shutil.rmtree(aside)
        if folder.exists():
            found = read_json(partial) if partial.exists() else None
            if isinstance(found, dict) and found.get("key") == key:
                resumed = float(found.get("seconds", 0.0))
            else:
                folder.rename(aside)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        run = StageRun(name, folder, key, self.config.seed, resumed_seconds=resumed)
        run.checkpoint()
        reset_peak_memory()
        try:
            yield run
        except BaseException:
            if [path.name for path in folder.iterdir()] == ["partial.json"]:
                shutil.rmtree(folder)
                if aside.exists():
                    aside.rename(folder)
            raise
        finally:
            if aside.exists():
                shutil.rmtree(aside)
        outputs = {
            str(path.relative_to(folder)): file_hash(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in {"partial.json", "manifest.json"} and not path.name.startswith(".")
        }
        write_json(
            folder / "manifest.json",
            {
                "stage": name,
                "key": key,
                "digest": digest(outputs),
                "seed": run.seed,
                "settings": getattr(self.config, name).model_dump(mode="json"),
                "facts": run.facts,
                "seconds": round(run.seconds, 2),
                "peak_memory_mib": round(peak_memory_mib(), 1),
                "versions": versions(),
                "outputs": outputs,
            },
        )
        partial.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that numbers depend on.

    Where torch is loaded also which CPU kernels it takes, and whether bfloat16 is fast there, so that `dtype: auto` takes it: sums differ
    in their last digits, and training carries that on.
    """
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if torch := _torch():
        kernels = torch.backends.cpu.get_cpu_capability()
        fast = kernels not in ("DEFAULT", "AVX2") and torch.cpu._is_avx512_bf16_supported()  # as diffusion's pick_dtype
        found["cpu kernels"] = kernels + (" with bfloat16" if fast else "")
    return found


def reset_peak_memory() -> None:
    """Let the next `peak_memory_mib` count from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (torch := _torch()) and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mib() -> float:
    """Peak of this process since the stage began (Linux), plus the accelerator's."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        peak = int(line.split()[1]) / 1024
    if (torch := _torch()) and torch.cuda.is_available():
        peak += torch.cuda.max_memory_allocated() / 2**20
    return peak


def _torch():
    import sys

    return sys.modules.get("torch")
