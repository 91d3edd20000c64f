"""Real Chromium against a real server process; run by `make test-browser`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from served import Served, launch  # noqa: E402

from web_study import consent, make_study  # noqa: E402

PATIENCE = 60_000  # ms: a busy machine is slow, and waiting costs nothing where it is not


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = launch(running)
        yield browser
        browser.close()


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
def browse(chromium):
    """browse(served, **context settings) -> a page of a new browser profile; a script error or a policy violation fails the test."""
    contexts, problems = [], []

    def open_page(served: Served, **settings):
        context = chromium.new_context(base_url=served.url, **settings)
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
