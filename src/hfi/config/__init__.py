"""A study's settings: one pydantic model per stage; every field says its unit and where its default comes from.

Sources named here: SDD = Kim et al., arXiv 2307.05977; HFI = Kim et al., arXiv 2407.21032. "the paper does not say"
marks a default that is ours because no public page of HFI states one; "ours" marks an option the papers do not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from hfi.config.after import (
    Attack,
    EmbeddingAttack,
    HubPrompts,
    Measure,
    NoiseAttack,
    P4DAttack,
    Persist,
    ReinversionAttack,
    RingABellAttack,
    StoredAttack,
    UnlearnDiffAttack,
)
from hfi.config.base import NOT_SAID, Positive, Section, Share
from hfi.config.erasing import ESD, SLD, UCE, ConceptAblation, Erase, Hardened, Training
from hfi.config.stages import Concept, Evaluate, Generate, Invert, Label, Memory, QueueSettings, Report, Reward, Sampling
from hfi.errors import HFIError

__all__ = [
    "ESD", "NOT_SAID", "SLD", "UCE", "Attack", "Concept", "ConceptAblation", "EmbeddingAttack", "Erase", "Evaluate", "Generate",
    "Hardened", "HubPrompts", "Invert", "Label", "Measure", "Memory", "NoiseAttack", "P4DAttack", "Persist", "Positive", "QueueSettings",
    "ReinversionAttack", "Report", "Reward", "RingABellAttack", "Sampling", "Section", "Share", "StoredAttack", "StudyConfig", "Training",
    "UnlearnDiffAttack", "dump_config", "load_config", "parse_config", "with_overrides",
]  # fmt: skip


class StudyConfig(Section):
    """Everything that a study is; stored as study.yaml in its folder."""

    name: str = Field("study", min_length=1, description="shown in the report")
    model: str = Field("emoji", description="'emoji' (embedded), a diffusers folder, a hub id or a single .safetensors file")
    configs: str = Field(
        "",
        description="for a single file: a diffusers folder of the same family (its weights are not read) or an original config (.yaml); "
        "empty: from the hub or its local cache",
    )
    seed: int = Field(0, ge=0, description="every random number of the study comes from it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="arithmetic of forward passes; weights learn in float32")
    memory: Memory = Memory()
    concept: Concept = Concept()
    generate: Generate = Generate()
    label: Label = Label()
    reward: Reward = Reward()
    invert: Invert = Invert()
    erase: Erase = Erase()
    evaluate: Evaluate = Evaluate()
    measure: Measure = Measure()
    report: Report = Report()
    attack: Attack = Attack()
    persist: Persist = Persist()

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if value.split(":")[0] not in {"auto", "cpu", "cuda", "mps"}:
            raise ValueError("use auto, cpu, cuda, cuda:N or mps")
        return value

    @model_validator(mode="after")
    def _halves(self) -> StudyConfig:
        if self.memory.weights == "bfloat16" and self.dtype == "float32":
            raise ValueError("memory.weights=bfloat16 goes with dtype bfloat16")
        return self

    @model_validator(mode="after")
    def _batches(self) -> StudyConfig:
        if self.concept.kind == "harm" and set(self.concept.unlisted) - set(self.concept.members) and self.concept.members:
            raise ValueError("concept.unlisted: every name must also stand in concept.members")
        return self


def load_config(path: str | Path) -> StudyConfig:
    """Read a study file (YAML). Raises HFIError naming the file, the field and the remedy."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HFIError("no such study file", file=path, remedy="see recipes/ for examples, or run 'hfi init'") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HFIError(
            f"not readable as YAML ({str(error).splitlines()[0]})", file=path, remedy="mend it or run 'hfi init' for a fresh one"
        ) from None
    return parse_config(raw if raw is not None else {}, path)


def parse_config(raw: object, file: str | Path) -> StudyConfig:
    """Check plain data as study settings; `file` is named in the error."""
    if not isinstance(raw, dict):
        raise HFIError("holds no settings (a mapping of names to values was expected)", file=file, remedy="see recipes/demo.yaml")
    try:
        return StudyConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "extra_forbidden":
            raise HFIError("no such setting", file=file, field=field, remedy="'hfi init --help' lists them all") from None
        message, given = first["msg"].removeprefix("Value error, "), str(first.get("input"))[:60]
        remedy = f"write a list: {field}=[{given}]" if first["type"] == "tuple_type" else "correct that value"
        raise HFIError(f"{message} (got {given!r})", file=file, field=field, remedy=remedy) from None


def dump_config(config: StudyConfig) -> str:
    """The settings as YAML that `load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def with_overrides(config: StudyConfig, overrides: dict[str, object], file: str | Path = "command line") -> StudyConfig:
    """A copy with dotted fields replaced, e.g. {"erase.steps": 300}; values are checked again."""
    raw = config.model_dump(mode="json")
    for dotted, value in overrides.items():
        *parents, leaf = dotted.split(".")
        place = raw
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                raise HFIError("no such setting", file=file, field=dotted, remedy="write it as section.field=value")
            place = place[parent]
        place[leaf] = value
    return parse_config(raw, file)
