"""The pages as somebody without JavaScript meets them: forms, links, redirects."""

from __future__ import annotations

import re
from types import SimpleNamespace
from uuid import uuid4

import pytest

from hfi.errors import HFIError
from hfi.feedback.label import label
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from web_study import judgements, make_study

PAGES = (
    "/label",
    "/guideline",
    "/progress",
    "/settings",
    "/consent",
    "/stopped",
    "/quiz",
    "/blank",
    "/review",
    "/review/disagreements",
    "/review/gold",
    "/admin/accounts",
    "/admin/guideline",
    "/admin/events",
)


def fields(page: str) -> dict:
    """The hidden fields of the answer form."""
    form = re.search(r'<form method="post" action="/label/answer".*?</form>', page, re.DOTALL)[0]
    return dict(re.findall(r'name="(csrf|submission|shown|guideline|item|revises|round)" value="([^"]*)"', form))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_opens_and_holds_no_inline_script_or_style(client, path):
    page = client.get(path)
    assert page.status_code == 200, page.headers.get("location")
    assert "<script>" not in page.text and not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["cache-control"] == "no-store"


def test_nothing_is_shown_before_consent(tmp_path, app, client):
    app.state.hfi.queue.save_preferences("local", type(app.state.hfi.queue.preferences("local"))())
    assert client.get("/label").headers["location"] == "/consent"
    assert client.get("/api/next").json()["items"] == []
    page = client.get("/consent").text
    assert "circle" in page and "evidence" in client.get("/settings").text
    assert client.form("/consent", "/consent", choice="agree").headers["location"] == "/label"
    assert client.get("/label").status_code == 200
    assert not app.state.hfi.queue.preferences("local").blur, "the box was not ticked"


def test_declining_is_respected(client):
    assert client.form("/consent", "/consent", choice="decline").headers["location"] == "/stopped"
    assert client.get("/api/next").json()["items"] == []


def test_an_answer_by_form_is_stored_once_however_often_it_is_sent(client, study):
    sent = fields(client.get("/label").text) | {"value": "present"}
    for _ in range(3):
        assert client.post("/label/answer", data=sent).status_code == 303
    (row,) = judgements(study)
    assert (row.value, row.annotator, row.guideline) == ("present", "local", int(sent["guideline"])) and row.seconds < 60
    assert fields(client.get("/label").text)["item"] != sent["item"]


def test_back_change_and_undo_by_form(client, study):
    first = fields(client.get("/label").text)
    client.post("/label/answer", data=first | {"value": "present"})
    again = client.get(f"/label?item={first['item']}").text
    assert re.search(r'value="present"[^>]*aria-pressed="true"', again)
    client.post("/label/answer", data=fields(again) | {"value": "absent"})
    assert [row.value for row in judgements(study)] == ["absent"]
    undo = re.search(r'action="/label/undo">.*?name="submission" value="([^"]+)"', client.get("/label").text, re.DOTALL)[1]
    client.form("/label/undo", "/label", submission=undo)
    assert [row.value for row in judgements(study)] == ["present"], "the answer that was changed counts again"


def test_progress_counts_and_lists_answers(client):
    for value in ("present", "absent", "skip"):
        client.post("/label/answer", data=fields(client.get("/label").text) | {"value": value})
    page = client.get("/progress").text
    assert re.search(r"Done</h2><p class=\"big\">3<", page) and page.count(">change<") == 3
    assert client.get("/api/progress").json()["done"] == 3


def test_the_daily_cap_and_the_opt_out_end_the_day(tmp_path):
    from starlette.testclient import TestClient

    from hfi.feedback.web.app import create_app
    from hfi.feedback.web.state import State
    from web_study import consent

    made = make_study(tmp_path / "capped", queue={"daily_cap": 1})
    consent(made)
    state = State(made)
    client = TestClient(create_app(state), base_url="http://127.0.0.1", follow_redirects=False)
    client.post("/label/answer", data=fields(client.get("/label").text) | {"value": "absent"})
    assert "enough for today" in client.get("/label").text
    state.close()


def test_opting_out_hides_every_picture(client):
    assert client.form("/settings", opted_out="on").status_code == 303
    assert "/image/" not in client.get("/label").text and "opted out" in client.get("/label").text


