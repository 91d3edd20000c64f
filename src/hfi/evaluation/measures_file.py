"""STUDY/measures.json, which `hfi measure` writes: whether it belongs to the present evaluation."""

from __future__ import annotations

from hfi.errors import HFIError
from hfi.workspace import Workspace, digest, file_hash, read_json

FILE = "measures.json"
PARTS = ("detectors", "distances", "prompts", "benchmarks")


def evaluated(study: Workspace) -> str:
    """What names the present evaluation: its key and the digest of its outputs."""
    manifest = study.manifest("evaluate") or {}
    return digest([manifest.get("key"), manifest.get("digest")])


def read_measures(study: Workspace) -> dict | None:
    """The numbers where they belong to the present evaluation, else None; raises HFIError when the file is damaged."""
    if not study.path(FILE).exists():
        return None
    found = read_json(study.path(FILE))
    if isinstance(found, dict):
        found.setdefault("benchmarks", {})  # a file of before they were measured
    if not isinstance(found, dict) or not all(part in found for part in PARTS):
        raise HFIError("is not what 'hfi measure' writes", file=study.path(FILE), remedy="delete it and run 'hfi measure' again")
    return found if found.get("evaluated") == evaluated(study) else None


def measures_state(study: Workspace) -> str:
    """What the report depends on: the file's hash, or nothing."""
    return file_hash(study.path(FILE)) if read_measures(study) else ""
