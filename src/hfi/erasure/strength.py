"""How strongly a delta may be put on. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path

from hfi.errors import HFIError

MAX_STRENGTH = 2.0  # (ours) a delta goes one step past what was measured; further out nothing is known of it


def check_strength(value: float, file: str | Path | None = None, field: str | None = "strength", most: float = MAX_STRENGTH) -> float:
    """The strength as a float in [0, most]; raises HFIError for any other, negative ones above all.

    A negated delta moves the model towards the concept: it would draw more of what people flagged.
    """
    value = float(value)
    if value < 0:
        raise HFIError(
            f"is {value:g}: a negative strength makes the model draw the concept",
            file=file,
            field=field,
            remedy=f"use 0 (off) to {most:g}; 1 is what was measured",
        )
    if not math.isfinite(value) or value > most:
        raise HFIError(f"is {value:g}", file=file, field=field, remedy=f"use 0 (off) to {most:g}; 1 is what was measured")
    return value
