"""`--dry-run`: what would be done, how many pictures and steps, and about how much disk; nothing is written."""

from __future__ import annotations

from hfi.cli.estimate import estimate, evaluated, memory_mib, pictures_to_judge, read_calibration
from hfi.cli.studies import check_settings, states
from hfi.cli.tables import _number, _print, _table
from hfi.config import Erase
from hfi.diffusion.sizes import sizes
from hfi.generation.brought import brought
from hfi.workspace import STAGES, Workspace

PNG_BYTES_PER_PIXEL = 2.0  # upper end of what drawn pictures take


def show_plan(study: Workspace, stages: tuple[str, ...] = STAGES) -> None:
    """Print the table of stages with their state, work and disk; raises HFIError for settings that cannot work."""
    check_settings(study.config)
    rows = plan(study, stages)
    table = _table(f"{study.root}: dry run, nothing is changed", "stage", "now", "would", "MiB on disk", "seconds",
                   right=("MiB on disk", "seconds"))
    for row in rows:
        table.add_row(row["stage"], row["state"], row["work"], _number(row["mib"], 1), _number(row["seconds"], 0))
    todo = [row for row in rows if row["state"] != "done"]
    known = [row["mib"] for row in todo if row["mib"] is not None]
    table.add_row("total", "", f"{len(todo)} of {len(rows)} stages to do" if todo else "nothing to do", _number(sum(known), 1),
                  _number(sum(row["seconds"] or 0.0 for row in rows), 0) if any(row["seconds"] for row in rows) else "-")
    _print(table)
    for line in notes(study):
        print(line)


def plan(study: Workspace, stages: tuple[str, ...] = STAGES) -> list[dict]:
    """One row a stage: {"stage", "state", "work", "mib", "seconds"}; seconds where this machine was calibrated for the model."""
    rows, times = [], read_calibration(study.config)
    seconds = estimate(study.config, times) if times else {}
    if brought(study):
        seconds.pop("generate", None)  # encoding is not estimated
    for stage, state in states(study).items():
        if stage in stages:
            work, size = _work(study, stage)
            rows.append({"stage": stage, "state": state, "work": "nothing" if state == "done" else work,
                         "mib": None if size is None or state == "done" else size / 2**20,
                         "seconds": None if state == "done" else seconds.get(stage)})
    return rows


def notes(study: Workspace) -> list[str]:
    """Lines below the table: parameters, memory while erasing, and what the seconds rest on."""
    config, found = study.config, sizes(study.config.model)
    lines = []
    if found is not None:
        parts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in found["parameters"].items())
        every = config.erase.method == "hardened" and config.erase.hardened.layers != "cross_attention"
        later = f"; {config.erase.hardened.layers} layers after the first round" if every else ""
        which = config.erase.trainable.replace("_", " ") + later
        lines.append(f"parameters: {parts}; {found['learns'] / 1e6:.1f} M of them learn ({which})")
    memory = memory_mib(config)
    if memory is not None:
        lines.append(f"memory while erasing, beside activations: {sum(memory.values()):.0f} MiB "
                     f"(weights {memory['weights']:.0f}, learning {memory['learning']:.0f})")
    if read_calibration(config) is None:
        there = study.root if (study.root / "study.yaml").exists() else config.model
        lines.append(f"seconds are not known: run 'hfi doctor {there}' first")
    else:
        lines.append("seconds: estimated from what 'hfi doctor' measured; label, reward and report are not estimated")
    return lines


def _work(study: Workspace, stage: str) -> tuple[str, float | None]:
    """What a stage does in words, and its bytes on disk where they can be told."""
    c = study.config
    picture, latent, attention, whole, width = _sizes(c.model)
    own, drawn = len(brought(study)), pictures_to_judge(c)
    if own:  # only benign ones are drawn beside pictures that people brought
        drawn = own + round(c.generate.benign_share * c.generate.images)
    if stage == "generate":
        bring, new = f"encode {own} pictures that were brought" if own else "", drawn - own
        draw = f"draw {new} pictures, {c.generate.steps} steps each, {c.generate.batch_size} together" if new or not own else ""
        return ", ".join(words for words in (bring, draw) if words), None if picture is None else drawn * (picture + latent)
    if stage == "label":
        asked = round(drawn * c.label.overlap)
        people = f"{c.label.annotators} simulated annotators, about {asked} judgements" if c.label.source == "simulated" else (
            f"judgements by people, of at least {min(c.label.minimum, drawn)} pictures")
        return people, 400.0 * asked
    if stage == "reward":
        return f"embed {drawn} pictures, {c.reward.steps} steps, choose {c.reward.top_k}", 4096.0 * drawn
    if stage == "invert":
        count = c.reward.clusters if c.invert.tokens == "per_cluster" else 1
        return (f"{count} token{'s' * (count > 1)} of {c.invert.vectors} vectors, {c.invert.steps} steps each, batch {c.invert.batch_size}",
                None if width is None else 4.0 * width * c.invert.vectors * count)
    if stage == "erase":
        return _erasing(c.erase, attention, whole)
    if stage == "evaluate":
        count = evaluated(c)
        curve = 2 * c.evaluate.curve_prompts * len(c.erase.snapshot_steps())
        attack = f", {c.evaluate.reinversions} re-inversions of {c.evaluate.reinversion_steps} steps" if c.evaluate.reinversions else ""
        return (f"about {2 * count} pictures before/after, {curve} on the way, {c.evaluate.steps} steps each{attack}",
                None if picture is None else (2 * count + curve) * picture)
    return "one HTML file", None if picture is None else 2.7 * c.report.pairs * picture


def _erasing(c: Erase, attention: float | None, whole: float | None) -> tuple[str, float | None]:
    """The same for erasing, by method."""
    extra, training = (whole or 0.0) if c.save_pipeline else 0.0, c.training()
    if c.method in ("sld", "negative_prompt"):
        return f"{c.method}: no training; sampling is steered away from the {c.concept}", 1e5
    if training is None:
        return "uce: keys and values in closed form", None if attention is None else 4 * attention + extra
    source = {"teacher": f"a run of {training.sampling_steps} steps each", "replay": f"{training.replay_runs} kept runs",
              "forward": "stored latents", "mix": "stored latents and kept runs"}[training.latents]
    kept, method = len(c.snapshot_steps()), "" if c.method == "sdd" else f"{c.method}: "
    hard = c.hardened
    rounds = f", then up to {hard.rounds} rounds of {hard.attack_steps} steps of attack and {hard.steps} of both"
    more = rounds if c.method == "hardened" else ""
    elsewhere = (c.method == "esd" and c.esd.layers == "esd-u") or (c.method == "hardened" and hard.layers != "cross_attention")
    size = None if attention is None or elsewhere else (4 + 2 * kept) * attention + extra
    return (f"{method}{training.steps} steps, batch {training.batch_size}, z_t from {training.latents} ({source}), {kept} snapshots{more}",
            size)


def _sizes(source: str) -> tuple[float | None, float | None, float | None, float | None, int | None]:
    """Bytes of a picture and of its latent, parameters that learn, bytes of the pipeline, width of a soft token."""
    found = sizes(source)
    if found is None:
        return None, None, None, None, None
    side = found["latent"]
    whole = 4.0 * sum(found["parameters"].values())
    return PNG_BYTES_PER_PIXEL * found["pixels"], 4.0 * found["channels"] * side * side, float(found["learns"]), whole, found["token_width"]
