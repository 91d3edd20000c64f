"""The app without a network: requests go straight into it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from hfi.feedback.web.app import create_app
from hfi.feedback.web.state import State
from web_study import consent, csrf_of, make_study

ADDRESS = "http://127.0.0.1:8765"


class Client(TestClient):
    """A browser without JavaScript."""

    def form(self, path: str, page: str = "/settings", **fields):
        """Send a form with the token of a page."""
        return self.post(path, data={"csrf": self.csrf(page), **fields})

    def csrf(self, page: str = "/settings") -> str:
        return csrf_of(self.get(page, follow_redirects=True).text)

    def answer(self, item: str, submission: str, value: str = "present", **more):
        """Send an answer as the page's module does."""
        data = {"submission": submission, "item": item, "value": value, **more}
        return self.post("/api/answers", json=data, headers={"x-csrf-token": self.csrf()})


@pytest.fixture
def study(tmp_path):
    made = make_study(tmp_path / "study")
    consent(made)
    return made


@pytest.fixture
def app(study):
    state = State(study)
    yield create_app(state)
    state.close()


@pytest.fixture
def client(app):
    return Client(app, base_url=ADDRESS, follow_redirects=False)


@pytest.fixture
def new_client(app):
    """Another browser of the same server."""
    return lambda: Client(app, base_url=ADDRESS, follow_redirects=False)
