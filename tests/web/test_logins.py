"""Studies with accounts: logging in, invites, roles, and what each role may not do."""

from __future__ import annotations

import re
import time
from uuid import uuid4

import pytest

from hfi.feedback.accounts import Accounts
from hfi.feedback.events import latest
from web_study import consent, csrf_of, judgements

PASSWORD = "correct horse battery staple"


@pytest.fixture
def people(app, study):
    """One account of each role, and a function that logs a browser in."""
    accounts = app.state.hfi.accounts
    made = {role: accounts.add(role, PASSWORD, role) for role in ("annotator", "reviewer", "admin")}
    consent(study, *(account.pseudonym for account in made.values()))
    return made


def logged_in(client, name: str):
    answer = client.post("/login", data={"csrf": csrf_of(client.get("/login").text), "name": name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return client


def test_every_page_asks_for_a_login_once_there_are_accounts(people, client):
    for path in ("/label", "/review", "/admin/accounts", "/settings"):
        answer = client.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?next=")
    for path in ("/api/next", "/image/p001"):
        assert client.get(path).status_code in (401, 303) and b"PNG" not in client.get(path).content
    assert client.post("/api/answers", json={}).status_code in (401, 403)


def test_logging_in_and_out(people, client):
    page = client.get("/login?next=/progress")
    wrong = client.post("/login", data={"csrf": csrf_of(page.text), "name": "annotator", "password": "wrong"})
    unknown = client.post("/login", data={"csrf": csrf_of(page.text), "name": "nobody", "password": "wrong"})
    assert wrong.status_code == unknown.status_code == 401
    says = [re.search(r'class="wrong">([^<]+)', answer.text)[1] for answer in (wrong, unknown)]
    assert says[0] == says[1], "a wrong name and a wrong password read alike"
    right = client.post("/login", data={"csrf": csrf_of(page.text), "name": "annotator", "password": PASSWORD, "next": "/progress"})
    assert right.headers["location"] == "/progress"
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert client.get("/label").status_code == 200
    assert client.form("/logout").headers["location"] == "/login"
    assert client.get("/label").status_code == 303


@pytest.mark.parametrize("where", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/login", "x"])
def test_a_login_leads_nowhere_else(people, client, where):
    page = client.get("/login", params={"next": where})
    answer = client.post("/login", data={"csrf": csrf_of(page.text), "name": "annotator", "password": PASSWORD, "next": where})
    assert answer.headers["location"] == "/label"


def test_guessing_passwords_is_slowed(people, client, app):
    token = csrf_of(client.get("/login").text)
    answers = [client.post("/login", data={"csrf": token, "name": "admin", "password": f"guess {n}"}) for n in range(6)]
    assert answers[-1].status_code == 429 and int(answers[-1].headers["retry-after"]) > 0
    right = client.post("/login", data={"csrf": token, "name": "admin", "password": PASSWORD})
    assert right.status_code == 429, "the right password does not tell itself apart"
    assert any(event.status == 429 for event in latest(app.state.hfi.store))


def test_roles_end_where_they_end(people, new_client):
    annotator, reviewer = logged_in(new_client(), "annotator"), logged_in(new_client(), "reviewer")
    for path in ("/review", "/review/disagreements", "/review/gold", "/admin/accounts", "/admin/guideline", "/admin/events"):
        assert annotator.get(path).status_code == 403
    assert reviewer.get("/review").status_code == 200
    for path in ("/admin/accounts", "/admin/events"):
        assert reviewer.get(path).status_code == 403
    assert annotator.form("/review/adjudicate", image="p001", value="present", submission=str(uuid4())).status_code == 403
    assert annotator.form("/admin/invite", name="x", role="admin").status_code == 403
    assert reviewer.form("/admin/remove", name="admin").status_code == 403
    assert "/admin" not in annotator.get("/label").text


def test_an_invite_makes_an_account_once(people, new_client):
    admin = logged_in(new_client(), "admin")
    page = admin.form("/admin/invite", "/admin/accounts", name="newcomer", role="annotator").text
    path = re.search(r"http://[^<]*(/invite/[A-Za-z0-9_-]+)", page)[1]
    guest = new_client()
    assert "Welcome, newcomer" in guest.get(path).text
    token = csrf_of(guest.get(path).text)
    for first, second in (("short", "short"), (PASSWORD, "something else entirely")):
        assert guest.post(path, data={"csrf": token, "password": first, "again": second}).status_code == 422
    assert guest.post(path, data={"csrf": token, "password": PASSWORD, "again": PASSWORD}).headers["location"] == "/label"
    assert guest.get("/label").headers["location"] == "/consent"
    assert new_client().get(path).status_code == 404, "an invite works once"


def test_guessed_invites_are_not_found(people, client, app):
    for token in ("a", "A" * 43, "0" * 128):
        assert client.get(f"/invite/{token}").status_code == 404
    assert client.get("/invite/..%2f..").status_code in (404, 422)
    assert any(event.route == "GET /invite/{invitation}" for event in latest(app.state.hfi.store))


def test_nobody_answers_or_undoes_for_another(people, new_client, study):
    one, other = logged_in(new_client(), "annotator"), logged_in(new_client(), "reviewer")
    item = one.get("/api/next").json()["items"][0]["id"]
    stolen = other.answer(item, str(uuid4()))
    assert stolen.status_code == 403 and judgements(study) == []
    submission = str(uuid4())
    assert one.answer(item, submission).status_code == 200
    undone = other.post("/api/undo", json={"submission": submission}, headers={"x-csrf-token": other.csrf()})
    assert undone.status_code in (403, 404) and len(judgements(study)) == 1
    assert judgements(study)[0].annotator == people["annotator"].pseudonym != "annotator"


def test_an_administrator_cannot_lock_themselves_out(people, new_client):
    admin = logged_in(new_client(), "admin")
    assert admin.form("/admin/remove", name="admin").status_code == 422
    assert admin.form("/admin/remove", name="reviewer").status_code == 303
    assert ">reviewer</th>" not in admin.get("/admin/accounts").text


def test_who_logs_out_or_is_removed_is_out_at_once(people, new_client):
    admin, annotator, reviewer = (logged_in(new_client(), name) for name in ("admin", "annotator", "reviewer"))
    token, headers = annotator.cookies, {"x-csrf-token": annotator.csrf()}
    assert annotator.get("/api/session").status_code == 200
    annotator.form("/logout")
    annotator.cookies = token  # somebody kept the cookie
    assert annotator.get("/api/session").status_code == 401
    assert annotator.post("/api/answers", json={}, headers=headers).status_code in (401, 403)
    assert reviewer.get("/review").status_code == 200
    admin.form("/admin/remove", "/admin/accounts", name="reviewer")
    assert reviewer.get("/api/session").status_code == 401


def test_who_is_removed_by_another_process_is_out_within_two_seconds(people, new_client, app, study):
    annotator = logged_in(new_client(), "annotator")
    assert annotator.get("/api/session").status_code == 200
    elsewhere = Accounts.of(study)
    elsewhere.remove("annotator")
    elsewhere.close()
    end = time.monotonic() + 2.0
    while time.monotonic() < end and annotator.get("/api/session").status_code == 200:
        time.sleep(0.05)
    assert annotator.get("/api/session").status_code == 401 and annotator.get("/label").status_code == 303
