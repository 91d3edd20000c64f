"""`hfi label`: the study or a subcommand as first word; accounts and progress by the command line."""

from __future__ import annotations

import json

import pytest

from hfi.config import parse_config
from hfi.feedback.accounts import Accounts
from hfi.feedback.judgements import Judgement
from hfi.feedback.queue import Answer, Queue
from hfi.feedback.store import Store
from hfi.workspace import Workspace


@pytest.fixture
def study(tmp_path) -> Workspace:
    return Workspace.create(tmp_path / "s", parse_config({}, "test"))


def test_what_is_no_subcommand_is_the_study(quick, study):
    done = quick("label", "s")
    assert done.code == 2 and "no pictures to judge yet" in done.error and "hfi generate s" in done.error
    assert "no study here" in quick("label", "elsewhere").error
    assert "no study here" in quick("label", "status", "elsewhere").error
    assert "--host" in quick("label", "--help").out and "hfi label users add" in quick("label", "--help").out


def test_accounts_are_added_listed_and_removed(quick, study):
    assert "no accounts" in quick("label", "users", "list", "s").out
    added = quick("label", "users", "add", "s", "Ann", "--role", "admin")
    token = added.out.split("/invite/")[1].split()[0]
    accounts = Accounts.of(study)
    assert added.code == 0 and accounts.invited(token).name == "ann"
    assert "invited, no password yet" in quick("label", "users", "list", "s").out
    accounts.accept(token, "correct horse battery")
    assert [(row["name"], row["role"], row["active"]) for row in json.loads(quick("label", "users", "list", "s", "--json").out)] == [
        ("ann", "admin", True)]  # fmt: skip
    assert "none of annotator, reviewer, admin" in quick("label", "users", "add", "s", "bob", "--role", "root").error
    assert "login name" in quick("label", "users", "add", "s", "two words").error
    assert quick("label", "users", "remove", "s", "ann").code == 0
    assert "no such account" in quick("label", "users", "remove", "s", "ann").error
    accounts.close()


def test_status_says_who_did_what_and_whether_more_would_help(quick, study):
    assert "more pictures must be judged" in quick("label", "status", "s").out
    with Store.of(study) as store:
        store.add_images([(f"im{k}", f"{k}.png") for k in range(30)])
        store.record(Judgement(("im0",), "sim", "simulated", "present"))
        queue = Queue.of(study, store)
        for k, item in enumerate(queue.next("ann", 4)):
            queue.submit("ann", item.id, Answer("present" if k else "absent"), f"submission-{k}")
    shown = quick("label", "status", "s")
    assert shown.code == 0 and "simulated annotators among them" in shown.out and "ann" in shown.out
    found = json.loads(quick("label", "status", "s", "--json").out)
    assert found["people"]["ann"]["done"] == 4 and found["simulated"] and found["advice"]["help"] is True
