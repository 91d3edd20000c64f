"""What reviewers see: agreement, confusion, disagreements, bias, gold and repeats; and that a later look reads only what is new."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest
from sqlalchemy import event, text

from hfi.config import parse_config
from hfi.feedback import review
from hfi.feedback.agreement import krippendorff_alpha, ranking_agreement
from hfi.feedback.judgements import Judgement
from hfi.feedback.queue import Queue
from hfi.feedback.store import Store
from hfi.workspace import Workspace

IDS = [f"im{i:03d}" for i in range(120)]
STYLES = ("ink", "chalk", "oil")


@pytest.fixture
def study(tmp_path) -> Workspace:
    study = Workspace.create(tmp_path / "study", parse_config({}, "test"))
    study.path("generate").mkdir()
    study.path("generate", "manifest.json").write_text("{}")
    rows = [{"id": name, "file": f"images/{name}.png", "style": STYLES[i % 3], "object": None} for i, name in enumerate(IDS)]
    study.path("generate", "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return study


@pytest.fixture
def store(study):
    with Store.of(study) as store:
        yield store


def said(image: str, who: str, value: str, **more) -> Judgement:
    return Judgement((image,), who, value=value, **more)


def random_answers(seed: int, people: int = 5, each: int = 80) -> list[Judgement]:
    rng = random.Random(seed)
    truth = {name: rng.random() < 0.4 for name in IDS}
    rows = []
    for p in range(people):
        for name in rng.sample(IDS, each):
            seen = "present" if truth[name] ^ (rng.random() < 0.1 * p) else "absent"
            rows.append(said(name, f"p{p}", rng.choices([seen, "unsure", "skip"], [18, 1, 1])[0], seconds=1.0 + p))
    return rows


def test_alpha_is_the_same_as_from_counts_and_lies_in_its_interval(store):
    store.record_many(random_answers(1))
    votes = store.label_counts()
    found = review.agreement(store)
    assert found.alpha == pytest.approx(krippendorff_alpha(numpy.array([[seen["absent"], seen["present"]] for seen in votes.values()])))
    assert found.low < found.alpha < found.high and found.pictures == sum(sum(seen.values()) > 1 for seen in votes.values())


def test_the_interval_of_patterns_is_that_of_drawing_pictures(store):
    store.record_many(random_answers(2))
    counts = numpy.array([[seen["absent"], seen["present"]] for seen in store.label_counts().values()])
    counts = counts[counts.sum(1) >= 2]
    rng = numpy.random.default_rng(0)
    plain = [krippendorff_alpha(counts[rng.integers(len(counts), size=len(counts))]) for _ in range(800)]
    found = review.agreement(store, resamples=4000)
    assert (found.low, found.high) == pytest.approx(tuple(numpy.percentile(plain, [2.5, 97.5])), abs=0.03)


def test_agreement_of_rankings_is_alpha_over_pairs(store):
    orders = [("im000", "im001", "im002"), ("im000", "im002", "im001"), ("im002", "im001", "im000")]
    store.record_many(Judgement(tuple(sorted(order)), f"p{i}", ranking=order) for i, order in enumerate(orders))
    assert review.ranking_agreement(store).alpha == pytest.approx(ranking_agreement(orders))


def test_nothing_judged_and_one_value_only_are_not_defined(store):
    found = review.overview(store)
    assert found.agreement.alpha is None and found.annotators == () and found.judged == 0 and found.images == len(IDS)
    store.record_many([said("im000", "a", "present"), said("im000", "b", "present")])
    assert review.agreement(store).alpha is None and review.agreement(store).low is None


def test_confusion_is_counted_as_by_hand(store):
    answers = random_answers(3)
    store.record_many(answers)
    by_image: dict[str, dict[str, str]] = {}
    for one in answers:
        by_image.setdefault(one.images[0], {})[one.annotator] = one.value
    for found in review.annotators(store):
        hand = {(row, column): 0 for row in ("present", "absent") for column in ("present", "absent", "unsure")}
        for votes in by_image.values():
            mine = votes.get(found.pseudonym)
            others = [value for who, value in votes.items() if who != found.pseudonym]
            margin = others.count("present") - others.count("absent")
            if mine in ("present", "absent", "unsure") and margin:
                hand["present" if margin > 0 else "absent", mine] += 1
        assert list(vars(found.confusion).values())[:6] == list(hand.values())
        assert found.judgements == 80 and found.seconds == pytest.approx(1.0 + int(found.pseudonym[1]))
    agree = {found.pseudonym: found.confusion.agree.value for found in review.annotators(store)}
    assert agree["p0"] > agree["p4"]


def test_superseded_and_undone_answers_do_not_count(study, store):
    queue = Queue.of(study, store)
    item = queue.next("ann", 1)[0]
    from hfi.feedback.queue import Answer

    one, two = ("00000000-0000-4000-8000-00000000000" + digit for digit in "12")
    queue.submit("ann", item.id, Answer("present"), one)
    assert review.annotators(store)[0].present == 1
    queue.submit("ann", item.id, Answer("absent", revises=one), two)
    assert (review.annotators(store)[0].present, review.annotators(store)[0].absent) == (0, 1)
    queue.undo("ann", two)
    assert (review.annotators(store)[0].present, review.annotators(store)[0].absent) == (1, 0)
    queue.undo("ann", one)
    assert review.annotators(store) == ()


def test_the_queue_of_disagreements_and_a_reviewers_last_word(study, store):
    answers = {"im000": "present absent", "im001": "present present absent", "im002": "present present"}
    store.record_many(said(name, "abc"[i], value) for name, words in answers.items() for i, value in enumerate(words.split()))
    found = review.disagreements(store)
    assert [one.image for one in found.items] == ["im000", "im001"] and found.total == 2
    assert [(one.pseudonym, one.value) for one in found.items[1].answers] == [("a", "present"), ("b", "present"), ("c", "absent")]
    assert [one.image for one in review.disagreements(store, start=1).items] == ["im001"]
    Queue.of(study, store).adjudicate("reviewer", "im000", "absent", "00000000-0000-4000-8000-000000000009")
    assert [one.image for one in review.disagreements(store).items] == ["im001"]
    assert "reviewer" not in [one.pseudonym for one in review.annotators(store)]  # a decision is no opinion
    assert review.overview(store).disagreements == 1


def test_pictures_on_which_all_were_unsure_come_to_the_reviewer_last(study, store):
    answers = {"im000": "unsure unsure", "im001": "present present absent", "im002": "unsure", "im003": "unsure unsure absent"}
    store.record_many(said(name, "abc"[i], value) for name, words in answers.items() for i, value in enumerate(words.split()))
    found = review.disagreements(store)
    assert [one.image for one in found.items] == ["im001", "im000"] and review.overview(store).disagreements == 2
    Queue.of(study, store).adjudicate("reviewer", "im000", "present", "00000000-0000-4000-8000-000000000009")
    assert [one.image for one in review.disagreements(store).items] == ["im001"]


def test_gold_and_repeats(study, store):
    queue = Queue.of(study, store)
    queue.set_gold("im000", "present"), queue.set_gold("im001", "absent")
    store.record_many([said("im000", "a", "present", purpose="gold"), said("im001", "a", "present", purpose="gold"),
                       said("im002", "a", "present"), said("im003", "a", "absent")])  # fmt: skip
    store.record_many([said("im002", "a", "absent", purpose="repeat"), said("im003", "a", "absent", purpose="repeat")])
    found = review.annotators(store)[0]
    assert (found.gold.value, found.gold.n, found.repeats.value, found.repeats.n) == (0.5, 2, 0.5, 2)


def biased_answers(group: tuple[int, ...], overlap: int = 4) -> list[Judgement]:
    """Seven annotators; those of `group` flag the style "ink" whatever it shows."""
    rng = random.Random(5)
    rows = []
    for i, name in enumerate(IDS):
        truth = rng.random() < 0.3
        for p in rng.sample(range(7), overlap):
            flags = (p in group and STYLES[i % 3] == "ink") or (truth ^ (rng.random() < 0.05))
            rows.append(said(name, f"p{p}", "present" if flags else "absent"))
    return rows


def test_a_group_that_flags_a_style_is_named_and_nobody_else(study, store):
    store.record_many(biased_answers((1, 4)))
    found = review.biases(store, least=10, study=study)
    assert [(one.who, one.trait, one.value) for one in found] == [("p1, p4", "style", "ink")]
    assert found[0].low > 0 and found[0].flagged.value > 0.9 > found[0].flagged_by_others.value
    assert "p1 and p4 flag pictures of the style “ink”" in found[0].words


def test_honest_annotators_are_not_called_biased(study, store):
    store.record_many(biased_answers(()))
    assert review.biases(store, least=10, study=study) == ()


def test_simulated_and_machine_annotators_are_left_aside_unless_asked_for(store):
    store.record_many([said("im000", "a", "present"), Judgement(("im000",), "m", "machine", "absent")])
    assert review.overview(store).disagreements == 0
    assert review.overview(store, ("human", "machine")).disagreements == 1


def test_a_later_look_reads_only_what_is_new(store):
    store.record_many(random_answers(6))
    review.overview(store)
    seen = []
    event.listen(store.engine, "before_cursor_execute", lambda *call: seen.append(call[2:4]))
    store.record(said("im000", "new", "present"))
    found = review.annotators(store)
    asked = [parameters for words, parameters in seen if "withdraws FROM judgement" in words]
    assert 400 in (asked[0].values() if isinstance(asked[0], dict) else asked[0])  # psycopg takes names, SQLite places
    assert "new" in [one.pseudonym for one in found] and len(asked) == 1


def test_evaluation_rounds_are_apart(store, tmp_path: Path):
    store.add_images([("blind1", "human/images/blind1.png")], round="human-concept")
    store.record_many([said("blind1", "a", "present", round="human-concept"), said("im000", "a", "absent")])
    assert [one.absent for one in review.annotators(store)] == [1]
    assert [one.present for one in review.annotators(store, round="human-concept")] == [1]
    with store.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM judgement")) == 2
