"""The desk: answers before questions, answers that wait in one transaction, and nothing lost, refused or doubled by it."""

from __future__ import annotations

import asyncio
import threading
from uuid import uuid4

import pytest
from sqlalchemy import text

from hfi.feedback.events import Answered, Unknown
from hfi.feedback.queue import Answer
from hfi.feedback.web.desk import Desk
from hfi.feedback.web.state import State
from web_study import consent, judgements, make_study


@pytest.fixture
def state(tmp_path):
    study = make_study(tmp_path / "study", pictures=40, queue={"overlap": 4, "repeat_share": 0.0})
    consent(study, *(f"ann{k}" for k in range(4)))
    opened = State(study)
    yield opened
    opened.close()


def held_up(desk: Desk, *work):
    """What pieces of work give, all of which came while the desk was busy: (True: an answer, function) each, in the order of asking."""

    async def all_of_them() -> list:
        busy, begun = threading.Event(), threading.Event()
        first = asyncio.ensure_future(desk.ask(lambda: begun.set() or busy.wait(10)))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        rest = [asyncio.ensure_future((desk.save if saves else desk.ask)(does)) for saves, does in work]
        await asyncio.sleep(0.01)
        busy.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_answers_go_before_questions_and_each_kind_as_it_came(state):
    done: list[str] = []
    held_up(state.desk, *((name[0] == "s", lambda name=name: done.append(name)) for name in ("a1", "s1", "a2", "s2", "a3", "s3")))
    assert done == ["s1", "s2", "s3", "a1", "a2", "a3"]


def test_answers_that_wait_are_one_transaction_and_a_refused_one_takes_nobody_along(state, monkeypatch):
    items = state.queue.next("ann0", 4)
    state.queue.submit("ann0", items[3].id, Answer("absent"), str(uuid4()))
    commits = []
    writing = state.store.writing
    monkeypatch.setattr(state.desk, "_together", lambda: commits.append(1) or writing())
    names = [str(uuid4()) for _ in range(4)]
    sent = [(items[0].id, names[0]), ("forged", names[1]), (items[1].id, names[2]), (items[3].id, names[3]), (items[0].id, names[0])]
    found = held_up(
        state.desk, *((True, lambda one=one, name=name: state.queue.submit("ann0", one, Answer("present"), name)) for one, name in sent)
    )
    assert len(commits) == 1
    assert isinstance(found[1], Unknown) and isinstance(found[3], Answered)
    assert found[0] == found[4] and found[0].submission == names[0], "the same answer twice in one transaction is one answer"
    assert len(judgements(state.study)) == 3


def test_what_breaks_a_shared_transaction_is_tried_alone(state):
    items = state.queue.next("ann1", 4)

    def half_written():
        state.queue.submit("ann1", items[1].id, Answer("present"), str(uuid4()))
        raise RuntimeError("after it wrote")

    def saved(one):
        return lambda: state.queue.submit("ann1", one.id, Answer("present"), str(uuid4()))

    found = held_up(state.desk, (True, saved(items[0])), (True, half_written), (True, saved(items[2])))
    assert isinstance(found[1], RuntimeError)
    assert found[0].item_id == items[0].id and found[2].item_id == items[2].id
    with state.store.reading() as connection:
        stored = connection.execute(text("SELECT submission FROM judgement ORDER BY id")).scalars().all()
    assert len(stored) == 3, "both whole ones once; what was alone keeps what it committed itself before it failed"
    assert {found[0].submission, found[2].submission} <= set(stored)


def test_new_annotators_of_an_undone_transaction_keep_their_own_numbers(state):
    """A number that was given out in a transaction that came to nothing may be another's afterwards."""
    ids = {name: state.queue.next(name, 1)[0].id for name in ("ann0", "ann1")}

    def broken():
        raise RuntimeError

    newcomers = [lambda name=name: state.queue.next(name, 1) for name in ("new1", "new2")]
    held_up(state.desk, (True, newcomers[0]), (True, broken), (True, newcomers[1]))
    for name in ("new2", "new1"):
        item = state.queue.next(name, 1)[0]
        state.queue.submit(name, item.id, Answer("present"), str(uuid4()))
    for name, item in ids.items():
        state.queue.submit(name, item, Answer("absent"), str(uuid4()))
    assert {one.annotator: one.value for one in judgements(state.study)} == {
        "new1": "present", "new2": "present", "ann0": "absent", "ann1": "absent"
    }  # fmt: skip


def test_no_answer_is_refused_or_doubled_while_many_ask(state):
    stop, wrong = threading.Event(), []

    def asks(name):
        async def on_and_on():
            while not stop.is_set():
                await state.desk.ask(state.queue.next, name, 8)

        asyncio.run(on_and_on())

    def answers(name):
        async def each_twice():
            for _ in range(20):
                item = (await state.desk.ask(state.queue.next, name, 1))[0]
                submission = str(uuid4())
                give = (state.queue.submit, name, item.id, Answer("present"), submission)
                first, again = await asyncio.gather(state.desk.save(*give), state.desk.save(*give))
                if first != again or first.submission != submission:
                    wrong.append((first, again))

        try:
            asyncio.run(each_twice())
        except Exception as error:
            wrong.append(error)

    askers = [threading.Thread(target=asks, args=(f"ann{k}",)) for k in range(4) for _ in range(2)]
    writers = [threading.Thread(target=answers, args=(f"ann{k}",)) for k in range(4)]
    for thread in (*askers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in askers:
        thread.join()
    assert wrong == []
    found = judgements(state.study)
    assert len(found) == 80 == len({(one.annotator, one.target) for one in found})


def test_a_desk_that_is_closed_has_done_what_was_asked(state):
    assert asyncio.run(state.desk.save(lambda: 7)) == 7
    state.desk.close()
    assert asyncio.run(state.desk.ask(lambda: 8)) == 8, "and opens again when somebody comes"
