"""The built wheel, installed where nothing of this checkout is, knows its model and draws."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRAW = """
import sys
import numpy, torch
from diffusers import StableDiffusionPipeline
torch.set_num_threads(2)
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])
picture = pipe("a rocket in the style of noto", num_inference_steps=10, generator=torch.Generator().manual_seed(0)).images[0]
assert "hfi" not in sys.modules
pixels = numpy.asarray(picture)
print(pixels.shape, float(pixels.std()))
"""

@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git would hand out."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source],
                   check=True)
    return next(folder.glob("hfi-*.whl"))


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel; the heavy dependencies are those installed here, this checkout is not among them."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel], check=True)
    place = next((venv / "lib").glob("python*/site-packages"))
    (place / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return venv


def ask(fresh: Path, *command: object) -> str:
    done = subprocess.run([fresh / "bin" / command[0], *map(str, command[1:])], cwd=fresh, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("hfi/emoji/model/model_index.json", "hfi/emoji/model/unet/", "hfi/emoji/clip/", "hfi/emoji/judges/",
                 "hfi/emoji/catalogue.json", "hfi/emoji/ATTRIBUTION.md", "hfi/emoji/MODEL_CARD.md",
                 "hfi/report/page.html", "licenses/LICENSE"):
        assert any(part in name for name in names), part
    assert all(name.startswith("hfi") for name in names)
    assert not [name for name in names if name.endswith((".pt", ".bin", ".pkl", ".ckpt", ".pyc"))]
    assert wheel.stat().st_size < 56 * 2**20


def test_it_is_the_installed_package_that_answers(fresh):
    place = ask(fresh, "python", "-c", "import hfi; print(hfi.__file__)").strip()
    assert Path(place).is_relative_to(fresh)


def test_models_knows_the_embedded_model(fresh):
    found = json.loads(ask(fresh, "hfi", "models", "--json"))["embedded"]
    assert found["found"] and Path(found["folder"]).is_relative_to(fresh)


def test_a_study_can_be_planned(fresh):
    assert "z_t from" in ask(fresh, "hfi", "init", "mine", "--concept", "weapon") + ask(fresh, "hfi", "run", "mine", "--dry-run")


def test_diffusers_alone_draws_with_the_shipped_folder(fresh):
    folder = json.loads(ask(fresh, "hfi", "models", "--json"))["embedded"]["folder"]
    shape, spread = ask(fresh, "python", "-c", DRAW, folder).strip().rsplit(" ", 1)
    assert shape == "(64, 64, 3)" and float(spread) > 10
