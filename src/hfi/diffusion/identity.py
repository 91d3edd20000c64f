"""Which model is meant, without loading it: its folder and the hash of its weights. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def model_folder(source: str) -> Path | None:
    """The folder, or the single file, of a model on this disk; None for a hub id."""
    if source == "emoji":
        from hfi import emoji

        return Path(emoji.folder())
    return Path(source) if Path(source).exists() else None


@functools.lru_cache(maxsize=8)
def _hash_files(folder: Path, stamp: tuple) -> str:
    total = hashlib.sha256()
    if folder.is_file():
        with folder.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as stream:
            total.update(str(path.relative_to(folder)).encode() + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def model_hash(source: str) -> str:
    """SHA-256 over a model's weight files; for a hub id not on this disk, over the id itself."""
    folder = model_folder(source)
    if folder is None:
        return hashlib.sha256(source.encode()).hexdigest()
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.safetensors"))
    stamp = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _hash_files(folder, stamp)
