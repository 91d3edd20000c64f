"""Intervals for shares and ratios of pictures. Pure numpy: no model, no file.

Pictures of one prompt resemble each other, so prompts are what is resampled (cluster bootstrap, percentile 95 %;
Efron and Tibshirani 1993, chapter 13). Where every prompt has one picture, a share has Wilson's score interval (1927).
Where a bootstrap cannot vary (no hit at all, or nothing but hits) its interval would have no width, which claims far
too much; then Wilson's interval over the prompts is used instead. `Estimate.interval` says which it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # the 97.5 % point of the normal distribution: 95 % intervals


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `value` is None where nothing can be said (no picture, or nothing right before)."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # pictures
    prompts: int
    interval: str  # how low and high were found

    def plain(self) -> dict:
        """The five numbers and the interval's name, rounded, as metrics.json has them."""

        def short(x: float | None) -> float | None:
            return None if x is None else round(float(x), 4)

        return {
            "value": short(self.value),
            "low": short(self.low),
            "high": short(self.high),
            "n": self.n,
            "prompts": self.prompts,
            "interval": self.interval,
        }


def nothing(n: int = 0, prompts: int = 0) -> Estimate:
    """The estimate where there is nothing to estimate from."""
    return Estimate(None, None, None, n, prompts, "none")


