"""The ids of a study's pictures, read without torch."""

from __future__ import annotations

import json

from hfi.errors import HFIError
from hfi.workspace import Workspace


def picture_ids(study: Workspace) -> set[str]:
    """Ids of the drawn pictures; raises HFIError when there are none yet or the list is damaged."""
    path = study.path("generate", "images.jsonl")
    try:
        return {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()}
    except FileNotFoundError:
        raise HFIError("no pictures yet", file=path, remedy=f"run 'hfi generate {study.root}' first") from None
    except (ValueError, KeyError, TypeError):
        raise HFIError("half-written or damaged", file=path, remedy="delete the folder and run 'hfi generate' again") from None
