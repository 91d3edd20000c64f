"""A real Chromium, driven by playwright. For the app: a real server process. For the report: one of a tiny study that was really run,
and one of a made-up study with pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from web_study import consent, make_study

from .served import Served, launch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "cli"), str(TESTS / "unit" / "report")]

PATIENCE = 60_000  # ms: a busy machine is slow, and waiting costs nothing where it is not


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

    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def serve(tmp_path):
    """serve(pictures=..., annotators=("local",), blur=..., **label settings) -> Served."""
    running = []

    def start(pictures: int = 24, annotators=("local",), blur: bool = False, prepare=None, **label) -> Served:
        study = make_study(tmp_path / f"study{len(running)}", pictures, **label)
        if annotators:
            consent(study, *annotators, blur=blur)
        if prepare:
            prepare(study)
        running.append(Served(study).start())
        return running[-1]

    yield start
    for one in running:
        one.kill()


@pytest.fixture
def browse(browser):
    """browse(served, **context settings) -> a page of a new browser profile; a script error or a policy violation fails the test."""
    contexts, problems = [], []

    def open_page(served: Served, **settings):
        context = browser.new_context(base_url=served.url, **settings)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None)
        contexts.append(context)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, problems


@pytest.fixture
def look(browser) -> Iterator[Callable[..., Seen]]:
    """Open a report from its file, in a fresh profile; options are those of playwright's `new_context`."""
    contexts = []

    def open_it(report: Path, **options) -> Seen:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce", **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
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

    study, evaluated = fake_study.build(tmp_path_factory.mktemp("drawn") / "study", rate_after=0.2, back=0.6, neither_after=0.2, also=0.3)
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
