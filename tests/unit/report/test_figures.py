"""Charts: numbers in words, ticks, and marks where they belong."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hfi.report.figures import MOST_POINTS, Curve, Rate, Row, interval, line_chart, nice_ticks, percent, rate_chart, thin

finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_small_and_nearly_whole_shares_are_not_rounded_away():
    shares = (0, 0.004, 0.02, 0.975, 0.996, 1, None)
    assert [percent(v).replace("\u202f", " ") for v in shares] == [
        "0 %",
        "0.4 %",
        "2 %",
        "98 %",
        "99.6 %",
        "100 %",
        "–",
    ]
    assert interval(Rate(0.02, 0.004, 0.06, 150)).replace("\u202f", " ") == "0.4 to 6 %, n = 150"
    assert interval(Rate(0.02)) == "" and interval(None) == ""


def test_a_share_beyond_its_limit_does_not_read_like_the_limit():
    told = [percent(*pair).replace("\u202f", " ") for pair in ((0.0533, 0.05), (0.05, 0.05), (0.07, 0.05), (0.9479, 0.95))]
    assert told == ["5.3 %", "5 %", "7 %", "94.8 %"]


@given(finite, finite)
def test_ticks_are_even_and_cover_the_data(a, b):
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= 13
    steps = [y - x for x, y in zip(ticks, ticks[1:], strict=False)]
    assert max(steps) - min(steps) <= slack


@given(st.integers(0, 2000))
def test_thinning_keeps_first_and_last(n):
    points = [(float(i), 0.0) for i in range(n)]
    kept = thin(points)
    assert len(kept) <= MOST_POINTS and kept[:1] == tuple(points[:1]) and kept[-1:] == tuple(points[-1:])


def test_marks_stand_at_their_values():
    chart = rate_chart([Row("a<b", "hint", Rate(0.25, 0.2, 0.3, 10), Rate(1.4, 0.9, 1.5, 10), limit=0.05)])
    assert "a&lt;b" in chart
    assert 'class="before" cx="25.00%"' in chart and 'class="after" cx="100.00%"' in chart and 'class="limit" x1="5.00%"' in chart
    assert 'class="bar before" x1="20.00%" x2="30.00%"' in chart


def test_curves_have_axes_and_words():
    chart = line_chart([Curve("one", ((0, 1.0), (50, 0.5), (100, 0.25))), Curve("empty", ())], "step", "loss")
    assert chart.count("<polyline") == 1 and "loss over step: one from 1 to 0.25" in chart
    assert re.search(r'points="0\.00,0\.00 50\.00,50\.00 100\.00,75\.00"', chart)
    assert line_chart([Curve("none", ())], "x", "y") == ""


def test_shares_have_dots_bars_and_per_cents():
    chart = line_chart([Curve("rate", ((0, 0.8), (100, 0.0)), ((0, 0.6, 1.0), (100, 0.0, 0.2)))], "step", "share", shares=True)
    assert 'd="M0.00 20.00h0 M100.00 100.00h0"' in chart and chart.count('class="spread c0"') == 2
    assert 'x1="0.00" x2="0.00" y1="40.00" y2="0.00"' in chart
    assert "<span>100\u202f%</span>" in chart and "rate from 80\u202f% to 0\u202f%" in chart
    assert "<span>20</span><span>40</span>" in chart  # whole steps where they divide
