"""A study with pictures and nothing else, for tests of the labelling app: no model, no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image, ImageDraw

from hfi.config import parse_config
from hfi.feedback.judgements import now
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.workspace import Workspace

COLOURS = ("#b3261e", "#1a7440", "#4a5fb5", "#a4620d", "#0b6b63", "#a33a6b")


def make_study(root: Path, pictures: int = 24, name: str = "tests", **label) -> Workspace:
    """A study of `pictures` small drawings, its first stage sealed; `label` are settings of that section, `queue` among them."""
    study = Workspace.create(root, parse_config({"name": name, "concept": {"name": "circle"}, "label": label}, "test"))
    folder = root / "generate" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(pictures):
        image = Image.new("RGB", (64, 64), "white")
        draw = ImageDraw.Draw(image)
        shape = draw.ellipse if index % 2 else draw.rectangle
        shape((8 + index % 5, 8, 56, 56 - index % 7), fill=COLOURS[index % len(COLOURS)])
        draw.text((26, 26), str(index), fill="white")
        image.save(folder / f"p{index:03}.png")
        rows.append(
            {"id": f"p{index:03}", "file": f"images/p{index:03}.png", "prompt": "a drawing", "style": "round" if index % 2 else "square"}
        )
    (root / "generate" / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "generate" / "manifest.json").write_text("{}")
    return study


def consent(study: Workspace, *names: str, blur: bool = False) -> None:
    """Annotators who have read the consent page and had the quiz."""
    from dataclasses import replace

    with Store.of(study) as store:
        queue = Queue.of(study, store)
        for name in names or ("local",):
            queue.save_preferences(name, replace(queue.preferences(name), consented=now(), quiz_done=True, blur=blur))


def csrf_of(page: str) -> str:
    """The form token of a page."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page) or re.search(r"&#34;csrf&#34;:&#34;([0-9a-f]+)", page)
    assert found, "the page has no form token"
    return found[1]


def judgements(study: Workspace) -> list:
    """All judgements of the store that count."""
    with Store.of(study) as store:
        return list(store.judgements())
