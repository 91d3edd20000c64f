"""`hfi models`: what can be loaded here. Starts without torch."""

from __future__ import annotations

from hfi.cli.options import Debug, Json

EPILOG = """Examples:

hfi models

hfi models --json

Any Stable Diffusion 1.x or 2.x pipeline works: a folder written by diffusers' save_pretrained (safetensors), or a hub id."""
FAMILIES = (
    {"family": "Stable Diffusion 1.x", "example": "CompVis/stable-diffusion-v1-4", "predicts": "eps"},
    {"family": "Stable Diffusion 2.x", "example": "stabilityai/stable-diffusion-2-1-base", "predicts": "eps or v"},
)


def models(json: Json = False, debug: Debug = False) -> None:
    """List the embedded model and the families that are supported, and what of them is on this disk."""
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
    return {"embedded": embedded, "families": list(FAMILIES), "cached": cached_pipelines()}


def cached_pipelines() -> list[dict]:
    """Stable Diffusion pipelines in the hub cache of this machine: id, folder, MiB."""
    import json
    import os
    from pathlib import Path

    root = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub")
    rows = []
    for index in sorted(root.glob("models--*/snapshots/*/model_index.json")):
        try:
            kind = json.loads(index.read_text()).get("_class_name")
        except (OSError, ValueError):
            continue
        if kind == "StableDiffusionPipeline":
            folder = index.parent
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append({"name": folder.parts[-3].removeprefix("models--").replace("--", "/"), "folder": str(folder),
                         "mib": round(size / 2**20, 1)})
    return rows
