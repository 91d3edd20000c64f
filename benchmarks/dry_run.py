"""What a dry run would say beside what it takes, on the embedded model: docs/cost.md.

    python benchmarks/dry_run.py [--clock cpu]     # cpu: seconds of this process alone, for a machine that others use

Draws 32 pictures, learns a token for 20 steps and erases for 20 steps, with the batch sizes of the demo.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from hfi.cli.estimate import estimate
from hfi.config import parse_config
from hfi.diffusion import calibration
from hfi.diffusion.model import load_model
from hfi.diffusion.text import encode_prompts, token_width
from hfi.erasure.conditions import build_conditions
from hfi.erasure.sdd import Benign, train_sdd
from hfi.generation.generate import generate
from hfi.inversion.learn import Lesson, fresh_state, initial_rows, learn_tokens
from hfi.workspace import Workspace

SETTINGS = {
    "generate": {"images": 32, "steps": 15, "batch_size": 16, "guidance_scale": 4.0},
    "invert": {"steps": 20, "batch_size": 16},
    "erase": {"steps": 20, "batch_size": 16, "preservation": 1.0, "latents": "replay", "sampling_steps": 15, "replay_runs": 16,
              "snapshots": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    calibration.time.perf_counter = clock
    config = parse_config({**SETTINGS, "dtype": options.dtype, "device": "cpu"}, "benchmark")
    model = load_model(config.model, "cpu", options.dtype)
    began = clock()
    times = calibration.calibrate(model)
    took, told = clock() - began, estimate(config, times)
    found = {"doctor": {"measured": round(took, 1)}}

    def measured(stage: str, run) -> None:
        began = clock()
        run()
        seconds = clock() - began
        found[stage] = {"measured": round(seconds, 2), "estimated": round(told[stage], 2), "ratio": round(told[stage] / seconds, 3)}

    with tempfile.TemporaryDirectory() as folder:
        study = Workspace.create(Path(folder) / "study", config)
        measured("generate", lambda: generate(model, study))
    z_0, c_0 = torch.randn(32, *model.latent_shape), encode_prompts(model, [""])
    i = config.invert
    lesson = Lesson(0, fresh_state(initial_rows(model, 4, "", 0)), z_0, torch.ones(32))
    options_of = {"steps": i.steps, "batch_size": i.batch_size, "learning_rate": 1e-3, "weight_decay": 0.0, "seed": 0, "stage": "cost"}
    measured("invert", lambda: learn_tokens(model, [lesson], **options_of))
    conditions = build_conditions(model, {"<a>": torch.randn(4, token_width(model))}, ("{}",), [], 0.0)
    benign = Benign(z_0, encode_prompts(model, ["a cat"] * 32))
    measured("erase", lambda: train_sdd(model, conditions, c_0, z_0, benign, config.erase, 0))
    about = {"clock": options.clock, "dtype": str(model.dtype), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**about, **found}, indent=1))


if __name__ == "__main__":
    main()
