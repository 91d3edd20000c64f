"""docs/formats.md says what the code reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hfi.diffusion.prompts import load_vocabulary
from hfi.feedback.rows import from_row

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_judgements_shown_are_judgements():
    rows = [from_row(json.loads(line)) for line in BLOCKS[0].splitlines()]
    assert [row.task for row in rows] == ["binary", "ranking"] and len(rows[1].images) == 3


def test_the_vocabulary_shown_is_one(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(BLOCKS[1])
    vocabulary = load_vocabulary(str(path))
    assert set(vocabulary.objects) == {"kitchen knife", "apple"} and vocabulary.objects["kitchen knife"].hints == ("slicing",)
    assert vocabulary.styles == ("ink", "chalk") and vocabulary.concepts["weapon"]["members"] == ["kitchen knife"]
