"""Every route against its own OpenAPI schema: whatever is sent, no answer is a 5xx, and JSON answers are what the schema says."""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from hfi.feedback.web.app import create_app
from hfi.feedback.web.state import State
from web_study import consent, csrf_of, make_study


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One app for all cases, and a browser that holds a valid form token."""
    made = make_study(tmp_path_factory.mktemp("fuzz") / "study", pictures=40)
    consent(made)
    state = State(made)
    client = TestClient(create_app(state), base_url="http://127.0.0.1:8765", follow_redirects=False)
    yield client
    state.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_no_route_fails(served, mode):
    """What the schema allows, and what it does not."""
    schema = schemathesis.openapi.from_dict(served.app.openapi())
    for operation in (found.ok() for found in schema.get_all_operations()):

        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def every_case(case):
            check(case, served)

        with contextlib.suppress(Unsatisfiable):  # a route without parameters allows nothing that is wrong
            every_case()


def check(case, served) -> None:
    token = csrf_of(served.get("/settings").text)
    sent = case.as_transport_kwargs(base_url="http://127.0.0.1:8765")
    headers = {str(name): str(value) for name, value in (sent.get("headers") or {}).items()}
    headers = {name: value for name, value in headers.items() if value.isascii() and value.isprintable() and name.lower() != "cookie"}
    data = sent.get("data")
    if isinstance(data, list):
        pairs, data = data, {}
        for name, value in pairs:
            data.setdefault(name, []).append(value)
    if isinstance(data, dict):
        data = data | {"csrf": token}
    answer = served.request(
        sent["method"],
        sent["url"],
        params=sent.get("params"),
        headers=headers | {"x-csrf-token": token},
        data=data if isinstance(data, dict) else None,
        json=sent.get("json"),
        files=sent.get("files"),
        content=data if isinstance(data, (bytes, str)) else None,
    )
    assert answer.status_code < 500, f"{case.method} {case.path}: {answer.status_code} {answer.text[:300]}"
    if case.path.startswith("/api/"):
        assert answer.headers["content-type"] == "application/json"
        if answer.status_code >= 400 and answer.status_code != 405:
            assert {"error", "kind"} <= set(answer.json())


def test_the_schema_names_every_route(served):
    paths = served.app.openapi()["paths"]
    assert {"/label", "/label/answer", "/api/answers", "/api/undo", "/api/next", "/review", "/admin/invite", "/login"} <= set(paths)
