"""`hfi doctor`: is everything there, and how fast is this machine with this model."""

from __future__ import annotations

from typing import Annotated

import typer

from hfi.cli.options import Debug, Json

EPILOG = """Examples:

hfi doctor

hfi doctor CompVis/stable-diffusion-v1-4 --device cuda

hfi doctor studies/mine

Takes seconds on the embedded model. What it measures stays in the user's cache folder (HFI_CACHE); 'hfi run STUDY --dry-run' then
tells the time of a study on that model."""


def doctor(
    target: Annotated[str, typer.Argument(metavar="MODEL|STUDY", help="A model as in study.yaml, or a study, whose model, device and "
                                          "dtype are then taken.")] = "emoji",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    json: Json = False, debug: Debug = False,
) -> None:
    """Load a model, time the passes that stages are made of, and keep the times for dry runs."""
    from pathlib import Path

    from hfi.cli.env import gather
    from hfi.cli.estimate import calibration_key, keep_calibration
    from hfi.cli.studies import known_model
    from hfi.config import StudyConfig, load_config, parse_config
    from hfi.diffusion.calibration import calibrate
    from hfi.diffusion.model import study_model

    if (Path(target) / "study.yaml").is_file():
        config = load_config(Path(target) / "study.yaml")
    else:
        known_model(target, "MODEL|STUDY")
        config = parse_config({**StudyConfig().model_dump(mode="json"), "model": target, "device": device, "dtype": dtype}, "command line")
    model = study_model(config)
    passes = calibrate(model)
    found = {"model": config.model, "family": model.family, "device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."),
             "versions": gather()["versions"], "passes": passes}
    path = keep_calibration(calibration_key(config.model, config.device, config.dtype), found)
    if json:
        import json as encoder

        print(encoder.dumps({**found, "file": str(path)}, indent=1))
        return
    from hfi.cli.tables import show_calibration

    show_calibration(found, str(path))
