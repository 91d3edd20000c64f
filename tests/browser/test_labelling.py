"""User stories of labelling, in Chromium."""

from __future__ import annotations

import pytest

from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from web_study import judgements

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api").expect  # `make test` collects this file without playwright
expect.set_options(timeout=60_000)


def open_label(page, path: str = "/label"):
    page.goto(path)
    ready(page)
    return page


def awake(page) -> None:
    """Wait for the page's module: markup is on screen before it, and a key pressed then reaches nobody."""
    page.wait_for_function("() => document.documentElement.classList.contains('js')")


def ready(page) -> str:
    """Wait for the picture on screen; its address."""
    awake(page)
    page.wait_for_function("() => { const i = document.querySelector('#item .pic img'); return i && i.complete && i.naturalWidth > 0 }")
    return page.get_attribute("#item .pic img", "src")


def press(page, *keys: str) -> None:
    for key in keys:
        ready(page)
        page.keyboard.press(key)


def all_saved(page) -> None:
    expect(page.locator("#saved")).to_have_text("All saved")


def test_label_by_keys(serve, browse):
    served = serve()
    page = open_label(browse(served))
    shown = ready(page)
    press(page, "f", "j", "u", "s")
    assert ready(page) != shown
    all_saved(page)
    expect(page.locator("[data-count=done]").first).to_have_text("4")
    rows = judgements(served.study)
    assert sorted(row.value for row in rows) == ["absent", "present", "skip", "unsure"]
    assert all(row.seconds is not None and row.guideline for row in rows)


def test_the_next_eight_pictures_are_loaded_before_they_are_needed(serve, browse):
    served = serve()
    page = browse(served)
    asked = set()
    page.on("response", lambda answer: asked.add(answer.url.split("?")[0]) if "/image/" in answer.url else None)
    open_label(page)
    page.wait_for_function("() => performance.getEntriesByType('resource').filter((one) => one.name.includes('/image/')).length >= 9")
    assert len(asked) >= 9


def test_undo_goes_back_across_items_and_keeps_the_record(serve, browse):
    served = serve()
    page = open_label(browse(served))
    first = ready(page)
    press(page, "f", "j")
    page.keyboard.press("z")
    page.keyboard.press("z")
    expect(page.locator("#item .pic img")).to_have_attribute("src", first)
    press(page, "j")
    all_saved(page)
    assert [row.value for row in judgements(served.study)] == ["absent"]
    with Store.of(served.study) as store:
        values = [row.value for row in store.judgements(history=True)]
    assert len(values) >= 3, "what was taken back stays in the record"


def test_back_forward_and_changing_an_answer(serve, browse):
    served = serve()
    page = open_label(browse(served))
    first = ready(page)
    press(page, "f", "f")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#item .pic img")).to_have_attribute("src", first)
    expect(page.locator("[data-action=present]")).to_have_attribute("aria-pressed", "true")
    press(page, "j")
    page.keyboard.press("ArrowRight")
    all_saved(page)
    assert sorted(row.value for row in judgements(served.study)) == ["absent", "present"]


def test_a_refresh_midway_loses_nothing(serve, browse):
    """Answers that the server has not had yet live through a reload, and one can still go back."""
    served = serve()
    page = open_label(browse(served))
    page.route("**/api/answers", lambda route: route.abort())
    press(page, "f", "j")
    expect(page.locator("#saved")).to_contain_text("kept in this browser")
    seen = ready(page)
    page.unroute("**/api/answers")
    page.reload()
    assert ready(page) == seen
    all_saved(page)
    assert sorted(row.value for row in judgements(served.study)) == ["absent", "present"]
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[data-action=absent]")).to_have_attribute("aria-pressed", "true")


def test_a_server_restart_midway_loses_nothing(serve, browse):
    served = serve()
    page = open_label(browse(served))
    press(page, "f")
    all_saved(page)
    served.kill()
    press(page, "j", "u", "f")
    expect(page.locator("#saved")).to_contain_text("kept in this browser")
    served.start()
    all_saved(page)
    press(page, "j")
    all_saved(page)
    assert sorted(row.value for row in judgements(served.study)) == ["absent", "absent", "present", "present", "unsure"]


