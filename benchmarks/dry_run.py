"""What a dry run would say beside what the stages take: docs/cost.md.

    .venv/bin/python benchmarks/dry_run.py             # a short form of the demo, about two minutes
    .venv/bin/python benchmarks/dry_run.py --whole     # the demo as it is, about eight

Calibrates as `hfi doctor` does, then runs the recipe's stages from nothing in a folder that is removed, and compares seconds. Ends with one
line of JSON: {stage: {"estimated", "measured", "ratio"}, "total": ...}; the total is over the stages that a dry run estimates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from hfi.cli.estimate import estimate
from hfi.config import load_config, with_overrides
from hfi.diffusion.calibration import calibrate
from hfi.diffusion.model import study_model
from hfi.method import run
from hfi.workspace import Workspace

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"
SHORT = {"generate.images": 192, "reward.clusters": 5, "reward.top_k": 48, "invert.steps": 40, "invert.together": 5, "erase.steps": 120,
         "evaluate.prompts_per_set": 48, "evaluate.token_pictures": 24, "evaluate.retention_prompts": 80, "evaluate.reinversion_steps": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--whole", action="store_true", help="the recipe's own sizes")
    options = parser.parse_args()
    config = load_config(options.recipe)
    config = config if options.whole else with_overrides(config, SHORT)
    model, began = study_model(config), time.perf_counter()
    times = calibrate(model)
    print(f"calibrated in {time.perf_counter() - began:.0f} s")
    told = estimate(config, times)
    with tempfile.TemporaryDirectory() as folder:
        study = Workspace.create(Path(folder) / "study", config)
        run(study)
        took = {stage: study.manifest(stage)["seconds"] for stage in told}
    pairs = {**{stage: (told[stage], took[stage]) for stage in told}, "total": (sum(told.values()), sum(took.values()))}
    found = {stage: {"estimated": round(a, 1), "measured": round(b, 1), "ratio": round(a / b, 3)} for stage, (a, b) in pairs.items()}
    print(json.dumps({**found, "dtype": str(model.dtype), "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
