"""Charts: every figure is drawn at its place and written beside it, names cover no others, and nothing in them is markup by accident."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from proof.charts import LEFT, RIGHT, WIDTH, Rate, curves, rates

SVG = "{http://www.w3.org/2000/svg}"


def rate(value: float, low: float, high: float) -> dict:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(("value", "place"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (1.07, 1.0)])
def test_a_rate_is_drawn_at_its_place_and_written_beside_it(value, place):
    found = ElementTree.fromstring(rates([Rate("sdd", "HFI", rate(value, 0.1, 0.9), "ours")], "concept rate"))
    (dot,) = found.findall(f"{SVG}circle")
    assert float(dot.get("cx")) == pytest.approx(LEFT + place * (WIDTH - LEFT - RIGHT), abs=0.1)
    words = [text.text for text in found.findall(f"{SVG}text")]
    assert {"sdd", "HFI", f"{value:.2f} (0.10 to 0.90)", "concept rate"} <= set(words)
    assert f"sdd, HFI: {value:.2f}" in found.get("aria-label")


def test_rows_come_under_their_heading_one_below_the_other():
    rows = [Rate("a", "a1", rate(0.1, 0, 0.2)), Rate("b", "b1", rate(0.2, 0, 0.3)), Rate("a", "a2", rate(0.3, 0.1, 0.4))]
    texts = ElementTree.fromstring(rates(rows, "x")).findall(f"{SVG}text")
    height = {text.text: float(text.get("y")) for text in texts}
    assert height["a"] < height["a1"] < height["a2"] < height["b"] < height["b1"]


def test_a_rate_without_an_interval_has_none_drawn():
    assert "to" not in re.sub("<.*?>", "", rates([Rate("a", "b", {"value": 0.5})], "x"))


def test_names_of_curves_that_end_together_do_not_cover_each_other():
    drawn = curves([("one", [0.0, 0.5]), ("two", [0.1, 0.5]), ("three", [0.0, 0.5])], "rounds", "share")
    places = [float(text.get("y")) for text in ElementTree.fromstring(drawn).findall(f"{SVG}text") if ": 0.50" in text.text]
    assert len(places) == 3 and min(b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) >= 16


def test_what_a_study_is_called_is_text():
    name = "<script>alert(1)</script>"
    for drawn in (rates([Rate(name, name, rate(0.5, 0, 1))], name), curves([(name, [0, 1])], name, name)):
        written = [text.text for text in ElementTree.fromstring(drawn).findall(f"{SVG}text")]
        assert "<script" not in drawn and any(name in words for words in written)
