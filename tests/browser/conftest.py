"""A real Chromium, driven by playwright, and two reports: of a tiny study that was really run, and of a made-up one with pictures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "cli"), str(TESTS / "unit" / "report")]

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Seen:
    """An open page, with what it complained of and what it asked the network for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium; `make test-browser` installs it."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    assert found, "no Chromium here: run `make test-browser`"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def look(browser) -> Iterator[Callable[..., Seen]]:
    """Open a report from its file, in a fresh profile; options are those of playwright's `new_context`."""
    contexts = []

    def open_it(report: Path, **options) -> Seen:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce", **options})
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        seen = Seen(page)
        page.on("console", lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(report.as_uri())
        return seen

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """The report of a made-up harm study whose pictures show something: the page with all its parts."""
    import fake_study

    from hfi.report.report import report

    study, evaluated = fake_study.build(tmp_path_factory.mktemp("drawn") / "study", rate_after=0.2, back=0.6, neither_after=0.2)
    return report(evaluated, study)


@pytest.fixture(scope="session")
def real(tmp_path_factory, tiny_root) -> Path:
    """The report of a study on the tiny pipeline, made by the command line: drawn, judged by hand, run to its end."""
    from driver import judge_by_hand

    import tiny
    from hfi.cli.app import call

    folder = tmp_path_factory.mktemp("real")
    recipe, study = folder / "tiny.yaml", folder / "mine"
    settings = tiny.study_settings(tiny_root)
    settings["invert"]["steps"] = settings["erase"]["steps"] = 50  # the logs say something every 25 steps: enough for curves
    recipe.write_text(yaml.safe_dump(settings))
    for command in (["init", study, "--from", recipe], ["generate", study]):
        assert call([str(word) for word in command]) == 0
    judged = judge_by_hand(study, folder / "judgements.jsonl")
    for command in (["label", study, "--import", judged], ["run", study]):
        assert call([str(word) for word in command]) == 0
    return study / "report.html"