def wilson(hits: float, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval for `hits` out of `n`; (0, 1) when n is 0.

    At no hits the upper end is z^2 / (n + z^2), close to the rule of three's 3 / n (3.84 / n for large n).
    """
    if n <= 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if hits <= 0 else float(max(0.0, centre - half))), (1.0 if hits >= n else float(min(1.0, centre + half)))


def _by_prompt(values: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of `values` (N,) for each distinct prompt (P,)."""
    _, index = np.unique(prompts, return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index)


def _draws(prompts: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, P) indices of prompts, drawn with replacement."""
    return rng.integers(0, prompts, size=(resamples, prompts))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def rate(hits, prompts, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """The share of pictures that are hits.

    Args:
        hits: (N,) booleans, one per picture.
        prompts: (N,) what names the picture's prompt.
        rng: from hfi.seeds.
        resamples: bootstrap resamples.
    """
    hits, prompts = np.asarray(hits, dtype=float), np.asarray(prompts)
    if hits.shape != prompts.shape or hits.ndim != 1:
        raise ValueError(f"hits {hits.shape} and prompts {prompts.shape} must be two lists of one length")
    if not len(hits):
        return nothing()
    sums, counts = _by_prompt(hits, prompts)
    value, size = hits.mean(), len(sums)
    if counts.max() == 1:
        return Estimate(float(value), *wilson(hits.sum(), size), len(hits), size, "wilson")
    picks = _draws(size, resamples, rng)
    low, high = _percentiles(sums[picks].sum(1) / counts[picks].sum(1))
    if high - low > 0:
        return Estimate(float(value), low, high, len(hits), size, "bootstrap over prompts")
    low, high = wilson(value * size, size)
    return Estimate(float(value), low, high, len(hits), size, "wilson over prompts (the bootstrap has no width)")


def mean(values, prompts, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """The mean of a number per picture (N,), bootstrap over prompts."""
    values, prompts = np.asarray(values, dtype=float), np.asarray(prompts)
    if not len(values):
        return nothing()
    sums, counts = _by_prompt(values, prompts)
    picks = _draws(len(sums), resamples, rng)
    low, high = _percentiles(sums[picks].sum(1) / counts[picks].sum(1))
    return Estimate(float(values.mean()), low, high, len(values), len(sums), "bootstrap over prompts")


def paired_ratio(before, after, prompts, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Retention: (right after) / (right before) over the same prompts and seeds, as a ratio of sums.

    Args:
        before, after: (N,) booleans, one per picture, in the same order of prompts and seeds.
        prompts: (N,) what names the picture's prompt; prompts are resampled whole, both sides together.
    """
    before, after, prompts = np.asarray(before, dtype=float), np.asarray(after, dtype=float), np.asarray(prompts)
    if not before.shape == after.shape == prompts.shape:
        raise ValueError("before, after and prompts must have one length")
    if not len(before) or before.sum() == 0:
        return nothing(len(before), len(set(prompts.tolist())))
    sums_before, counts = _by_prompt(before, prompts)
    sums_after, _ = _by_prompt(after, prompts)
    value, size = after.sum() / before.sum(), len(counts)
    picks = _draws(size, resamples, rng)
    below, above = sums_before[picks].sum(1), sums_after[picks].sum(1)
    low, high = _percentiles(above[below > 0] / below[below > 0])
    if high - low > 0:
        return Estimate(float(value), low, high, len(before), size, "paired bootstrap over prompts")
    able = int((sums_before > 0).sum())  # prompts that could have lost something
    slack = wilson(0, able)[1]
    return Estimate(
        float(value),
        max(0.0, float(value) - slack),
        float(value) + slack,
        len(before),
        size,
        "value -/+ wilson's bound over prompts (the bootstrap has no width)",
    )


def paired_difference(before, after, prompts, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Mean of after - before over the same prompts and seeds (N,), paired bootstrap over prompts."""
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    found = mean(change, prompts, rng, resamples)
    if found.value is None or found.high - found.low > 0:
        return found
    slack = wilson(0, found.prompts)[1]
    return Estimate(
        found.value,
        found.value - slack,
        found.value + slack,
        found.n,
        found.prompts,
        "value -/+ wilson's bound over prompts (the bootstrap has no width)",
    )


def crossing(values, level: float) -> tuple[int, int, float]:
    """Where a curve first falls under `level`, linear between its points: (i, j, w), the place being (1 - w) of point i and w of point j.

    A curve that never does so is taken at its last point, (n - 1, n - 1, 0); one that begins under it at its first.

    Args:
        values: (n,), n >= 1, e.g. retention over rising strengths.
    """
    values = [float(value) for value in values]
    for j, value in enumerate(values):
        if value < level:
            i = max(0, j - 1)
            return i, j, (values[i] - level) / (values[i] - value) if j else 0.0
    return len(values) - 1, len(values) - 1, 0.0


def two_level_mean(groups, rng: np.random.Generator, resamples: int = 2000) -> tuple[Estimate, float | None]:
    """Mean over groups of each group's mean over prompts, and the two-sided p of its being 0; groups count alike, whatever their size.

    Groups (concepts) are resampled, then the prompts within each that was drawn, so the interval speaks of other concepts as well.
    p = 2 min(share of resampled means >= 0, share <= 0), each share with one added above and below, at most 1. With one group only its
    prompts are resampled, and `interval` says so; with few groups p and interval are rough.

    Args:
        groups: for each group (values (N,), prompts (N,)), e.g. paired differences.
    """
    parts = [_by_prompt(np.asarray(values, dtype=float), np.asarray(prompts)) for values, prompts in groups if len(values)]
    if not parts:
        return nothing(), None
    value = float(np.mean([sums.sum() / counts.sum() for sums, counts in parts]))
    means = np.empty(resamples)
    for k in range(resamples):
        drawn = rng.integers(0, len(parts), size=len(parts))
        total = 0.0
        for g in drawn:
            sums, counts = parts[g]
            picks = rng.integers(0, len(sums), size=len(sums))
            total += sums[picks].sum() / counts[picks].sum()
        means[k] = total / len(drawn)
    above, below = ((np.sum(side) + 1) / (resamples + 1) for side in (means >= 0, means <= 0))
    how = "bootstrap over concepts, then prompts" if len(parts) > 1 else "bootstrap over prompts (one concept)"
    found = Estimate(value, *_percentiles(means), int(sum(c.sum() for _, c in parts)), sum(len(s) for s, _ in parts), how)
    return found, float(min(1.0, 2 * min(above, below)))


def holm(p) -> list[float]:
    """Holm's step-down adjustment (1979) of several p values, in their order: each may be held against 0.05, together at most 5 % err."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
