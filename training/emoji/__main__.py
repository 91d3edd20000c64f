"""The whole training in one resumable command: `make emoji-model`, or

    python -m training.emoji [--device cuda] [--scale 1.0]

Each stage runs as a process of its own and is skipped if its result is there; a stage that was
stopped goes on from its last checkpoint (at most four minutes lost). On two CPU cores the
stages share them as two processes of one thread each. Logs and grids: training/emoji/runs/.
"""

import argparse
import os
import signal
import subprocess
import sys

from . import data

#: stage -> (module, minutes on two CPU cores, its result under runs/, may it run as two processes)
STAGES = {
    "data": ("data", None, "data/pictures.npy", False),
    "clip": ("train_clip", 12, "clip/model/model.safetensors", False),
    "vae": ("train_vae", 22, "vae/model/diffusion_pytorch_model.safetensors", True),
    "decoder": ("train_vae", 6, "decoder/done", True),
    "unet": ("train_unet", 120, "unet/model/diffusion_pytorch_model.safetensors", True),
    "annotator": ("train_judges", 12, "judge-annotator/model.safetensors", False),
    "scorer": ("train_judges", 45, "judge-scorer/model.safetensors", False),
    "folds": ("train_judges", 1.2, "judges-folds.json", False),
}
#: the C library keeps freed memory instead of giving it back to the system after each step: steps about 15 % faster
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def command(stage: str, device: str, scale: float) -> list[str]:
    """What to run for one stage."""
    module, minutes, _, parallel = STAGES[stage]
    two = parallel and device == "cpu" and (os.cpu_count() or 1) >= 2
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if two else [sys.executable]
    line = [*start, "-m", f"training.emoji.{module}"]
    if minutes is not None:
        line += ["--device", device, "--minutes", str(minutes * scale)] + (["--threads", "1"] if two else [])
    if stage in ("annotator", "scorer"):
        line += ["--name", stage]
    if stage == "decoder":
        line += ["--decoder-only"]
    if stage == "folds":
        line += ["--folds", "3"]
    return line


def run_stage(line: list[str], environment: dict[str, str]) -> None:
    """Run one stage to its end; SIGTERM is handed on to it, and it writes a checkpoint and stops. Raises SystemExit where it fails."""
    with subprocess.Popen(line, env=environment) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
    signal.signal(signal.SIGTERM, before)
    if code:
        raise SystemExit(f"{' '.join(line[1:4])} ended with {code}: the same command goes on from its last checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every stage's minutes (a GPU needs about 0.1)")
    args = parser.parse_args()
    for stage, (_, _, result, _) in STAGES.items():
        if (data.RUNS / result).exists():
            print(f"{stage}: there already")
            continue
        print(f"{stage}: {' '.join(command(stage, args.device, args.scale)[1:])}", flush=True)
        environment = os.environ | ALLOCATOR | ({"OMP_NUM_THREADS": "1"} if args.device == "cpu" and STAGES[stage][3] else {})
        run_stage(command(stage, args.device, args.scale), environment)
    for module in ("pack", "card"):
        subprocess.run([sys.executable, "-m", f"training.emoji.{module}"], check=True)


if __name__ == "__main__":
    main()
