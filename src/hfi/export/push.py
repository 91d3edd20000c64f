"""`hfi push`: exported files to a model repository on the Hugging Face hub, and nothing else.

What may leave is a list of names and kinds, not a list of what may not: pictures, judgements, latents, soft tokens and
settings with this machine's folders are on no list.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfi.errors import HFIError

KINDS = {"hfi-delta", "hfi-lora", "hfi-checkpoint"}  # headers of single files that may leave
FOLDER_SUFFIXES = {".json", ".safetensors", ".txt"}  # of a diffusers folder: configurations, weights, vocabularies
TEXT = tuple(f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3"))
PARTS = ("scheduler", "transformer", "unet", "vae", *TEXT)


def pushable(folder: Path) -> list[Path]:
    """The files under an export folder that may leave, in order; raises HFIError where there is no card or nothing beside it."""
    from safetensors import SafetensorError, safe_open

    found = []
    for path in sorted(folder.glob("hfi-*.safetensors")):
        try:
            with safe_open(path, "np") as opened:  # the header alone; imports no torch
                kind = (opened.metadata() or {}).get("kind")
        except (SafetensorError, OSError):
            raise HFIError("not a whole safetensors file", file=path, remedy="export it again") from None
        if kind in KINDS:
            found.append(path)
    pipeline = folder / "diffusers"
    if (pipeline / "model_index.json").is_file():
        found.append(pipeline / "model_index.json")
        for part in PARTS:
            found += sorted(path for path in pipeline.glob(f"{part}/*") if path.suffix in FOLDER_SUFFIXES)
    found = [path for path in found if path.is_file() and not path.is_symlink()]
    card = folder / "README.md"
    if not card.is_file() or not found:
        missing = "no model card" if found else "nothing that may leave"
        raise HFIError(f"holds {missing}", file=folder, remedy="run 'hfi export STUDY --to all' first")
    return [card, *found]


def push(folder: Path, repo: str, api: Any, files: Sequence[Path] | None = None, public: bool = False) -> str:
    """Upload in one commit; returns the repository's address. Raises HFIError for what the hub answers.

    Args:
        repo: OWNER/NAME; made where there is none, private unless `public`.
        api: a huggingface_hub.HfApi.
        files: those of `pushable`.
    """
    from huggingface_hub import CommitOperationAdd

    files = pushable(folder) if files is None else files
    operations = [CommitOperationAdd(path_in_repo=name_in(folder, path), path_or_fileobj=str(path)) for path in files]
    try:
        address = api.create_repo(repo_id=repo, private=not public, exist_ok=True, repo_type="model")
        api.create_commit(repo_id=repo, operations=operations, commit_message="Erased with Human Feedback Inversion", repo_type="model")
    except Exception as error:  # the library raises many kinds; all mean that nothing, or not everything, arrived
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:140]
        raise HFIError(f"the hub refused ({first})", field=repo, remedy="check the name, the network and 'hf auth login'") from error
    return str(address)


def name_in(folder: Path, path: Path) -> str:
    """A file's name in the repository: the pipeline's files at its root, so that from_pretrained finds them."""
    inner = path.relative_to(folder)
    return inner.relative_to("diffusers").as_posix() if inner.parts[0] == "diffusers" else inner.as_posix()