@pytest.fixture
def ranking(tmp_path):
    from starlette.testclient import TestClient

    from hfi.feedback.web.app import create_app
    from hfi.feedback.web.state import State
    from web_study import consent

    made = make_study(tmp_path / "ranking", judgement="ranking")
    consent(made)
    state = State(made)
    yield made, TestClient(create_app(state), base_url="http://127.0.0.1", follow_redirects=False)
    state.close()


def test_a_ranking_by_form_refuses_ties_with_a_hint(ranking):
    study, client = ranking
    page = client.get("/label").text
    sent = fields(page) | {"value": "ranked", "image": re.findall(r'name="image" value="([^"]+)"', page)}
    tied = client.post("/label/answer", data=sent | {"place": ["1", "2", "2", "3", "x"]})
    assert tied.status_code == 422 and "No ties: pictures 2 and 3" in tied.text
    assert tied.text.count(" selected") == 5, "what was chosen stays"
    missing = client.post("/label/answer", data=sent | {"place": ["1", "2", "", "3", "x"]})
    assert missing.status_code == 422 and "Picture 3 has no place" in missing.text
    assert client.post("/label/answer", data=sent | {"place": ["2", "1", "4", "3", "x"]}).status_code == 303
    (row,) = judgements(study)
    names = sent["image"]
    assert row.ranking == (names[1], names[0], names[3], names[2]) and row.excluded == (names[4],)


def test_keys_are_remapped_and_clashes_refused(client, app):
    sent = {"action": ["present", "look"], "key": ["k", "Space"], "blur": "on", "toggle": "on"}
    assert client.form("/settings", **sent).status_code == 303
    chosen = app.state.hfi.queue.preferences("local")
    assert chosen.blur and dict(chosen.keys) == {"present": "k", "hold": "toggle"}
    assert ">k</kbd>" in client.get("/label").text
    for key, words in (("j", "stands for both"), ("5", "fixed meaning"), ("nonsense", "no key"), ("", "no key")):
        refused = client.form("/settings", action=["present"], key=[key])
        assert refused.status_code == 422 and words in refused.text
    client.form("/settings", action=["present"], key=["q"], reset="on")
    assert app.state.hfi.queue.preferences("local").keys == ()


def test_a_changed_guideline_is_a_new_version_and_old_ones_stay_readable(client, study):
    first = client.get("/api/next").json()["guideline"]
    client.form(
        "/admin/guideline",
        "/admin/guideline",
        text="# Circles\r\n\r\nAn *oval* is one too. <script>alert(1)</script> ![x](http://elsewhere/x.png)",
    )
    page = client.get("/guideline").text
    assert "<em>oval</em>" in page and "<script>alert" not in page and "elsewhere" not in page
    assert client.get("/api/next").json()["guideline"] == first + 1
    old = client.get(f"/guideline?version={first}").text
    assert "as it was then" in old and "oval" not in old
    assert client.get("/guideline?version=99").status_code == 404


def test_example_pictures_are_shown_and_part_of_the_version(client, study):
    before = client.get("/api/next").json()["guideline"]
    for name in ("examples", "counter-examples"):
        (study.root / "guideline" / name).mkdir(parents=True)
    source = study.root / "generate" / "images" / "p001.png"
    (study.root / "guideline" / "examples" / "a_round-one.png").write_bytes(source.read_bytes())
    page = client.get("/label").text
    (name,) = set(re.findall(r"/guideline/picture/([0-9a-f]{16})", page))
    assert "a round one" in page and client.get(f"/guideline/picture/{name}").headers["content-type"] == "image/png"
    assert client.get("/api/next").json()["guideline"] == before + 1
    (study.root / "guideline" / "examples" / "link.png").symlink_to("/etc/hostname")
    assert ">link<" not in client.get("/guideline").text, "a link out of the study is not followed"


