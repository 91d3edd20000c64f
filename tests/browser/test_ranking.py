"""Rankings in Chromium: by keys, by drag, by the places' own menus; ties are refused with a hint."""

from __future__ import annotations

import pytest

from web_study import judgements

from .test_labelling import all_saved, open_label

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api").expect  # `make test` collects this file without playwright


def open_ranking(serve, browse, **look):
    served = serve(judgement="ranking")
    page = open_label(browse(served, **look))
    page.wait_for_function("() => [...document.querySelectorAll('#item .pic img')].every((image) => image.complete && image.naturalWidth)")
    names = page.evaluate("[...document.querySelectorAll('#item .rank .pic img')].map((image) => image.src.split('/').pop())")
    assert len(names) == 5
    return served, page, names


def test_by_keys(serve, browse):
    served, page, names = open_ranking(serve, browse)
    for key in ("3", "1", "x", "5", "4", "2", "Enter"):
        page.keyboard.press(key)
    all_saved(page)
    expect(page.locator("[data-count=done]").first).to_have_text("1")
    (row,) = judgements(served.study)
    assert row.ranking == (names[2], names[0], names[3], names[1]) and row.excluded == (names[4],)


def test_an_unfinished_order_is_not_saved_and_a_place_can_be_taken_back(serve, browse):
    served, page, names = open_ranking(serve, browse)
    for key in ("1", "2", "3", "Backspace", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#message")).to_contain_text("every picture a place")
    assert judgements(served.study) == []
    for key in ("4", "5", "3", "Enter"):
        page.keyboard.press(key)
    all_saved(page)
    assert judgements(served.study)[0].ranking == (names[0], names[1], names[3], names[4], names[2])


def drag(page, start: str, end: str) -> None:
    boxes = [page.locator(one).bounding_box() for one in (start, end)]
    (x, y), (to_x, to_y) = ((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=4)
    page.mouse.move(to_x, to_y, steps=4)
    page.mouse.up()
    page.wait_for_timeout(50)


def test_by_drag(serve, browse):
    served, page, names = open_ranking(serve, browse)
    for picture, place in ((5, 1), (4, 2), (3, 3), (2, 4), (1, 5)):
        drag(page, f".rank:nth-child({picture}) .pic", f".slot[data-place='{place}']")
    drag(page, ".slot[data-place='1']", ".slot[data-place='5']")  # the two change places
    page.click("[data-action=save]")
    all_saved(page)
    assert judgements(served.study)[0].ranking == (names[0], names[3], names[2], names[1], names[4])


def test_ties_are_refused_with_a_hint(serve, browse):
    served, page, names = open_ranking(serve, browse)
    page.select_option("[aria-label='Place of picture 1']", "2")
    page.select_option("[aria-label='Place of picture 3']", "2")
    expect(page.locator("#message")).to_contain_text("No ties: picture 1 already has place 2")
    expect(page.locator("[aria-label='Place of picture 3']")).to_have_value("")


def test_a_saved_order_can_be_changed_after_a_refresh(serve, browse):
    served, page, names = open_ranking(serve, browse)
    for key in ("1", "2", "3", "4", "5", "Enter"):
        page.keyboard.press(key)
    all_saved(page)
    page.reload()
    page.wait_for_selector("#item .rank")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[aria-label='Place of picture 1']")).to_have_value("1")
    drag(page, ".slot[data-place='1']", ".slot[data-place='2']")
    page.keyboard.press("Enter")
    all_saved(page)
    assert judgements(served.study)[0].ranking == (names[1], names[0], names[2], names[3], names[4])


def test_on_a_phone_by_taps(serve, browse):
    served, page, names = open_ranking(serve, browse, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for picture in (2, 1, 3, 5, 4):
        page.tap(f".rank:nth-child({picture}) .pic")
    page.tap("[data-action=save]")
    all_saved(page)
    assert judgements(served.study)[0].ranking == tuple(names[n - 1] for n in (2, 1, 3, 5, 4))
