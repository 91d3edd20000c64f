"""Families x stages: a whole study on a tiny pipeline of every family."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

import tiny_families
from hfi import method
from hfi.config import parse_config
from hfi.diffusion.model import load_model
from hfi.workspace import STAGES, Workspace, read_tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from driver import judge_by_hand  # noqa: E402


@pytest.fixture(scope="module")
def studies(tmp_path_factory, tiny_root):
    """family -> its study, done as far as the stages go, and the stage that failed with its error; each made when first asked for."""
    made: dict[str, tuple[Workspace, dict[str, Exception]]] = {}

    def study(family: str) -> tuple[Workspace, dict[str, Exception]]:
        if family not in made:
            root = tmp_path_factory.mktemp(family)
            settings = tiny_families.study_settings(family, tiny_root)
            made[family] = Workspace.create(root / "study", parse_config(settings, family)), {}
            for stage in STAGES:
                try:
                    if stage == "label":
                        from hfi.feedback.interchange import import_judgements

                        import_judgements(made[family][0], judge_by_hand(root / "study", root / "judgements.jsonl"))
                    method.run(made[family][0], until=stage)
                except Exception as error:
                    made[family][1][stage] = error
                    break
        return made[family]

    return study


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_every_stage_works_on_every_family(studies, family, stage):
    study, failed = studies(family)
    if stage in failed:
        raise failed[stage]
    assert study.is_done(stage)


@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_what_learned_is_what_the_family_says(studies, family):
    """The token has the width of all encoders; the delta moves the weights through which text enters, and no others."""
    study, _ = studies(family)
    model = load_model(study.config.model, "cpu", "float32")
    rows = next(iter(read_tensors(study.path("invert", "sharp.safetensors")).values()))
    columns = {"sd1": 16, "sd2": 16, "sdxl": 32, "sd3": 32 + tiny_families.T5_WIDTH, "flux": 16 + tiny_families.T5_WIDTH}
    assert rows.shape == (2, columns[family]) and torch.isfinite(rows).all()
    delta = read_tensors(study.path("erase", "delta.safetensors"))
    names = (".attn2.",) if family in {"sd1", "sd2", "sdxl"} else (".add_q_proj.", ".add_k_proj.", ".add_v_proj.")
    expected = {name for name, _ in model.network.named_parameters() if any(part in name for part in names)}
    assert set(delta) == expected and expected
    assert sum(float(value.abs().sum()) for value in delta.values()) > 0
    losses = [json.loads(line)["loss"] for line in (study.path("erase", "log.jsonl")).read_text().splitlines()]
    assert losses and all(map(math.isfinite, losses))