def test_two_annotators_with_overlap(serve, browse):
    from hfi.feedback.accounts import Accounts
    from web_study import consent

    def people(study):
        accounts = Accounts.of(study)
        consent(study, *(accounts.add(name, "correct horse battery", "annotator").pseudonym for name in ("ada", "ben")))
        accounts.close()

    served = serve(pictures=5, annotators=(), prepare=people, queue={"overlap": 2, "gold_share": 0, "repeat_share": 0})
    for name, key in (("ada", "f"), ("ben", "j")):
        page = browse(served)
        page.goto("/label")
        page.fill("#name", name)
        page.fill("#password", "correct horse battery")
        page.click("main button")
        for _ in range(5):
            press(page, key)
        expect(page.locator("#item")).to_contain_text("Nothing is left")
        all_saved(page)
    rows = judgements(served.study)
    assert len(rows) == 10 and len({(row.annotator, row.images) for row in rows}) == 10
    assert len({row.annotator for row in rows}) == 2 and "ada" not in {row.annotator for row in rows}


def test_by_keyboard_alone_with_visible_focus(serve, browse):
    served = serve()
    page = open_label(browse(served))
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement?.dataset.action") == "absent":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    all_saved(page)
    assert [row.value for row in judgements(served.study)] == ["absent"]


def test_remapped_keys_are_shown_and_used(serve, browse):
    served = serve()
    page = browse(served)
    page.goto("/settings")
    page.focus("#key-present")
    page.keyboard.press("q")
    page.get_by_role("button", name="Save", exact=True).click()
    open_label(page)
    expect(page.locator("[data-action=present] kbd")).to_have_text("q")
    press(page, "f", "q")
    all_saved(page)
    assert [row.value for row in judgements(served.study)] == ["present"]


def test_help_and_the_break_reminder(serve, browse):
    served = serve(queue={"break_every": 3})
    page = open_label(browse(served))
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("?")
    press(page, "f", "f", "f")
    expect(page.locator("#rest")).to_be_visible()
    page.keyboard.press("f")
    page.click("text=Go on")
    all_saved(page)
    assert len(judgements(served.study)) == 3, "keys do nothing while the reminder stands"


def test_a_break_in_the_session_keeps_the_answers(serve, browse):
    """Somebody adds the first account while the local annotator is at work: the answers wait in the browser for a login."""
    from hfi.feedback.accounts import Accounts

    served = serve()
    page = open_label(browse(served))
    accounts = Accounts.of(served.study)
    accounts.add("ada", "correct horse battery", "admin")
    accounts.close()
    press(page, "f")
    expect(page.locator("#message")).to_contain_text("session has ended", timeout=60_000)
    assert page.evaluate("Object.keys(localStorage).length") == 1


def test_the_quiz(serve, browse):
    def gold(study):
        with Store.of(study) as store:
            queue = Queue.of(study, store)
            queue.set_gold("p001", "present", "It is round.", quiz=True)
            queue.set_gold("p002", "absent", "It has corners.", quiz=True)

    served = serve(annotators=(), prepare=gold)
    page = browse(served)
    page.goto("/")
    expect(page.locator("h1")).to_have_text("Before you begin")
    page.click("text=I have read this")
    for _ in range(2):
        ready_quiz(page)
        page.keyboard.press("f")
        expect(page.locator(".note")).to_be_visible()
        awake(page)
        page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("1 of 2 as expected")
    awake(page)
    page.keyboard.press("Enter")
    ready(page)


def ready_quiz(page) -> None:
    expect(page.locator("main .answers")).to_be_visible()
    awake(page)


def test_without_javascript(serve, browse):
    served = serve()
    page = browse(served, java_script_enabled=False)
    page.goto("/label")
    expect(page.locator(".js-only").first).to_be_hidden()
    first = page.get_attribute("#item .pic img", "src")
    page.click("button[value=present]")
    assert page.get_attribute("#item .pic img", "src") != first
    page.click("text=Undo the last answer")
    assert page.get_attribute("#item .pic img", "src") == first
    page.click("button[value=absent]")
    page.click("header >> text=Hide")
    assert page.locator("img").count() == 0
    assert [row.value for row in judgements(served.study)] == ["absent"]
