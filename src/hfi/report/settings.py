"""Every setting of a study with its value, whether it is the default, and where the default comes from."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from hfi.config import NOT_SAID, StudyConfig


@dataclass(frozen=True)
class Setting:
    """One row of the settings table."""

    name: str
    value: str
    default: str
    changed: bool
    meaning: str
    source: str


@dataclass(frozen=True)
class SettingGroup:
    """One section of study.yaml."""

    name: str
    meaning: str
    settings: tuple[Setting, ...]

    @property
    def changed(self) -> int:
        return sum(setting.changed for setting in self.settings)


def all_settings(config: StudyConfig) -> list[SettingGroup]:
    """All fields of all sections, in the order of study.yaml; the source is read from each field's description."""
    top = [name for name, field in StudyConfig.model_fields.items() if not _is_section(field.annotation)]
    groups = [SettingGroup("study", _first_line(StudyConfig), tuple(_setting(config, name, name) for name in top))]
    for name, field in StudyConfig.model_fields.items():
        if _is_section(field.annotation):
            groups.append(SettingGroup(name, _first_line(field.annotation), tuple(_settings(getattr(config, name), name))))
    return groups


def source(description: str, fallback: str = "ours") -> str:
    """Where a default comes from, by the marks that hfi.config puts into descriptions."""
    for mark, name in (
        (NOT_SAID, NOT_SAID),
        ("(ours", "ours"),
        ("(SDD", "SDD (2023)"),
        ("(HFI", "HFI (2024)"),
        ("(ESD", "ESD (2023)"),
        ("(CA's code", "Concept Ablation's public code"),
        ("(UCE's code", "UCE's public code"),
        ("(SLD", "SLD (2023)"),
        ("diffusers' default", "diffusers"),
        ("first author", "the first author's annotation page"),
    ):
        if mark in description:
            return name
    return fallback


def _settings(section: BaseModel, prefix: str) -> list[Setting]:
    """A section's settings, those of sections within it among them."""
    found = []
    for leaf, field in type(section).model_fields.items():
        name = f"{prefix}.{leaf}"
        found += _settings(getattr(section, leaf), name) if _is_section(field.annotation) else [_setting(section, leaf, name)]
    return found


def _setting(section: BaseModel, leaf: str, name: str) -> Setting:
    field = type(section).model_fields[leaf]
    value, default = getattr(section, leaf), field.get_default(call_default_factory=True)
    meaning = field.description or ""
    return Setting(name, _words(value), _words(default), value != default, meaning, source(meaning))


def _words(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]