def test_the_quiz_comes_first_and_teaches(client, app):
    queue: Queue = app.state.hfi.queue
    queue.set_gold("p001", "present", "It is round.", quiz=True)
    queue.set_gold("p002", "absent", "It has corners.", quiz=True)
    queue.save_preferences("local", type(queue.preferences("local"))(consented="2026-01-01T00:00:00Z"))
    assert client.get("/label").headers["location"] == "/quiz"
    for _ in range(2):
        page = client.get("/quiz").text
        item, submission, shown = (re.search(rf'name="{name}" value="([^"]+)"', page)[1] for name in ("item", "submission", "shown"))
        lesson = client.form("/quiz", "/quiz", item=item, submission=submission, shown=float(shown) - 4, value="present")
        assert lesson.status_code == 200 and ("It is round." in lesson.text or "It has corners." in lesson.text)
    assert "1 of 2 as expected" in client.get("/quiz").text
    assert client.get("/label").status_code == 200
    assert all(4 <= row.seconds < 600 and row.guideline for row in judgements(app.state.hfi.study))


def test_the_pace_waits_for_five_answers(client, app):
    for number, item in enumerate(app.state.hfi.queue.next("local", 6)):
        assert client.get("/api/progress").json()["pace_per_minute"] == 0 or number >= 5
        app.state.hfi.queue.submit("local", item.id, queue_answer("absent"), str(uuid4()))
    assert client.get("/api/progress").json()["pace_per_minute"] > 0
    assert "minutes are left" in client.get("/progress").text


def test_reviewers_see_numbers_decide_and_take_back(client, app, study):
    queue: Queue = app.state.hfi.queue
    for who, value in (("a", "present"), ("b", "absent")):
        for item in queue.next(who, 24):
            queue.submit(who, item.id, queue_answer(value), str(uuid4()))
    page = fresh(client, "/review")
    assert "Agreement" in page and "Counted 0 s ago" in page
    page = fresh(client, "/review/disagreements")
    image = re.search(r'name="image" value="([^"]+)"', page)[1]
    sent = client.form("/review/adjudicate", "/settings", image=image, value="present", submission=str(uuid4()))
    assert sent.status_code == 303
    page = fresh(client, sent.headers["location"])
    assert "Take it back" in page and f'name="image" value="{image}"' not in page
    submission = re.search(r'action="/review/undo".*?name="submission" value="([^"]+)"', page, re.DOTALL)[1]
    client.form("/review/undo", "/settings", submission=submission)
    assert f'name="image" value="{image}"' in fresh(client, "/review/disagreements")


def test_gold_pictures_are_kept_and_dropped(client, app):
    assert client.form("/review/gold", image="p003", value="present", note="<b>round</b>", quiz="on").status_code == 303
    page = client.get("/review/gold").text
    assert "&lt;b&gt;round" in page and "<b>round" not in page
    client.form("/review/gold/drop", image="p003")
    assert app.state.hfi.queue.gold() == []


def test_an_evaluation_round_has_its_own_question_and_items(client, study):
    with Store.of(study) as store:
        store.add_images([("e1", "generate/images/p001.png")], round="human-concept")
        store.add_guideline("Is a circle here?", round="human-concept")
        Queue.of(study, store, "human-concept").add_items([("e1",)])
    client.app.state.hfi._rounds = (-100, [])
    page = client.get("/label?round=human-concept").text
    assert "Is a circle here?" in page and "/image/e1" in page and "Blind evaluation" in page
    client.post("/label/answer", data=fields(page) | {"value": "present"})
    assert client.get("/api/progress?round=human-concept").json()["done"] == 1
    assert client.get("/api/progress").json()["done"] == 0
    assert client.get("/label?round=human-nothing").status_code == 404
    assert "?version=" not in client.get("/guideline").text, "the round's question is no version of the guideline"


def test_the_label_stage_and_the_page_name_one_version(client, app, study):
    """Both write down what annotators are told; were their words to differ, the version would change at every turn."""
    (study.root / "guideline.md").write_text("A circle is round.")
    version = client.get("/api/next").json()["guideline"]
    with pytest.raises(HFIError, match="are needed"):
        label(SimpleNamespace(images=[SimpleNamespace(id="p000")]), study)
    app.state.hfi._guideline = None
    assert client.get("/api/next").json()["guideline"] == version


def queue_answer(value: str):
    from hfi.feedback.queue import Answer

    return Answer(value)


def fresh(client, path: str) -> str:
    """A reviewer's page, once its numbers are counted."""
    import time

    for _ in range(100):
        page = client.get(path).text
        if "Counting the judgements" not in page:
            return page
        time.sleep(0.1)
    raise AssertionError(f"{path} is still being counted")
