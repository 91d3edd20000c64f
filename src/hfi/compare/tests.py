"""Tokens against words, for each method and set: the paired difference over the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence

from hfi.evaluation.statistics import paired_difference
from hfi.seeds import numpy_generator


def paired_tests(cells: Sequence[dict], seed: int, resamples: int) -> list[dict]:
    """One row a method and set that both cells have: {"method", "set", value, low, high ...} of share under tokens minus share under words.

    Below 0 is better for concept sets, above 0 for `other` and `neighbours`. The interval is a paired bootstrap over prompts, 95 %,
    for each row alone: with many rows some exclude 0 by chance.
    """
    by = {(cell["method"], cell["given_as"]): cell["outcomes"] for cell in cells}
    rows = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        words, tokens = by.get((method, "words")), by.get((method, "tokens"))
        for name in words if words and tokens else ():
            if words[name]:
                prompts = [prompt for prompt, _ in words[name]]
                if prompts != [prompt for prompt, _ in tokens[name]]:
                    raise AssertionError(f"{method}, {name}: the two cells were not drawn on the same prompts")
                pair = [hit for _, hit in words[name]], [hit for _, hit in tokens[name]]
                found = paired_difference(*pair, prompts, numpy_generator(seed, "compare", method, name), resamples)
                rows.append({"method": method, "set": name, **found.plain()})
    return rows
