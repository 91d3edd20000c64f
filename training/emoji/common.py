"""What every training here shares: arguments, seeds, a resumable run, grids."""

import hashlib
import io
import json
import math
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image

from . import data

SEED = 20261121
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def generator(name: str, step: int) -> torch.Generator:
    """Random numbers that depend on (name, step) only, so that a resumed run needs no stored state."""
    mine = f"/{RANK}" if RANK else ""
    digest = hashlib.sha256(f"{SEED}/{name}/{step}{mine}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def add_arguments(parser, minutes: float, batch: int, learning_rate: float) -> None:
    parser.add_argument("--minutes", type=float, default=minutes, help="time budget; the learning rate falls to zero at its end")
    parser.add_argument("--steps", type=int, default=0, help="a budget of steps in place of time: the same result on a busy machine")
    parser.add_argument("--runs", type=Path, default=data.RUNS, help="folder of this training's results")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all)")


def add_exclusion(parser) -> None:
    parser.add_argument("--exclude", nargs="*", default=[], help="concepts and styles that the model is never to learn (exclude.py)")


def setup(args) -> str:
    """Threads and device type; under torchrun, one of several processes that share each batch.

    On a small CPU machine two processes of one thread each beat one process of two threads
    (fewer barriers): `torchrun --nproc-per-node 2 -m training.emoji.train_unet --threads 1`.
    """
    if WORLD > 1:
        dist.init_process_group("gloo")
        args.batch //= WORLD
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    return args.device


def wait_for_others() -> None:
    """A meeting point of all processes (nothing to do for one)."""
    if WORLD > 1:
        dist.barrier()


def save_grid(path: Path, pictures: torch.Tensor, columns: int) -> None:
    """(N, 3, H, W) in [0, 1] -> one PNG."""
    pictures = (pictures.detach().float().cpu().clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    height, width = pictures.shape[1:3]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture.numpy()), (i % columns * width, i // columns * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    data.write_atomically(path, buffer.getvalue())


class Run:
    """One training: warm-up and cosine decay over a time budget, checkpoints, log.

    The learning rate is a function of the time spent (kept in the checkpoint), so that a run on
    any machine ends fully decayed; with `args.steps`, of the steps done: a resumed run then equals
    an uninterrupted one. `models` are saved under their names every four minutes, with
    the optimiser; `torch.load(weights_only=True)` reads them back.

    With several processes, gradients are averaged at each step if `together` is 1; else each
    process steps alone and the weights are averaged every `together` steps (local SGD, Stich
    2019): on cores shared with other work nobody waits for the slower one at every step.
    """

    def __init__(
        self, name: str, args, models: dict, optimiser: torch.optim.Optimizer, warmup: int = 100, clip: float = 1.0, together: int = 1
    ):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.folder = args.runs / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.args, self.models, self.optimiser, self.warmup, self.clip, self.together = args, models, optimiser, warmup, clip, together
        self.step, self.spent, self.sums, self.count = 0, 0.0, {}, 0
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            stored = torch.load(self.checkpoint, map_location=args.device, weights_only=True)
            for key, model in models.items():
                model.load_state_dict(stored[key])
            optimiser.load_state_dict(stored["optimiser"])
            self.step, self.spent = stored["step"], stored["spent"]
        self.stop = False
        signal.signal(signal.SIGTERM, self.ask_to_stop)
        self.last = self.saved = self.reported = time.monotonic()
        self.progress = Progress(TextColumn(name), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
        self.task = self.progress.add_task(name, total=1.0, text="")
        if RANK == 0:
            self.progress.start()

    def ask_to_stop(self, *_) -> None:
        """SIGTERM: finish the step, write a checkpoint, leave."""
        self.stop = True

    def rate(self) -> float:
        """Learning rate now."""
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done()))
        return self.args.learning_rate * min(1.0, (self.step + 1) / self.warmup) * decay

    def done(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        share = self.step / self.args.steps if self.args.steps else self.spent / (self.args.minutes * 60)
        return min(1.0, share)

    def going(self) -> bool:
        """True while there is time; the place where checkpoints are written."""
        now = time.monotonic()
        self.spent += now - self.last
        self.last = now
        if self.step % self.together and self.step != self.args.steps:
            return True
        if WORLD > 1:  # the first process keeps the time for all
            shared = torch.tensor([self.spent, self.stop], dtype=torch.float64)
            dist.broadcast(shared, 0)
            self.spent, self.stop = float(shared[0]), bool(shared[1])
        over = self.done() >= 1
        if RANK == 0 and (over or self.stop or now - self.saved > 240):
            self.save()
            self.saved = now
        if over or self.stop:
            self.progress.stop()
        if self.stop:
            raise SystemExit("stopped: the same command goes on from here")
        return not over

    def update(self, loss: torch.Tensor, **values: float) -> None:
        """One optimiser step; a step whose gradient is not finite is left out."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        if WORLD > 1 and self.together == 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([g.reshape(-1) for g in gradients])
            dist.all_reduce(flat)
            flat /= WORLD
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        if WORLD > 1 and self.together > 1 and self.step % self.together == 0:
            with torch.no_grad():
                flat = torch.cat([p.reshape(-1) for p in parameters])
                dist.all_reduce(flat)
                flat /= WORLD
                for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                    parameter.copy_(part.view_as(parameter))
        for key, value in {"loss": float(loss.detach()), **values}.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        self.progress.update(self.task, completed=self.done(), text=f"step {self.step} loss {float(loss.detach()):.4f}")

    def report_due(self, seconds: float = 120) -> bool:
        now = time.monotonic()
        if RANK or now - self.reported < seconds:
            return False
        self.reported = now
        return True

    def note(self, **values) -> None:
        """One line of JSON in runs/NAME/log.jsonl: means since the last line, and `values`."""
        row = {
            "step": self.step,
            "minutes": round(self.spent / 60, 2),
            **{k: round(v / self.count, 5) for k, v in self.sums.items()},
            **values,
        }
        self.sums, self.count = {}, 0
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save(self) -> None:
        state = {key: model.state_dict() for key, model in self.models.items()}
        state |= {"optimiser": self.optimiser.state_dict(), "step": self.step, "spent": self.spent}
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
