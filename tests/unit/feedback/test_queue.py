"""The queue: who is asked what; no answer lost, doubled or taken from the wrong hands; undo, gold, repeats, caps."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter

import pytest
from sqlalchemy import text

from hfi.config import Label
from hfi.errors import HFIError
from hfi.feedback import choosing, events
from hfi.feedback.events import Answered, Expired, Invalid, NotYours, Refused, Unknown
from hfi.feedback.judgements import Judgement
from hfi.feedback.queue import MOST, Answer, Preferences, Queue
from hfi.feedback.store import Store

IDS = [f"im{i:03d}" for i in range(30)]
PLAIN = {"gold_share": 0.0, "repeat_share": 0.0}


@pytest.fixture
def store(tmp_path):
    with Store(os.environ.get("HFI_DATABASE_URL") or tmp_path / "feedback.sqlite") as store:
        store.add_images([(name, f"{name}.png") for name in IDS])
        yield store


def queue(store, round="label", folder=None, seed=1, label=None, **settings) -> Queue:
    return Queue(store, Label.model_validate({**(label or {}), "queue": {**PLAIN, **settings}}), seed, folder, round)


def new() -> str:
    return str(uuid.uuid4())


def answer_all(asked: Queue, who: str, value: str = "absent", most: int = 10_000) -> list[str]:
    """Answer until nothing is left; returns the image ids in the order answered."""
    seen: list[str] = []
    while len(seen) < most and (items := asked.next(who)):
        for item in items[: most - len(seen)]:
            asked.submit(who, item.id, Answer(value, seconds=1.0), new())
            seen.append(item.images[0])
    return seen


def rows(store) -> int:
    return sum(1 for _ in store.judgements(history=True, round=None))


# --- who is asked what ---------------------------------------------------------------------------------------------------------


def test_every_picture_is_judged_by_k_people_and_never_twice_by_one(store):
    asked = queue(store, overlap=2)
    said = [answer_all(asked, who) for who in ("ann", "bob", "cem")]
    judged = Counter(name for names in said for name in names)
    assert judged == dict.fromkeys(IDS, 2)
    assert all(len(set(names)) == len(names) for names in said)
    assert asked.next("dan") == [] and asked.progress("dan").left == 0


def test_each_annotator_has_an_order_of_their_own_and_a_restart_keeps_it(store):
    asked = queue(store, overlap=3)
    ann, bob = ([item.images for item in asked.next(who, 20)] for who in ("ann", "bob"))
    assert ann != bob and set(ann) & set(bob)
    assert [item.images for item in queue(store, overlap=3).next("ann", 20)] == ann


def test_asking_again_gives_the_same_items_and_renews_their_lease(store):
    asked = queue(store, lease_seconds=1000)
    first = asked.next("ann", 5)
    with store.writing() as connection:
        connection.execute(text("UPDATE lease SET until = until - 500"))
    again = asked.next("ann", 8)
    assert [item.id for item in again[:5]] == [item.id for item in first] and len(again) == 8
    assert again[0].lease_until >= first[0].lease_until
    assert len(asked.next("ann", 10_000)) == len(IDS) <= MOST


def test_a_place_is_reserved_until_its_lease_runs_out(store):
    asked = queue(store, overlap=1, lease_seconds=1000)
    held = {item.images for item in asked.next("ann", 32)}
    assert len(held) == 30 and asked.next("bob") == []
    with store.writing() as connection:
        connection.execute(text("UPDATE lease SET until = 0"))
    assert len(asked.next("bob", 32)) == 30


def test_items_of_two_people_at_once_never_exceed_the_overlap(store):
    """Threads that ask and answer at the same time."""
    asked, names = queue(store, overlap=2), ["ann", "bob", "cem", "dan"]
    failures: list[BaseException] = []

    def work(who: str) -> None:
        try:
            answer_all(asked, who)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures
    assert Counter(j.images[0] for j in store.judgements()) == dict.fromkeys(IDS, 2)


def test_judgements_that_came_by_a_file_count_and_are_not_asked_again(store):
    store.record_many(Judgement((name,), "ann", value="absent") for name in IDS[:10])
    store.record_many(Judgement((name,), "sim", "simulated", "absent") for name in IDS)
    store.record_many(Judgement((name,), "bob", value="absent") for name in IDS[:5])
    asked = queue(store, overlap=2)
    assert set(answer_all(asked, "ann")) == set(IDS[10:])
    assert set(answer_all(asked, "cem")) == set(IDS[5:])


def test_a_larger_overlap_opens_finished_items_again(store):
    answer_all(queue(store, overlap=1), "ann")
    assert queue(store, overlap=1).next("bob") == []
    assert len(answer_all(queue(store, overlap=2), "bob")) == 30


def test_rankings_deal_the_pictures_out_evenly(store):
    asked = queue(store, label={"judgement": "ranking", "rankings": 12, "ranking_size": 5})
    items = asked.next("ann", 32)
    assert len(items) == 12 and {len(set(item.images)) for item in items} == {5} and {item.task for item in items} == {"ranking"}
    assert set(Counter(name for item in items for name in item.images).values()) == {2}
    order = tuple(reversed(items[0].images))
    asked.submit("ann", items[0].id, Answer("ranked", order[1:], order[:1]), new())
    judged = next(store.judgements())
    assert judged.ranking == order[1:] and judged.excluded == order[:1]


def test_evaluation_rounds_have_items_of_their_own(store):
    store.add_images([("b1", "x/1.png"), ("b2", "x/2.png")], round="human-1")
    asked = queue(store, round="human-1", overlap=2)
    assert asked.add_items([("b1",), ("b2",)]) == 2 and asked.add_items([("b1",)]) == 0
    assert sorted(answer_all(asked, "ann", "present")) == ["b1", "b2"]
    assert store.counts()["judgements"] == 0 and len(list(store.judgements(round="human-1"))) == 2
    assert queue(store).progress("ann").done == 0 and asked.progress("ann").done == 2


def test_active_order_puts_first_what_teaches_most(store, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing.active, "order", lambda folder, names: sorted(names, reverse=True))
    asked = queue(store, folder=tmp_path, order="active", overlap=1)
    assert len(asked.next("early", 2)) == 2  # no scores yet: the random order
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "scores.jsonl").write_text("{}\n")
    asked.next("early", 3)  # one more than before, for who holds enough is not chosen for
    deadline = time.monotonic() + 60
    while not asked.chooser._active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert asked.chooser._active
    first = [item.images[0] for item in asked.next("ann", 16)]
    assert set(first) >= set(IDS[-12:]) - {item.images[0] for item in asked.next("early", 3)}
    assert len(answer_all(asked, "ann")) == 27


def test_active_order_without_readable_scores_goes_on_at_random(store, tmp_path, monkeypatch):
    def broken(folder, names):
        raise HFIError("half-written")

    monkeypatch.setattr(choosing.active, "order", broken)
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "scores.jsonl").write_text("{")
    asked = queue(store, folder=tmp_path, order="active", overlap=1)
    assert len(answer_all(asked, "ann")) == 30


# --- answers -------------------------------------------------------------------------------------------------------------------


def test_a_replay_stores_nothing_and_returns_the_first_receipt(store):
    asked = queue(store)
    item, submission = asked.next("ann")[0], new()
    first = asked.submit("ann", item.id, Answer("present", seconds=2.5), submission)
    assert asked.submit("ann", item.id, Answer("present", seconds=2.5), submission) == first
    assert queue(store).submit("ann", item.id, Answer("present"), submission) == first  # also after a restart
    assert rows(store) == 1 and asked.progress("ann").done == 1
    with pytest.raises(Invalid, match="used for another answer"):
        asked.submit("ann", item.id, Answer("absent"), submission)
    with pytest.raises(Invalid, match="used for another answer"):
        asked.submit("ann", asked.next("ann")[0].id, Answer("present"), submission)


def test_replays_from_many_threads_are_one_answer(store):
    asked = queue(store)
    item, submission = asked.next("ann")[0], new()
    receipts: list = []

    def send() -> None:
        receipts.append(asked.submit("ann", item.id, Answer("absent"), submission))

    threads = [threading.Thread(target=send) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(receipts) == 8 and len(set(receipts)) == 1 and rows(store) == 1


def test_what_is_refused_is_refused_with_its_status_and_stores_nothing(store):
    asked = queue(store, overlap=1, label={"judgement": "both", "rankings": 3})
    items = {item.task: item for item in asked.next("ann", 32)}
    binary, ranking = items["binary"], items["ranking"]
    taken = new()
    asked.submit("ann", binary.id, Answer("present"), taken)
    before = rows(store)
    images = ranking.images
    for status, who, item, answer, submission in [
        (404, "ann", "0" * 24, Answer("present"), new()),
        (404, "ann", "../../etc/passwd", Answer("present"), new()),
        (404, "ann", "' OR 1=1 --", Answer("present"), new()),
        (404, "ann", "a\0b", Answer("present"), new()),
        (403, "bob", ranking.id, Answer("skip"), new()),
        (403, "bob", ranking.id, Answer("skip"), taken),
        (409, "ann", binary.id, Answer("absent"), new()),
        (409, "ann", binary.id, Answer("absent", revises=new()), new()),
        (422, "ann", ranking.id, Answer("present"), new()),
        (422, "ann", ranking.id, Answer("ranked"), new()),
        (422, "ann", ranking.id, Answer("ranked", images[1:]), new()),
        (422, "ann", ranking.id, Answer("ranked", (*images[1:], images[1])), new()),
        (422, "ann", ranking.id, Answer("skip", images), new()),
        (422, "ann", ranking.id, Answer("withdrawn"), new()),
        (422, "ann", ranking.id, Answer("skip", seconds=float("nan")), new()),
        (422, "ann", ranking.id, Answer("skip", seconds="1"), new()),
        (422, "ann", ranking.id, Answer("skip", seconds=-1), new()),
        (422, "ann", ranking.id, Answer("skip", guideline=99), new()),
        (422, "ann", ranking.id, Answer("skip"), "short"),
        (422, "ann", ranking.id, Answer("skip"), "x" * 65),
    ]:
        with pytest.raises(Refused) as caught:
            asked.submit(who, item, answer, submission)
        assert caught.value.status == status, (item, answer)
        assert "\n" not in str(caught.value)
    assert rows(store) == before
    asked.submit("ann", ranking.id, Answer("skip", revises=new()), new())  # nothing to revise: taken as it is


def test_a_late_answer_is_taken_while_its_place_is_free(store):
    asked = queue(store, overlap=1, lease_seconds=1000)
    first, second = asked.next("ann", 2)
    with store.writing() as connection:
        connection.execute(text("UPDATE lease SET until = 0"))
    asked.submit("ann", first.id, Answer("present"), new())
    assert second.images in {item.images for item in asked.next("bob", 32)}
    with pytest.raises(Expired) as caught:
        asked.submit("ann", second.id, Answer("present"), new())
    assert caught.value.status == 409 and rows(store) == 1


def test_a_revision_names_what_it_revises_so_that_answers_cannot_overtake_each_other(store):
    asked = queue(store)
    item, first, second = asked.next("ann")[0], new(), new()
    asked.submit("ann", item.id, Answer("present"), first)
    asked.submit("ann", item.id, Answer("absent", revises=first), second)
    assert [j.value for j in store.judgements()] == ["absent"] and rows(store) == 2
    assert asked.submit("ann", item.id, Answer("present"), first).submission == first  # a straggler changes nothing
    assert [j.value for j in store.judgements()] == ["absent"] and asked.progress("ann").done == 1


# --- undo, history ---------------------------------------------------------------------------------------------------------------


def test_undo_is_a_new_row_and_the_item_is_asked_again_first(store):
    asked = queue(store, overlap=1)
    items, submission = asked.next("ann", 3), new()
    asked.submit("ann", items[0].id, Answer("present"), submission)
    receipt = asked.undo("ann", submission)
    assert receipt.withdrawn and asked.undo("ann", submission) == receipt
    assert list(store.judgements()) == [] and rows(store) == 2 and store.label_counts() == {}
    assert store.counts()["judgements"] == 0 and asked.progress("ann").done == 0
    assert asked.next("ann", 3)[0].id == items[0].id
    assert items[0].images not in {item.images for item in asked.next("bob", 32)}
    asked.submit("ann", items[0].id, Answer("absent"), new())
    assert [j.value for j in store.judgements()] == ["absent"]


def test_undoing_a_revision_brings_the_earlier_answer_back(store):
    asked = queue(store)
    item, first, second = asked.next("ann")[0], new(), new()
    asked.submit("ann", item.id, Answer("present"), first)
    asked.submit("ann", item.id, Answer("absent", revises=first), second)
    with pytest.raises(Answered):
        asked.undo("ann", first)
    asked.undo("ann", second)
    assert [j.value for j in store.judgements()] == ["present"] and asked.progress("ann").done == 1
    asked.undo("ann", first)
    assert list(store.judgements()) == [] and asked.progress("ann").done == 0


def test_undo_of_what_is_not_there_or_not_yours(store):
    asked = queue(store)
    submission = new()
    asked.submit("ann", asked.next("ann")[0].id, Answer("present"), submission)
    with pytest.raises(Unknown):
        asked.undo("ann", new())
    with pytest.raises(NotYours):
        asked.undo("bob", submission)
    assert rows(store) == 1


def test_history_is_ones_own_newest_first_in_pages(store):
    asked = queue(store, overlap=3)
    answer_all(asked, "bob", most=3)
    submissions = []
    for item in asked.next("ann", 5):
        submissions.append(new())
        asked.submit("ann", item.id, Answer("present"), submissions[-1])
    asked.undo("ann", submissions[-1])
    page = asked.history("ann", count=3)
    assert [entry.submission for entry in page] == submissions[:1:-1] and [entry.counts for entry in page] == [False, True, True]
    rest = asked.history("ann", before=page[-1].position)
    assert [entry.submission for entry in rest] == submissions[1::-1] and asked.history("nobody") == []
    assert asked.item("ann", page[1].item_id).images == page[1].images
    with pytest.raises(NotYours):
        asked.item("bob", page[1].item_id)


# --- gold, quiz, repeats, adjudication ---------------------------------------------------------------------------------------------


def test_gold_items_are_mixed_in_once_for_everybody_and_look_like_any_other(store):
    asked = queue(store, overlap=1, gold_share=0.3)
    for name in IDS[:4]:
        asked.set_gold(name, "present")
    seen = {who: answer_all(asked, who, "present") for who in ("ann", "bob", "cem")}
    assert {name for names in seen.values() for name in names} >= set(IDS[4:])
    assert all(len(set(names)) == len(names) for names in seen.values())
    assert set(seen["ann"]) & set(IDS[:4]) and asked.progress("ann").left == 0
    purposes = {j.images[0]: j.purpose for j in store.judgements() if j.annotator == "ann"}
    assert {purposes[name] for name in seen["ann"] if name in IDS[:4]} == {"gold"}
    score = asked.gold_score("ann")
    assert score.right == score.answered == len(set(seen["ann"]) & set(IDS[:4])) and score.asked == 4
    asked.set_gold(IDS[0], "absent", "a toy")
    assert asked.gold()[0].value == "absent" and asked.gold_score("ann").right <= score.right
    asked.drop_gold(IDS[1])
    assert [gold.image for gold in asked.gold()] == [IDS[0], IDS[2], IDS[3]]
    with pytest.raises(Unknown):
        asked.drop_gold(IDS[1])
    for image, value in [("nobody", "present"), (IDS[0], "unsure")]:
        with pytest.raises(Refused):
            asked.set_gold(image, value)


def test_the_quiz_comes_first_teaches_and_is_not_asked_again(store):
    asked = queue(store, overlap=2, gold_share=0.5)
    for name, value in zip(IDS[:3], ("present", "absent", "present"), strict=True):
        asked.set_gold(name, value, f"look at {name}", quiz=True)
    items = asked.quiz("ann")
    assert {item.images[0] for item in items} == set(IDS[:3]) and asked.quiz("ann") and asked.quiz_score("ann").asked == 3
    assert not {item.images[0] for item in asked.next("ann", 32)} & set(IDS[:3])
    receipts = {item.images[0]: asked.submit("ann", item.id, Answer("present"), new()) for item in items}
    assert receipts[IDS[0]].lesson.right and not receipts[IDS[1]].lesson.right
    assert receipts[IDS[1]].lesson.expected == "absent" and receipts[IDS[1]].lesson.note == f"look at {IDS[1]}"
    assert asked.quiz("ann") == [] and asked.quiz_score("ann").right == 2
    assert not set(answer_all(asked, "ann")) & set(IDS[:3])
    assert len(asked.quiz("bob")) == 3


def test_repeats_ask_a_second_time_and_both_answers_stay(store, monkeypatch):
    monkeypatch.setattr(choosing, "REPEAT_GAP", 3)
    asked = queue(store, overlap=1, repeat_share=0.3)
    seen = answer_all(asked, "ann")
    twice = [name for name, number in Counter(seen).items() if number == 2]
    assert twice and set(seen) == set(IDS) and max(Counter(seen).values()) == 2
    assert sum(j.purpose == "repeat" for j in store.judgements(history=True)) == len(twice)
    assert len(list(store.judgements())) == 30 and asked.next("bob") == []
    again = next(entry for entry in asked.history("ann", count=100) if entry.images[0] in twice)  # the newest: the repeat
    asked.undo("ann", again.submission)
    assert len(list(store.judgements())) == 30 and asked.next("bob") == []  # the first answer counts, and nobody else is asked
    assert [item.id for item in asked.next("ann")] == [again.item_id]


def test_adjudication_is_marked_idempotent_and_can_be_undone(store):
    asked, submission = queue(store), new()
    first = asked.adjudicate("rev", IDS[0], "present", submission)
    assert asked.adjudicate("rev", IDS[0], "present", submission) == first and rows(store) == 1
    assert next(store.judgements()).purpose == "adjudication"
    assert IDS[0] not in {item.images[0] for item in asked.next("rev", 32)}
    with pytest.raises(Invalid):
        asked.adjudicate("rev", IDS[1], "present", submission)
    with pytest.raises(Unknown):
        asked.adjudicate("rev", "nobody", "present", new())
    with pytest.raises(Invalid):
        asked.adjudicate("rev", IDS[1], "maybe", new())
    asked.undo("rev", submission)
    assert list(store.judgements()) == []


# --- care and progress -----------------------------------------------------------------------------------------------------------


def test_the_daily_cap_stops_asking_but_never_an_answer(store):
    asked = queue(store, daily_cap=5)
    items = asked.next("ann", 32)
    assert len(items) == 5
    for item in items:
        asked.submit("ann", item.id, Answer("absent"), new())
    assert asked.next("ann") == [] and asked.progress("ann").capped and not asked.progress("bob").capped
    with store.writing() as connection:
        connection.execute(text("UPDATE tally SET day = '2020-01-01'"))
    assert len(asked.next("ann")) == 5 and asked.progress("ann").today == 0 and asked.progress("ann").done == 5


def test_progress_counts_flagged_pictures_and_says_when_to_rest(store):
    asked = queue(store, overlap=2, break_every=3)
    mine = asked.next("ann", 3)
    for item, value in zip(mine, ("present", "absent", "present"), strict=True):
        asked.submit("ann", item.id, Answer(value), new())
    progress = asked.progress("ann")
    assert (progress.done, progress.left, progress.today, progress.flagged_seen_today) == (3, 27, 3, 2) and progress.break_due
    answer_all(asked, "bob", "absent")
    assert asked.progress("bob").flagged_seen_today == 2  # what ann flagged before
    assert set(asked.people()) == {"ann", "bob"} and asked.people()["bob"].done == 30


def test_who_opted_out_is_asked_nothing(store):
    asked = queue(store)
    assert asked.preferences("ann") == Preferences()
    chosen = Preferences("2026-01-01T00:00:00Z", True, False, (("present", "p"), ("absent", "a")), True)
    asked.save_preferences("ann", chosen)
    assert asked.preferences("ann") == chosen and asked.next("ann") == [] and asked.progress("ann").opted_out
    asked.save_preferences("ann", Preferences())
    assert asked.next("ann")


def test_only_people_are_asked(store):
    store.add_annotator("robot", "machine")
    with pytest.raises(HFIError, match="known as machine"):
        queue(store).next("robot")


def test_refused_requests_are_kept_to_a_bound(store, monkeypatch):
    monkeypatch.setattr(events, "KEPT", 500)
    events.record(store, "unknown", 404, "/api/answer\n" + "x" * 500, "two\nlines\0" + "y" * 500, "ann")
    event = events.latest(store)[0]
    assert (event.kind, event.status, event.annotator) == ("unknown", 404, "ann")
    assert len(event.route) == 100 and len(event.detail) == 200 and event.route.isprintable() and event.detail.isprintable()
