"""Open a study with changed settings, do one stage of it under its lock, and say what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfi.config import StudyConfig, with_overrides
from hfi.errors import HFIError, NeedsPeople
from hfi.workspace import READS, STAGES, Workspace, write_bytes


def open_study(root: Path, changes: dict[str, object]) -> Workspace:
    """The study under `root` with settings changed in memory; `study.save_config()` keeps them."""
    study = Workspace.open(root)
    return Workspace(study.root, with_overrides(study.config, changes)) if changes else study


def check_settings(config: StudyConfig) -> None:
    """Find unknown models, networks, concepts, prompt files and settings of erasing that contradict before anything slow begins, or is
    cleared; raises HFIError."""
    from hfi.diffusion.prompts import feedback_prompts, load_vocabulary
    from hfi.erasure.settings import check_settings as check_erasing
    from hfi.perception.names import check_networks

    check_erasing(config, config.erase)
    check_networks(config)
    feedback_prompts(config.concept, load_vocabulary(config.concept.vocabulary), 4, 0.5, config.seed)
    folder = known_model(config.model, "model")
    if folder is not None:
        check_model(folder, config)


def known_model(source: str, field: str) -> Path | None:
    """The model's folder or file, None for what may be a hub id; raises HFIError for what can be neither."""
    from hfi.diffusion.identity import model_folder

    folder = model_folder(source)
    if folder is None and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise HFIError("unknown model", file=source, field=field, remedy="use 'emoji', a diffusers folder, a .safetensors file or "
                       "a hub id like CompVis/stable-diffusion-v1-4; 'hfi models' lists what is supported")
    return folder


def check_control(control: str | None, config: StudyConfig) -> None:
    """Find a control model that cannot be before an attack begins; raises HFIError."""
    if control is not None and (folder := known_model(control, "--control")) is not None:
        check_model(folder, config)


def check_model(folder, config: StudyConfig) -> None:
    """What a model's files say without loading them: its family, its parts, and what of the settings that family cannot do."""
    from hfi.diffusion.checks import check_single, read_index
    from hfi.diffusion.families import check_parts, family_of, require

    if folder.is_file():
        key = check_single(folder)[0]
    else:
        index = read_index(folder, str(folder))
        family = family_of(index, str(folder))
        check_parts(index, family, str(folder))
        key = family.key
    for name in ("start", "finish"):
        if getattr(config.erase, name) == "closed_form":
            require(key, "closed_form", f"erase.{name}")
    if config.erase.method == "uce":
        require(key, "closed_form", "erase.method")


def differences(one: StudyConfig, other: StudyConfig) -> list[tuple[str, object, object]]:
    """(dotted name, value in one, value in other) of every setting that differs."""
    a, b = (_flat(config.model_dump(mode="json")) for config in (one, other))
    return [(name, a[name], b[name]) for name in a if a[name] != b[name]]


def _flat(data: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def states(study: Workspace) -> dict[str, str]:
    """{stage: state} in order: done, partial (an interrupted run that will continue), stale (done under other settings or
    inputs, newer judgements, answers of raters and measures among them) or missing."""
    found: dict[str, str] = {}
    for stage in STAGES:
        if study.is_done(stage):
            again = any(found[name] != "done" for name in READS[stage])
            again |= (stage == "label" and new_judgements(study)) or (stage == "report" and new_answers(study))
            found[stage] = "stale" if again else "done"
        elif study.path(stage, "manifest.json").exists():
            found[stage] = "stale"
        else:
            found[stage] = "partial" if study.path(stage, "partial.json").exists() else "missing"
    return found


def new_judgements(study: Workspace) -> bool:
    """Whether people have judged since the label stage took its snapshot."""
    seen = ((study.manifest("label") or {}).get("facts") or {}).get("store")
    if not seen:
        return False
    from hfi.feedback import database

    where = database.place(study)
    return database.is_there(where) and database.newest_judgement(where) != seen[0]


def new_answers(study: Workspace) -> bool:
    """Whether raters of a blind evaluation have answered, or `hfi measure` has measured, since the report was written."""
    from hfi.evaluation.human import state
    from hfi.evaluation.measures_file import measures_state

    facts = (study.manifest("report") or {}).get("facts") or {}
    return state(study) != facts.get("human", {}) or measures_state(study) != facts.get("measures", "")


def do_stage(root: Path, stage: str, changes: dict[str, object], dry_run: bool) -> Workspace:
    """Run one stage, and only that one; raises HFIError naming the earlier one that is missing."""
    study = open_study(root, changes)
    check_settings(study.config)
    if dry_run:
        from hfi.cli.plan import show_plan

        show_plan(study, (stage,))
        return study
    with study.lock(), kept_settings(study, stage):
        study.require(stage)
        if changes:
            study.save_config()
        work(study, stage)
    return study


@contextmanager
def kept_settings(study: Workspace, *stages: str) -> Iterator[None]:
    """Give study.yaml back as it was where an error shows that the settings in memory cannot even begin one of these stages."""
    content = lambda file: file.read_bytes() if file.exists() else None  # noqa: E731
    begun = lambda: [content(study.path(stage, name)) for stage in stages for name in ("partial.json", "manifest.json")]  # noqa: E731
    file = study.root / "study.yaml"
    before, there = content(file), begun()
    try:
        yield
    except NeedsPeople:
        raise
    except HFIError:
        if before is not None and begun() == there:
            write_bytes(file, before)
        raise


def work(study: Workspace, stage: str) -> None:
    """Bring a stage up to date (its inputs are) and print one line on it; the lock is the caller's."""
    before = study.manifest(stage) if study.is_done(stage) else None
    if before is None or stage == "label" or (stage == "report" and new_answers(study)):  # new judgements may have come in
        from hfi import method

        method.run(study, until=stage)
    manifest = study.manifest(stage)
    note = "already done under these settings" if manifest == before else "done"
    print(f"{stage}: {note} ({manifest['seconds']:.1f} s) {facts_line(manifest)}".rstrip())


def facts_line(manifest: dict) -> str:
    """A stage's key facts in a few words, and `simulated` wherever annotators were."""
    facts = manifest.get("facts", {})
    words = []
    for name, value in facts.items():
        if name == "simulated" or value is None or isinstance(value, (dict, list)) or name.endswith(("hash", "version", "sha256")):
            continue
        if isinstance(value, str) and len(value) > 60:
            continue
        words.append(f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}")
    return ", ".join((["simulated"] if facts.get("simulated") else []) + words[:6])


def pending(study: Workspace) -> tuple[str, ...]:
    """The stages that 'hfi run' would do, in order."""
    return tuple(stage for stage, state in states(study).items() if state != "done")
