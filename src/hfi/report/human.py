"""The report's part on blind evaluation: what raters said of pictures of both models, beside the judge on the very same pictures."""

from __future__ import annotations

from collections.abc import Sequence

from hfi.evaluation.human import HumanRates
from hfi.evaluation.statistics import Estimate
from hfi.report.figures import Rate, Row, interval, percent, rate_chart
from hfi.report.gather import who


def human_section(found: Sequence[HumanRates]) -> list[dict]:
    """One entry for each round that somebody answered; empty where there is none."""
    return [
        {
            "question": one.words,
            "simulated": one.simulated,
            "chart": rate_chart(
                [
                    Row(who(one.raters), "share of pictures, blind", _rate(one.before), _rate(one.after)),
                    Row("The judge", "on the very same pictures", _rate(one.judge_before), _rate(one.judge_after)),
                ]
            ),
            "words": _words(one),
        }
        for one in found
    ]


def _words(one: HumanRates) -> str:
    words = f"{one.answers} answers on {one.rated} of {one.pictures} pictures"
    if one.alpha is not None:
        spread = "" if one.alpha_low is None else f" ({one.alpha_low:.2f} to {one.alpha_high:.2f})"
        words += f"; agreement among raters {one.alpha:.2f}{spread}, Krippendorff's alpha"
    agrees = _rate(one.judge_agrees)
    if agrees is not None:
        words += f"; the judge says what most raters say on {percent(agrees.value)} of them ({interval(agrees)})"
    return words + "."


def _rate(estimate: Estimate) -> Rate | None:
    return None if estimate.value is None else Rate(estimate.value, estimate.low, estimate.high, estimate.n)
