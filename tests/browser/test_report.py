"""The report in a real browser, as a reader uses it: mouse, keyboard, phone, dark mode. Run by `make test-browser`."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.browser

# for every visible piece of text: its contrast with what lies behind it (WCAG 2.2, 1.4.3), worst first
CONTRAST = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colour, alpha) => { pen.globalAlpha = alpha; pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); };
  const light = () => {
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [], seen = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || seen.has(element) || ["SCRIPT", "STYLE", "NOSCRIPT", "title"].includes(element.tagName)) continue;
    seen.add(element);
    if (!element.checkVisibility() || element.closest(".sr, .skip")) continue;
    const line = [];
    for (let e = element; e; e = e.parentElement) line.unshift(getComputedStyle(e));
    paint("white", 1);
    line.forEach((style) => paint(style.backgroundColor, 1));
    const behind = light();
    paint(line.at(-1).color, line.reduce((alpha, style) => alpha * style.opacity, 1));
    const over = light();
    const ratio = (Math.max(behind, over) + 0.05) / (Math.min(behind, over) + 0.05);
    const size = parseFloat(line.at(-1).fontSize), needed = size >= 24 || (size >= 18.66 && line.at(-1).fontWeight >= 700) ? 3 : 4.5;
    const words = walk.currentNode.data.trim().slice(0, 40);
    if (ratio < needed) found.push([Math.round(ratio * 100) / 100, element.tagName + "." + element.className, words]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""

# what sticks out of the window sideways, but for what scrolls in a frame of its own
WIDE = """(width) => {
  const found = [];
  if (document.documentElement.scrollWidth > width) found.push(["page", document.documentElement.scrollWidth]);
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || e.closest(".scroll *, .filters *, .sr, .skip, svg *")) continue;
    const box = e.getBoundingClientRect();
    if (box.right > width + 1 || box.left < -1) found.push([e.tagName + "." + e.className, Math.round(box.left), Math.round(box.right)]);
  }
  return found;
}"""


def pictures(page) -> list[dict]:
    """Every flagged picture: is it blurred, and what does its button say of itself?"""
    return page.eval_on_selector_all(
        ".flagged",
        """buttons => buttons.map(b => ({ blurred: b.querySelector("img").getAttribute("src") === b.querySelector("img").dataset.blurred,
           clear: b.querySelector("img").getAttribute("src") === b.querySelector("img").dataset.clear,
           pressed: b.getAttribute("aria-pressed"), label: b.getAttribute("aria-label"), sheet: b.classList.contains("sheet") }))""",
    )


@pytest.mark.parametrize("which", ["real", "drawn"])
def test_the_page_opens_quietly_and_says_its_verdict(look, request, which):
    """From a file, without the network: no error on the console, nothing requested, the verdict, the pictures and the curves."""
    report = request.getfixturevalue(which)
    seen = look(report, offline=True)
    page = seen.page
    assert page.locator("h1").inner_text().startswith("After erasing, “")
    assert re.match("Passes|Needs a look|Fails", page.locator("p.state").inner_text())
    page.evaluate("[...document.images].forEach(i => i.loading = 'eager')")
    widths = page.evaluate("() => Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(widths) > 4 and min(widths) > 0
    charts = page.eval_on_selector_all(".plot svg[role=img]", "all => all.map(s => s.getAttribute('aria-label'))")
    for begin in ("loss over step: <", "loss over step: erasing", "share of pictures over step: draws the concept", "drift over step"):
        assert sum(label.startswith(begin) for label in charts) == 1, charts
    outside = """all => all.filter(line => {
      const own = line.getBoundingClientRect(), frame = line.closest("svg").getBoundingClientRect();
      return own.left < frame.left - 3 || own.right > frame.right + 3 || own.top < frame.top - 3 || own.bottom > frame.bottom + 3;
    }).length"""
    lines = page.locator(".plot polyline, .plot .spread")
    assert lines.count() >= 4 and lines.evaluate_all(outside) == 0
    assert page.locator(".plot polyline").evaluate_all("all => all.some(line => line.getBoundingClientRect().height > 20)")
    assert seen.complaints == []
    assert {url for url in seen.requests if not url.startswith("data:")} == {report.as_uri()}


def test_flagged_pictures_stay_blurred_until_asked_for(look, drawn):
    page = look(drawn).page
    first = pictures(page)
    assert len(first) > 20 and all(p["blurred"] and p["pressed"] == "false" and "Blurred; press to show" in p["label"] for p in first)
    button = page.locator(".pair .flagged").first
    button.click()
    assert sum(p["clear"] for p in pictures(page)) == 1 and button.get_attribute("aria-pressed") == "true"
    button.click()  # the same button blurs it again
    assert all(p["blurred"] for p in pictures(page))
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert sum(p["clear"] for p in pictures(page)) >= 1
    page.keyboard.press("Escape")
    assert pictures(page) == first


def test_all_flagged_at_once_and_escape(look, drawn):
    page = look(drawn).page
    everything = page.locator(".reveal-all")
    words = everything.inner_text()
    assert re.fullmatch(r"Show all \d+ flagged", words)
    everything.click()
    found = pictures(page)
    assert sum(p["clear"] for p in found) == int(re.search(r"\d+", words)[0])
    assert all(p["blurred"] for p in found if p["sheet"])  # sheets, and what came back, are asked for one by one
    assert everything.inner_text() == "Blur all flagged" and everything.get_attribute("aria-pressed") == "true"
    page.locator(".sheet").first.click()
    page.keyboard.press("Escape")
    assert all(p["blurred"] for p in pictures(page)) and everything.inner_text() == words
    everything.click()
    everything.click()
    assert all(p["blurred"] for p in pictures(page))


def test_the_slider_wipes_between_before_and_after(look, drawn):
    page = look(drawn).page
    wipe, pair = page.locator(".wipe"), page.locator(".pair .duo").first
    after = pair.locator(".pic").nth(1)
    cut = lambda: float(re.search(r"([\d.]+)%\)", after.evaluate("e => getComputedStyle(e).clipPath"))[1])  # noqa: E731
    assert wipe.is_hidden()
    page.get_by_role("button", name="Slider").click()
    slider = page.get_by_role("slider")
    assert slider.is_visible() and slider.input_value() == "50" and cut() == 50
    boxes = [pair.locator(".pic").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0] == boxes[1]  # one lies on the other
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert slider.input_value() == "100" and cut() == 0  # all of "after"
    page.keyboard.press("Home")
    assert slider.input_value() == "0" and cut() == 100
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert cut() == 97 and slider.get_attribute("aria-valuetext") == "3 % after"
    page.get_by_role("button", name="Side by side").press("Enter")
    assert wipe.is_hidden() and after.evaluate("e => getComputedStyle(e).clipPath") == "none"


def test_in_the_slider_both_flagged_pictures_can_be_asked_for(look, drawn):
    """The picture that lies under the other answers the mouse where it shows."""
    page = look(drawn).page
    page.get_by_role("button", name="Slider").click()
    duo = page.locator(".pair .duo:has(.flagged.before):has(.flagged.after)").first
    duo.scroll_into_view_if_needed()
    box = duo.bounding_box()
    page.mouse.click(box["x"] + 10, box["y"] + box["height"] / 2)
    assert duo.locator(".before").get_attribute("aria-pressed") == "true" and duo.locator(".after").get_attribute("aria-pressed") == "false"
    page.mouse.click(box["x"] + box["width"] - 10, box["y"] + box["height"] / 2)
    assert duo.locator(".after").get_attribute("aria-pressed") == "true"


def test_the_grid_shows_the_prompts_that_are_chosen(look, drawn):
    page = look(drawn).page
    buttons = page.locator("[data-filter]")
    assert buttons.count() >= 7
    for button in buttons.all():
        button.focus()
        page.keyboard.press("Space")
        expected = int(button.locator("small").inner_text())
        assert page.locator(".pair:visible").count() == expected and button.get_attribute("aria-pressed") == "true"
        assert page.locator(".count").inner_text().startswith(f"{expected} pair")
    assert page.locator("[data-filter][aria-pressed=true]").count() == 1


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("which", ["real", "drawn"])
def test_a_phone_needs_no_sideways_scrolling(look, request, which, width):
    page = look(request.getfixturevalue(which), viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(WIDE, width) == []
    page.get_by_role("button", name="Slider").tap()
    assert page.evaluate(WIDE, width) == []
    small = """all => all.filter(e => { const b = e.getBoundingClientRect(); return b.width && Math.min(b.width, b.height) < 24; })
      .map(e => e.outerHTML.slice(0, 60))"""
    assert page.eval_on_selector_all("button, summary, nav a, input", small) == []  # WCAG 2.5.8: fingers need 24 pixels


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(look, drawn, scheme):
    page = look(drawn, color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(CONTRAST) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")
    # lines and dots stand out from the card, too (WCAG 1.4.11), as far as they can be told apart by colour at all
    strokes = page.eval_on_selector_all(".plot .curve", "all => all.map(e => getComputedStyle(e).stroke)")
    assert strokes and all(stroke not in ("none", "rgb(0, 0, 0)") for stroke in strokes)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(look, drawn):
    page = look(drawn).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip" and page.locator(".skip").bounding_box()["x"] >= 0
    hidden, reached = [], set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, ring, covered = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
              const top = document.elementFromPoint(b.x + b.width / 2, b.y + Math.min(b.height - 2, 8));
              return [e.tagName + "." + e.className, s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2,
                      !!top && !e.contains(top) && !top.contains(e)] }"""
        )
        reached.add(name.split(".")[0])
        if not ring or covered:
            hidden.append((name, ring, covered))
    assert hidden == [] and {"A", "BUTTON"} <= reached


