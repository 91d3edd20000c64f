"""Arrows run down: who may import whom, read from the source by ast."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "hfi"
SHARED = {"errors", "seeds", "progress", "config", "workspace", "diffusion", "emoji", "perception"}
ORDER = ["generation", "feedback", "reward", "inversion", "attacks", "erasure", "evaluation", "report", "compare", "export", "method",
         "cli"]
KNOWS_LIBRARIES = {"diffusion", "perception", "emoji"}  # the only rooms that may import diffusers or transformers
NO_PERCEPTION = {"inversion", "erasure", "attacks"}  # they see the model through hfi.diffusion alone
WITHIN_SHARED = {  # the shared rooms, lowest first: what each may import of the others
    "errors": set(), "seeds": set(), "progress": set(), "config": {"errors"}, "emoji": {"errors"},
    "diffusion": {"errors", "seeds", "config", "progress", "emoji"},
    "workspace": {"errors", "config", "diffusion"},
    "perception": {"errors", "seeds", "config", "progress", "emoji", "diffusion", "workspace"},
}
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "markupsafe": "jinja2", "markdown_it": "markdown-it-py", "starlette": "fastapi"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import of a file, those inside functions and under TYPE_CHECKING included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ("hfi", *path.relative_to(PACKAGE).with_suffix("").parts)[: -node.level]
                found.append((node.lineno, ".".join([*base, *([node.module] if node.module else [])])))
            else:
                found += [(node.lineno, f"{node.module}.{alias.name}" if node.module == "hfi" else node.module or "")
                          for alias in node.names]
    return found


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def rooms_of(path: Path) -> list[tuple[int, str]]:
    return [(line, name.split(".")[1]) for line, name in imports(path) if name.startswith("hfi.")]


def test_every_room_is_known():
    """A new folder must be given its place in the order here."""
    assert {room(path) for path in sources()} - {"__init__"} <= SHARED | set(ORDER)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_runs_back(path):
    here = room(path)
    wrong = []
    for line, there in rooms_of(path):
        if there == here:
            continue
        if here in SHARED:
            allowed = there in WITHIN_SHARED[here]
        elif here == "cli":
            allowed = True
        elif here in ORDER:
            allowed = there in SHARED or (there in ORDER and ORDER.index(there) < ORDER.index(here))
        else:
            allowed = here == "__init__"
        if allowed and here in NO_PERCEPTION and there == "perception":
            allowed = False
        if not allowed:
            wrong.append(f"line {line}: {here} imports {there}")
    assert not wrong


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_doors_know_diffusers_and_transformers(path):
    libraries = [f"line {line}: {name}" for line, name in imports(path) if name.split(".")[0] in {"diffusers", "transformers"}]
    assert not libraries or room(path) in KNOWS_LIBRARIES


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_pickled(path):
    text = path.read_text(encoding="utf-8")
    assert not [name for _, name in imports(path) if name.split(".")[0] in {"pickle", "joblib", "dill"}]
    assert not re.search(r"torch\.(save|load)\(|allow_pickle=True", text)


def test_every_library_that_is_imported_is_a_dependency():
    """Or, where a function imports it when it is called, of the extra "measures"."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*settings["dependencies"], *settings["optional-dependencies"]["measures"]]
    declared = {re.split(r"[ <>=!~\[;]", line)[0].lower().replace("-", "_") for line in lines}
    used = {name.split(".")[0] for path in sources() for _, name in imports(path)} - set(sys.stdlib_module_names) - {"hfi", "__future__"}
    assert {DISTRIBUTION.get(name, name).lower().replace("-", "_") for name in used} <= declared


@pytest.mark.parametrize("command", [
    ["--help"], ["label", "--help"], ["run", "--help"], ["models"], ["status", "STUDY"],
    ["init", "STUDY2", "--concept", "weapon", "--dry-run"], ["run", "STUDY", "--dry-run"],
    ["measure", "--help"], ["measure", "STUDY", "--with", "kid", "--dry-run"],
    ["check", "--help"], ["push", "--help"], ["export", "STUDY", "--to", "all", "--dry-run"],
], ids=" ".join)
def test_starts_without_torch(command, tmp_path, monkeypatch):
    """Help, status and dry runs answer at once: none of them imports torch."""
    from hfi.config import StudyConfig
    from hfi.workspace import Workspace

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"]}))
    config = StudyConfig(model=str(tmp_path / "model"))
    Workspace.create(tmp_path / "STUDY", config)
    if command[0] == "init":
        command = [*command, "--model", str(tmp_path / "model")]
    code = ("import sys; from hfi.cli.app import call; code = call(sys.argv[1:]); "
            "sys.exit(code or 'torch was imported' if 'torch' in sys.modules else code)")
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_feedback_store_needs_no_torch():
    code = "import sys, hfi.feedback.store, hfi.feedback.interchange; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
