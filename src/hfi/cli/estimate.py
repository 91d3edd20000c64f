"""Seconds and memory of a study's stages from what `hfi doctor` measured on this machine. Imports no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hfi.config import StudyConfig
from hfi.diffusion.identity import model_hash
from hfi.diffusion.sizes import sizes
from hfi.errors import HFIError

PROBES, LOG_EVERY = 16, 25  # of the erasure's log (hfi.erasure)
STATES, SCANNED = 4, 1500  # passes a word and words, at most, of the search for near words (hfi.generation.near)
PASSES = {"forward", "erase", "invert", "text", "decode"}  # that `hfi doctor` measures (hfi.diffusion.calibration)
TEMPLATES, PREVIEWS = 4, 6  # of inversion: texts of a token in each step, pictures that show what it draws (hfi.inversion)
RATE_SETS, RETENTION_SETS = 3, 2  # explicit, implicit, variations; others, neighbours (styles are read off pictures of the others)
ALSO_SETS = 2  # of each other concept of the run


def calibration_file() -> Path:
    """Where `hfi doctor` keeps its measurements: in the user's cache folder, or under HFI_CACHE."""
    home = os.environ.get("HFI_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hfi"
    return Path(home) / "calibration.json"


def calibration_key(model: str, device: str, dtype: str) -> str:
    """What a measurement holds for: the model's weights, the device and the arithmetic, as settings name them."""
    return f"{model_hash(model)[:16]} {device} {dtype}"


def read_calibration(config: StudyConfig) -> dict | None:
    """What was measured for this model, device and dtype; None where nothing was, or the file is damaged or of another version."""
    try:
        found = json.loads(calibration_file().read_text())[calibration_key(config.model, config.device, config.dtype)]
        passes = {kind: {int(batch): float(seconds) for batch, seconds in rows.items()} for kind, rows in found["passes"].items()}
        return passes if passes.keys() >= PASSES else None  # an earlier version measured fewer kinds
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def seconds_of(times: dict[int, float], batch: float) -> float:
    """Seconds of a pass at a batch: straight lines between what was measured, and the last slope beyond."""
    known = sorted(times)
    if batch <= known[0] or len(known) == 1:
        return times[known[0]] * batch / known[0] if batch > known[0] else times[known[0]]
    for low, high in zip(known, known[1:], strict=False):
        if batch <= high or high == known[-1]:
            share = (batch - low) / (high - low)
            return times[low] + share * (times[high] - times[low])
    raise AssertionError("unreachable")


def estimate(config: StudyConfig, times: dict) -> dict[str, float]:
    """Seconds of the stages that a model's passes make up: generate, invert, erase, evaluate."""
    g, i, e, v = config.generate, config.invert, config.erase, config.evaluate
    forward = lambda batch: seconds_of(times["forward"], batch)  # noqa: E731

    def drawn(pictures: int, batch: int, steps: int, guidance: float) -> float:
        whole, rest = divmod(pictures, batch)
        passes = 1 if guidance == 1 else 2
        one = lambda size: steps * forward(passes * size) + seconds_of(times["decode"], size)  # noqa: E731
        return whole * one(batch) + (one(rest) if rest else 0.0)

    def learned(tokens: int, steps: int) -> float:
        groups = [min(i.together, tokens - k) for k in range(0, tokens, i.together)]
        return steps * sum(seconds_of(times["invert"], i.batch_size * n) + seconds_of(times["text"], TEMPLATES * n) for n in groups)

    size, kept = e.batch_size, bool(e.preservation)
    ours = e.method in ("sdd", "hardened")
    frozen = kept + 2 * (ours and e.negative_guidance > 0)  # what the original weights predict, in one pass
    own = 2 if ours and e.pag_scale else 1  # with and without self-attention
    step = seconds_of(times["erase"], 2 * size if kept else size) + forward(own * size) + (forward(frozen * size) if frozen else 0.0)
    run = {"teacher": e.sampling_steps * forward(2 * size) / 2, "replay": size * forward(2 * e.replay_runs) / e.replay_runs, "forward": 0.0}
    run["mix"] = e.mix_share * run["replay"]
    step += kept * e.preservation_runs * run["replay"]
    probes = 2 * forward(PROBES) / LOG_EVERY
    tokens = config.reward.clusters if i.tokens == "per_cluster" else 1
    pictures = 2 * evaluated(config) + 2 * v.curve_prompts * len(e.snapshot_steps())
    return {
        "generate": drawn(pictures_to_judge(config), g.batch_size, g.steps, g.guidance_scale)
        + (STATES * SCANNED / g.batch_size * forward(g.batch_size) if pictures_to_judge(config) > g.images else 0.0),
        "invert": learned(tokens, i.steps) + tokens * drawn(PREVIEWS, PREVIEWS, g.steps, g.guidance_scale),
        "erase": e.steps * (e.accumulate * (step + run[e.latents]) + probes),
        "evaluate": drawn(pictures, v.batch_size, v.steps, v.guidance_scale) + learned(v.reinversions, v.reinversion_steps),
    }


def pictures_to_judge(config: StudyConfig) -> int:
    """Pictures that the first stage draws."""
    return config.generate.images + (config.generate.near_words if config.concept.kind == "harm" else 0)


def evaluated(config: StudyConfig) -> int:
    """About how many pictures evaluation draws of one model."""
    v = config.evaluate
    return (RATE_SETS + ALSO_SETS * len(config.erase.also)) * v.prompts_per_set + v.token_pictures + RETENTION_SETS * v.retention_prompts


def memory_mib(config: StudyConfig) -> dict[str, float] | None:
    """What must fit beside activations while erasing: weights, masters, gradients, Adam's moments and the average; None where not known."""
    found = sizes(config.model)
    if found is None:
        return None
    network = "transformer" if "transformer" in found["parameters"] else "unet"
    frozen = found["parameters"][network] - found["learns"]
    waiting = sum(count for part, count in found["parameters"].items() if part != network)
    learns = found["learns"]
    if config.erase.trainable == "lora":  # A and B of an n x m matrix hold r (n + m) numbers; matrices here are near square
        frozen, learns = found["parameters"][network], round(found["learns"] * min(1.0, 2 * config.erase.lora_rank / found["token_width"]))
    if config.erase.method == "hardened" and config.erase.hardened.layers != "cross_attention":  # after its first round
        frozen, learns = 0, found["parameters"][network]
    half = 2.0 if config.memory.weights == "bfloat16" else 4.0
    parts = {
        "weights": frozen * half + (0.0 if config.memory.offload else waiting * 4.0),
        "learning": learns * 4.0 * 6,  # original, student, gradient, two moments, average
    }
    return {name: size / 2**20 for name, size in parts.items()}


def keep_calibration(key: str, found: dict) -> Path:
    """Write a measurement beside those of other models and devices; returns the file."""
    from hfi.workspace import write_json

    path = calibration_file()
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    try:
        write_json(path, {**(known if isinstance(known, dict) else {}), key: found})
    except HFIError as error:
        raise HFIError("cannot be written", file=path, remedy="set HFI_CACHE to a folder that can be") from error
    return path
