"""Blur, the panic key, phone width, and what assistive technology meets."""

from __future__ import annotations

import json

import pytest

from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from web_study import judgements

from .served import axe_source
from .test_labelling import all_saved, open_label, press, ready

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api").expect  # `make test` collects this file without playwright
FILTER = "() => getComputedStyle(document.querySelector('#item .pic img')).filter"
PAGES = (
    "/label",
    "/guideline",
    "/progress",
    "/settings",
    "/consent",
    "/stopped",
    "/quiz",
    "/review",
    "/review/disagreements",
    "/review/gold",
    "/admin/accounts",
    "/admin/guideline",
    "/admin/events",
    "/nothing-here",
    "/blank",
)


def test_pictures_are_blurred_and_grey_until_held(serve, browse):
    served = serve(blur=True)
    page = open_label(browse(served))
    assert "blur" in page.evaluate(FILTER) and "grayscale" in page.evaluate(FILTER)
    page.keyboard.down(" ")
    page.wait_for_function(f"() => ({FILTER})() === 'none'")
    page.keyboard.up(" ")
    page.wait_for_function(f"() => ({FILTER})().includes('blur')")
    box = page.locator("#item .pic").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.wait_for_function(f"() => ({FILTER})() === 'none'")
    page.mouse.up()
    page.wait_for_function(f"() => ({FILTER})().includes('blur')")
    assert judgements(served.study) == [], "looking is no answer"


def test_one_press_opens_where_holding_is_hard(serve, browse):
    def toggling(study):
        with Store.of(study) as store:
            queue = Queue.of(study, store)
            from dataclasses import replace

            queue.save_preferences("local", replace(queue.preferences("local"), keys=(("hold", "toggle"),)))

    served = serve(blur=True, prepare=toggling)
    page = open_label(browse(served))
    page.keyboard.press(" ")
    page.wait_for_function(f"() => ({FILTER})() === 'none'")
    press(page, "f")
    ready(page)
    page.wait_for_function(f"() => ({FILTER})().includes('blur')")


@pytest.mark.parametrize("javascript", [True, False])
def test_the_panic_key_leaves_nothing_on_the_page(serve, browse, javascript):
    served = serve()
    page = browse(served, java_script_enabled=javascript)
    page.goto("/label")
    if not javascript:
        page.click("header >> text=Hide")
        assert page.locator("img").count() == 0
        return
    ready(page)
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    expect(page.locator(".blank")).to_be_visible()
    for shown in page.locator("img").all():
        assert not shown.is_visible()
    assert page.title().strip() == ""
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    expect(page.locator(".blank")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".blank")).to_have_count(0)
    ready(page)
    assert judgements(served.study) == []


def settled(page, path: str) -> None:
    """Go to a page and wait until it stays: a reviewer's page loads itself anew while its numbers are counted."""
    page.goto(path)
    page.wait_for_function("() => document.readyState === 'complete' && !document.body.innerText.includes('Counting the judgements')")


def test_phone_width(serve, browse):
    served = serve()
    page = open_label(browse(served, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True))
    for path in PAGES:
        settled(page, path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{path} is wider than the phone"
    open_label(page)
    for action in ("present", "absent", "unsure", "skip"):
        box = page.locator(f"[data-action={action}]").bounding_box()
        assert box["y"] + box["height"] <= 640 and box["height"] >= 44, f"{action} is off the screen or too small for a thumb"
    page.tap("[data-action=absent]")
    all_saved(page)
    assert [row.value for row in judgements(served.study)] == ["absent"]


@pytest.mark.parametrize(
    "look",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing_serious(serve, browse, look):
    source = axe_source()
    if source is None:
        pytest.skip("axe-core is not there: `make test-browser` installs it")

    def busy(study):
        from uuid import uuid4

        from hfi.feedback.queue import Answer

        with Store.of(study) as store:
            queue = Queue.of(study, store)
            queue.set_gold("p003", "present", "It is round.")
            for who, value in (("a", "present"), ("b", "absent"), ("local", "present")):
                for item in queue.next(who, 4):
                    queue.submit(who, item.id, Answer(value), str(uuid4()))
        (study.root / "guideline.md").write_text("# Circles\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")

    found = []
    for judgement in ("binary", "ranking"):
        served = serve(prepare=busy if judgement == "binary" else None, judgement=judgement)
        page = browse(served, **look)
        for path in PAGES if judgement == "binary" else ("/label",):
            settled(page, path)
            page.evaluate(source)
            report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            found += [
                f"{path} {one['id']} ({one['impact']}): {json.dumps(one['nodes'][0]['target'])} {one['nodes'][0]['html'][:140]}"
                for one in report["violations"]
                if one["impact"] in ("serious", "critical")
            ]
    assert not found, "\n".join(found)
