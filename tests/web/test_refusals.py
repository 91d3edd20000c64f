"""Bad input and bad people: each gets a clear 4xx, nothing is stored, and the event table keeps that it happened."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest

from hfi.feedback.events import latest
from web_study import judgements

KEY = "x-csrf-token"


def events(app) -> list[tuple[str, int]]:
    return [(event.kind, event.status) for event in latest(app.state.hfi.store)]


def item(client) -> dict:
    return client.get("/api/next?count=1").json()["items"][0]


def body(client, **changed) -> dict:
    return {"submission": str(uuid4()), "item": item(client)["id"], "value": "present"} | changed


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"item": "forged"}, 404),
        ({"item": "0" * 24}, 404),
        ({"item": "../../etc/passwd"}, 422),
        ({"item": 7}, 422),
        ({"item": None}, 422),
        ({"value": "ranked"}, 422),
        ({"value": "yes"}, 422),
        ({"value": ["present"]}, 422),
        ({"value": "present", "ranking": ["p001", "p002"]}, 422),
        ({"ranking": ["p001"] * 100}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": "long"}, 422),
        ({"seconds": 1e300}, 422),
        ({"submission": "not-a-uuid"}, 422),
        ({"submission": ""}, 422),
        ({"guideline": 2**40}, 422),
        ({"guideline": 999}, 422),
        ({"revises": "5d0f5a4e-6f0e-4a53-9a51-0f3f1c3a7f10"}, None),
        ({"annotator": "somebody-else"}, 422),
        ({"value": "pre\0sent"}, 422),
    ],
    ids=str,
)
def test_wrong_answers_are_refused_and_kept_in_the_event_table(client, app, study, changed, status):
    answer = client.post("/api/answers", json=body(client, **changed), headers={KEY: client.csrf()})
    if status is None:  # it revises nothing that stands: an ordinary first answer
        assert answer.status_code in (200, 409, 422)
        return
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "remedy", "kind"} and judgements(study) == []
    assert events(app)[0][1] == status


def test_a_body_that_is_no_json_or_too_large_is_refused(client, app, study):
    headers = {KEY: client.csrf(), "content-type": "application/json"}
    for sent, status in ((b"{", 422), (b"[]", 422), (b"\xff\xfe", 422), (b"1" * 300_000, 413), (b"[" * 100_000, 422)):
        assert client.post("/api/answers", content=sent, headers=headers).status_code in (status, 400), sent[:10]
    chunks = (b"x" * 65536 for _ in range(10))
    assert client.post("/api/answers", content=chunks, headers=headers).status_code == 413
    assert judgements(study) == [] and ("http", 413) in events(app)


def test_a_replay_gives_the_first_receipt_and_another_answer_under_its_name_is_refused(client, study):
    sent = body(client)
    token = {KEY: client.csrf()}
    first = client.post("/api/answers", json=sent, headers=token)
    assert client.post("/api/answers", json=sent, headers=token).json() == first.json()
    assert client.post("/api/answers", json=sent | {"value": "absent"}, headers=token).status_code == 422
    assert client.post("/api/answers", json=sent | {"submission": str(uuid4())}, headers=token).status_code == 409
    assert [row.value for row in judgements(study)] == ["present"]


def test_reordered_submissions_end_in_one_state(client, study):
    """An undo that overtakes its answer is refused and does not stand in its way."""
    sent, token = body(client), {KEY: client.csrf()}
    assert client.post("/api/undo", json={"submission": sent["submission"]}, headers=token).status_code == 404
    assert client.post("/api/answers", json=sent, headers=token).status_code == 200
    assert client.post("/api/undo", json={"submission": sent["submission"]}, headers=token).json()["withdrawn"]
    assert client.post("/api/undo", json={"submission": sent["submission"]}, headers=token).json()["withdrawn"]
    assert judgements(study) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {KEY: "0" * 64},
        {KEY: ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8765"},
    ],
    ids=str,
)
def test_requests_from_elsewhere_are_refused(client, app, study, headers):
    sent = body(client)
    if KEY not in headers and headers:
        headers = headers | {KEY: client.csrf()}
    refused = client.post("/api/answers", json=sent, headers=headers)
    assert refused.status_code == 403 and refused.json()["kind"] == "csrf"
    assert judgements(study) == [] and events(app)[0] == ("csrf", 403)
    form = client.post("/label/answer", data=sent | {"csrf": "0" * 64})
    assert form.status_code == 403 and judgements(study) == []


def test_another_browsers_token_is_worth_nothing(client, new_client, study):
    sent, other = body(client), new_client()
    assert other.post("/api/answers", json=sent, headers={KEY: client.csrf()}).status_code == 403
    assert client.post("/api/answers", json=sent, headers={KEY: client.csrf()}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "../study.yaml",
        "..%2fstudy.yaml",
        "%2e%2e%2f.web-secret",
        "p001.png",
        "nothing",
        "p001%2f..%2fp002",
        ".web-secret",
        "p001%00.png",
        "-",
        "a" * 65,
        "p001%0d%0aset-cookie:x",
    ],
)
def test_no_path_reaches_a_file(client, name):
    answer = client.get(f"/image/{name}")
    assert answer.status_code in (404, 422) and b"concept:" not in answer.content


def test_files_that_are_no_pictures_are_not_served(client, app, study):
    folder = study.root / "generate" / "images"
    (folder / "p000.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (folder / "p001.png").unlink()
    (folder / "p002.png").unlink()
    (folder / "p002.png").symlink_to(study.root.parent / "outside.png")
    (study.root.parent / "outside.png").write_bytes((folder / "p003.png").read_bytes())
    for name in ("p000", "p001", "p002"):
        assert client.get(f"/image/{name}").status_code == 404
    good = client.get("/image/p003")
    assert good.status_code == 200 and good.headers["content-type"] == "image/png" and "private" in good.headers["cache-control"]


def test_the_event_table_keeps_nothing_that_was_sent(client, app):
    client.get("/invite/secret-token-that-nobody-may-read")
    client.post("/api/answers", json=body(client, item="<script>alert(1)</script>"), headers={KEY: client.csrf()})
    kept = str(latest(app.state.hfi.store))
    assert "secret-token" not in kept and "<script>" not in kept
    assert "<script>alert" not in client.get("/admin/events").text


def test_a_flood_of_refusals_fills_no_table(client, app):
    for _ in range(300):
        app.state.hfi.log("invalid", 422, None, "POST /x", "again")
    assert len(latest(app.state.hfi.store, 1000)) <= 120


def test_a_busy_disk_is_a_503_that_the_page_tries_again(client, app, monkeypatch):
    from hfi.errors import HFIError

    def full(*_):
        raise HFIError("the disk is full", remedy="free some space")

    sent, token = body(client), {KEY: client.csrf()}
    monkeypatch.setattr(app.state.hfi.queue, "submit", full)
    answer = client.post("/api/answers", json=sent, headers=token)
    assert answer.status_code == 503 and answer.headers["retry-after"] and "free some space" in answer.json()["remedy"]


def test_hostile_words_in_settings_of_a_study_are_shown_as_words(tmp_path):
    from starlette.testclient import TestClient

    from hfi.feedback.web.app import create_app
    from hfi.feedback.web.state import State
    from web_study import consent, make_study

    made = make_study(tmp_path / "hostile", name='"><script>alert(1)</script>', guideline="<img src=x onerror=alert(1)>?")
    consent(made)
    state = State(made)
    page = TestClient(create_app(state), base_url="http://127.0.0.1").get("/label").text
    state.close()
    assert "<script>alert" not in page and "<img src=x" not in page and re.search("&lt;img src=x", page)
