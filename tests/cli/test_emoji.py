"""The embedded model through the real command line: a short study, and the whole demo (slow)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from driver import STAGES, run_hfi

ROOT = Path(__file__).parents[2]
SHORT = ["generate.images=48", "generate.near_words=0", "generate.steps=4", "reward.minimum_auc=0", "reward.steps=100", "reward.top_k=8",
         "reward.clusters=2", "invert.steps=4", "erase.steps=4", "erase.replay_runs=4", "erase.sampling_steps=4", "evaluate.steps=4",
         "evaluate.prompts_per_set=8", "evaluate.retention_prompts=8", "evaluate.reinversions=1", "evaluate.reinversion_steps=2",
         "evaluate.bootstrap=50"]


def test_a_short_study_on_the_emoji_model(tmp_path):
    """Every stage runs for real on the shipped weights; simulated annotators are named as such."""
    changes = [word for setting in SHORT for word in ("--set", setting)]
    done = run_hfi("run", ROOT / "recipes" / "demo.yaml", "--study", "short", *changes, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "SIMULATED annotators" in done.out and "report: short/report.html" in done.out
    metrics = json.loads((tmp_path / "short" / "metrics.json").read_text())
    assert metrics["simulated"] is True and metrics["annotators_simulated"] is True
    assert "simulated" in run_hfi("status", "short", cwd=tmp_path).out


@pytest.mark.slow
def test_the_demo_from_an_empty_study(tmp_path):
    """What `make demo` promises: the concept goes, the rest stays, and the table adds up to the time it took."""
    began = time.perf_counter()
    done = run_hfi("run", ROOT / "recipes" / "demo.yaml", "--study", "demo", cwd=tmp_path, timeout=3000)
    wall = time.perf_counter() - began
    assert done.code == 0, done.err
    study = tmp_path / "demo"
    metrics = json.loads((study / "metrics.json").read_text())
    rates, kept = metrics["concept_rate"], metrics["retention"]
    # far from the bars (docs/results.md has the figures): these only tell a broken loop from a working one
    assert rates["explicit"]["before"]["value"] >= 0.75 and rates["explicit"]["after"]["value"] <= 0.15
    assert kept["other"]["value"] >= 0.88
    assert metrics["neither"]["after"] - metrics["neither"]["before"] <= 0.1
    seconds = sum(json.loads((study / stage / "manifest.json").read_text())["seconds"] for stage in STAGES)
    assert seconds <= wall <= seconds + max(60, 0.25 * seconds)
    assert all(value < 4096 for value in metrics["peak_memory_mib"].values())
    assert (study / "report.html").stat().st_size > 10_000