def test_backwards_no_picture_hides_under_the_toolbar(look, drawn):
    """The toolbar sticks to the top; a picture that gets the focus must not lie under it (WCAG 2.4.11)."""
    page = look(drawn, viewport={"width": 900, "height": 500}).page
    page.get_by_role("button", name="Slider").click()
    page.locator(".pair .flagged").last.focus()
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        top, bar = page.evaluate(
            "() => [document.activeElement.getBoundingClientRect().top, document.querySelector('.tools').getBoundingClientRect().bottom]"
        )
        assert top >= bar - 1


def test_everything_has_a_name_and_the_headings_are_in_order(look, drawn):
    page = look(drawn).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    tree = page.locator("body").aria_snapshot()
    assert not re.findall(r"^\s*- (?:button|link|slider|img|table)(?: \[[^]]*\])*:?$", tree, re.MULTILINE)
    levels = [int(name[1]) for name in page.eval_on_selector_all("h1, h2, h3", "all => all.map(e => e.tagName)")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert page.evaluate("document.documentElement.lang") == "en" and page.title()
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    anchors = page.eval_on_selector_all("a[href^='#']", "all => all.map(e => e.getAttribute('href').slice(1))")
    assert set(anchors) <= set(ids)


def test_without_script_it_can_be_read_and_stays_blurred(look, drawn):
    page = look(drawn, java_script_enabled=False).page
    assert page.locator("h1").is_visible() and page.locator("noscript").count() == 1
    assert page.locator(".flagged img[src]").count() > 20
    for picture in page.locator(".pair .flagged img").all()[:4]:
        assert picture.get_attribute("src") == picture.get_attribute("data-blurred")
