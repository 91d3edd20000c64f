"""HFI under the real eval-unlearn package (pip install 'hfi[eval-unlearn]'): found by its entry point, run by its runner."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from hfi.errors import HFIError
from hfi.export.eval_unlearn import HFITechnique

ROOT = Path(__file__).parents[3]
GROUP = "eval_unlearn.techniques"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The real package, with hfi's entry point as an installation writes it from pyproject.toml."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    info = tmp_path / "installed" / "hfi_plugin-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hfi-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.chdir(tmp_path)
    from eval_unlearn.registry import entrypoints

    entrypoints.load_entrypoints()


def pixels(pictures) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_it_is_found_and_draws_what_their_free_run_draws_from_our_folder(package, exported, study, pipeline_folder):
    """The technique `hfi` on the original with our delta, and `free_run` on our exported pipeline: equal pictures."""
    from eval_unlearn.registry import get_technique

    assert get_technique("hfi") is HFITechnique
    settings = {"device": "cpu", "num_inference_steps": 2, "guidance_scale": 2.0}
    ours = get_technique("hfi")(model_id=str(pipeline_folder), deltas=str(exported.folder / "hfi-sharp-delta.safetensors"), **settings)
    theirs = get_technique("free_run")(model_id=str(exported.folder / "diffusers"), **settings)
    original = get_technique("free_run")(model_id=str(pipeline_folder), **settings)
    prompts = ["a knife", "a cat"]
    assert pixels(ours.generate(prompts, seed=4)) == pixels(theirs.generate(prompts, seed=4))
    assert pixels(ours.generate(prompts, seed=4)) != pixels(original.generate(prompts, seed=4))


def test_their_runner_runs_it(package, exported, pipeline_folder, tmp_path):
    """One technique, one metric, their runner: a report and pictures on disk."""
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners import SingleBenchmarkRunner
    from eval_unlearn.types import Dataset, MetricResult

    @register_metric("brightness")
    class Brightness:
        def __init__(self, **settings):
            self.values = []

        def load_dataset(self):
            return [Dataset(["a knife", "a cat"], {"source": "two prompts"})]

        def update(self, images, prompts, metadata):
            self.values += [sum(image.convert("L").tobytes()) for image in images]

        def compute(self):
            return MetricResult("brightness", sum(self.values) / len(self.values), {"n": len(self.values)})

    settings = {"model_id": str(pipeline_folder), "deltas": [str(exported.folder / "hfi-sharp-delta.safetensors")], "strengths": [1.0],
                "device": "cpu", "num_inference_steps": 2, "erase_concept": "sharp"}
    report = SingleBenchmarkRunner("hfi", "brightness", settings, output_dir=str(tmp_path / "results"), seed=1).run()
    assert report["metric_result"]["details"]["n"] == 2 and report["erase_concept"] == "sharp"
    assert len(list((tmp_path / "results").rglob("*.png"))) == 2


def test_without_the_package_nothing_of_it_is_needed(pipeline_folder):
    technique = HFITechnique(model_id=str(pipeline_folder), device="cpu", num_inference_steps=1)
    assert len(technique.generate(["x"])) == 1
    assert "hfi.export.eval_unlearn" in sys.modules
    with pytest.raises(HFIError, match="stepps: no such setting"):
        HFITechnique(model_id=str(pipeline_folder), stepps=3)
