"""A picture of every page of the labelling app: desktop and phone, light and dark, into build/screenshots/. Run by `make screenshots`.

The pictures to judge are the embedded model's; the judgements on the reviewer's page are of simulated annotators, stored and shown as
such. Two of the pictures go into the docs with --docs.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from playwright.sync_api import sync_playwright  # noqa: E402
from served import Served, launch  # noqa: E402

from hfi.feedback.judgements import now  # noqa: E402
from hfi.feedback.queue import Queue  # noqa: E402
from hfi.feedback.store import Store  # noqa: E402
from hfi.workspace import Workspace  # noqa: E402

OUT = ROOT / "build" / "screenshots"
VIEWS = {"desktop": {"viewport": {"width": 1280, "height": 800}}, "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True}}
GUIDELINE = """Is there a **weapon** in the picture? A thing made to hurt, drawn so that one would take it for one.

- A kitchen knife counts: it is drawn like a dagger.
- Scissors, hammers and toys do not.
- If only the style makes you doubt, say *Unsure*.
"""
SHOTS = {  # name -> (address, keys pressed first)
    "consent": ("/consent", ()),
    "quiz": ("/quiz", ()),
    "label": ("/label", ("f", "j")),
    "label-held": ("/label", ("hold",)),
    "help": ("/label", ("?",)),
    "blank": ("/label", ("Escape",)),
    "progress": ("/progress", ()),
    "settings": ("/settings", ()),
    "guideline": ("/guideline", ()),
    "review": ("/review?who=everyone", ()),
    "disagreements": ("/review/disagreements?who=everyone", ()),
    "gold": ("/review/gold", ()),
    "accounts": ("/admin/accounts", ()),
    "edit-guideline": ("/admin/guideline", ()),
    "events": ("/admin/events", ()),
    "error": ("/label?round=nothing", ()),
}


def drawn() -> Workspace:
    """A study with 96 pictures of the embedded model and simulated judgements; kept from one run to the next."""
    if (OUT / "study" / "label" / "manifest.json").exists():
        return Workspace.open(OUT / "study")
    from hfi import method
    from hfi.config import load_config, with_overrides

    changes = {"name": "weapon", "generate.images": 96, "generate.near_words": 0}
    config = with_overrides(load_config(ROOT / "recipes" / "demo.yaml"), changes)
    study = Workspace.create(OUT / "study", config)
    method.run(study, until="label")
    return study


def prepare(study: Workspace) -> None:
    """The guideline with examples, and gold pictures; the simulated annotators have judged already."""
    rows = [json.loads(line) for line in study.path("generate", "images.jsonl").read_text().splitlines()]
    weapons = [row for row in rows if row["object"] in ("bomb", "axe", "dagger", "crossed swords", "kitchen knife")]
    others = [row for row in rows if row["purpose"] != "concept"]
    study.path("guideline.md").write_text(GUIDELINE)
    for folder, chosen in (("examples", weapons[:3]), ("counter-examples", others[:3])):
        study.path("guideline", folder).mkdir(parents=True, exist_ok=True)
        for row in chosen:
            shutil.copy(study.path("generate", row["file"]), study.path("guideline", folder, f"{row['object']}.png"))
    with Store.of(study) as store:
        queue = Queue.of(study, store)
        for row, value, note in ((weapons[3], "present", "A blade on a handle."), (others[4], "absent", "Nothing here can hurt anybody.")):
            queue.set_gold(row["id"], value, note, quiz=True)


def person(study: Workspace, quiz_done: bool) -> None:
    with Store.of(study) as store:
        queue = Queue.of(study, store)
        queue.save_preferences("local", replace(queue.preferences("local"), consented=now(), quiz_done=quiz_done))


def shoot(page, name: str, address: str, keys: tuple[str, ...], path: Path) -> None:
    page.goto(address)
    page.wait_for_function("() => !document.body.innerText.includes('Counting the judgements')")
    page.wait_for_function(
        "() => [...document.querySelectorAll('img')].filter((i) => i.offsetParent && i.getBoundingClientRect().top < innerHeight)"
        ".every((i) => i.complete)"
    )
    for key in keys:
        page.wait_for_timeout(300)
        page.keyboard.down(" ") if key == "hold" else page.keyboard.press(key)
    page.wait_for_timeout(400)
    page.screenshot(path=path)
    if "hold" in keys:
        page.keyboard.up(" ")
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    print(path.name, "WIDER THAN THE WINDOW" if wide else "", flush=True)


def main() -> None:
    shutil.rmtree(OUT / "work", ignore_errors=True)
    source = drawn()
    shutil.copytree(source.root, OUT / "work")
    study = Workspace.open(OUT / "work")
    prepare(study)
    served = Served(study).start()
    try:
        with sync_playwright() as playwright:
            browser = launch(playwright)
            for view, settings in VIEWS.items():
                for scheme in ("light", "dark"):
                    context = browser.new_context(base_url=served.url, color_scheme=scheme, **settings)
                    context.set_default_timeout(60_000)
                    page = context.new_page()
                    for name, (address, keys) in SHOTS.items():
                        person(study, quiz_done=name != "quiz")
                        shoot(page, name, address, keys, OUT / f"{name}-{view}-{scheme}.png")
                    context.close()
            browser.close()
    finally:
        served.kill()
    if "--docs" in sys.argv:
        for name, target in (("label", "labelling.png"), ("disagreements", "review.png")):
            shutil.copy(OUT / f"{name}-desktop-light.png", ROOT / "docs" / "images" / target)


if __name__ == "__main__":
    main()
