"""`hfi models`: what can be loaded here. Starts without torch."""

from __future__ import annotations

from hfi.cli.options import Debug, Json

EPILOG = """Examples:

hfi models

hfi models --json

A pipeline of one of these families works: a folder written by diffusers' save_pretrained (safetensors), a hub id, or a single
.safetensors file (docs/models.md)."""


def models(json: Json = False, debug: Debug = False) -> None:
    """List the embedded model, the families that are supported with what each can do, and what of them is on this disk."""
    found = gather()
    if json:
        import json as encoder

        print(encoder.dumps(found, indent=1))
        return
    from hfi.cli.tables import show_models

    show_models(found)


def gather() -> dict:
    """The embedded model and the hub pipelines in this machine's cache, as plain data."""
    from hfi import emoji
    from hfi.diffusion.identity import model_hash

    folder = emoji.folder()
    whole = (folder / "model_index.json").is_file()
    size = sum(path.stat().st_size for path in emoji.HERE.rglob("*") if path.is_file())
    embedded = {"name": "emoji", "folder": str(folder), "found": whole, "hash": model_hash("emoji") if whole else None,
                "mib": round(size / 2**20, 1), "card": str(emoji.HERE / "MODEL_CARD.md"), "licences": str(emoji.HERE / "ATTRIBUTION.md")}
    return {"embedded": embedded, "families": families(), "cached": cached_pipelines()}


def families() -> list[dict]:
    """Every family: stage -> supported, what it refuses and why, and the versions that all of it was tested with."""
    from hfi.diffusion.families import FAMILIES, TESTED

    return [
        {"family": family.title, "key": family.key, "examples": list(family.examples), "predicts": family.predicts, "learns": family.learns,
         "soft_token": [encoder.name for encoder in family.encoders], "stages": family.can(), "refuses": family.cannot,
         "tested_with": TESTED}
        for family in FAMILIES.values()
    ]


def cached_pipelines() -> list[dict]:
    """Pipelines of supported families in the hub cache of this machine: id, family, folder, MiB."""
    import json
    import os
    from pathlib import Path

    from hfi.diffusion.families import FAMILIES

    known = {family.pipeline: family.key for family in FAMILIES.values()}
    root = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub")
    rows = []
    for index in sorted(root.glob("models--*/snapshots/*/model_index.json")):
        try:
            kind = json.loads(index.read_text()).get("_class_name")
        except (OSError, ValueError):
            continue
        if isinstance(kind, str) and kind in known:
            folder = index.parent
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append({"name": folder.parts[-3].removeprefix("models--").replace("--", "/"), "family": known[kind],
                         "folder": str(folder), "mib": round(size / 2**20, 1)})
    return rows
