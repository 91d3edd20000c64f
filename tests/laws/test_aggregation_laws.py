"""Laws of aggregation: it finds who errs, nobody's names or order matter, and it agrees with crowd-kit and choix.

crowd-kit and choix are oracles for tests only: pip install -c constraints.txt 'hfi[oracles]'. Where they are missing, their tests say so
and are skipped.
"""

from __future__ import annotations

import warnings

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfi.feedback.aggregation.aggregate import METHODS, aggregate, order_weights, ranking_reliability
from hfi.feedback.aggregation.answers import Answers
from hfi.feedback.aggregation.dawid_skene import dawid_skene
from hfi.feedback.aggregation.mace import mace
from hfi.feedback.aggregation.majority import majority
from hfi.feedback.aggregation.rankings import bradley_terry, pairs_of, plackett_luce
from hfi.feedback.judgements import Judgement

GOOD, RANDOM = 0.92, 0.5
NINE = [GOOD] * 6 + [RANDOM] * 3


def crowd(rates, pictures: int, each: int, prevalence: float, seed: int) -> tuple[list[Judgement], dict[str, bool]]:
    """Simulated judgements by annotators who are right at `rates`, `each` a picture, and the truth."""
    rng = numpy.random.default_rng(seed)
    truth = {f"im{i:04d}": bool(rng.random() < prevalence) for i in range(pictures)}
    rows = []
    for name, there in truth.items():
        for who in rng.choice(len(rates), each, replace=False):
            right = rng.random() < rates[who]
            rows.append(Judgement((name,), f"ann{who}", "simulated", "present" if right == there else "absent"))
    return rows, truth


def wrong(rows: list[Judgement], truth: dict[str, bool], method: str) -> float:
    """Share of wrong labels; an even split counts half."""
    found = aggregate(rows, method).labels
    return float(numpy.mean([0.5 if label.present == 0.5 else (label.present > 0.5) != truth[name] for name, label in found.items()]))


def oracle(name: str):
    return pytest.importorskip(name, reason=f"{name} is an oracle for tests only: pip install -c constraints.txt 'hfi[test]'")


# --- it finds who errs ----------------------------------------------------------------------------------------------------


def test_nine_annotators_of_whom_three_answer_at_random():
    """Three judgements a picture: clearly fewer wrong labels than majority, and the three are known by name."""
    found = {method: [] for method in METHODS}
    for seed in range(10):
        rows, truth = crowd(NINE, 300, 3, 0.4, seed)
        for method in METHODS:
            found[method].append(wrong(rows, truth, method))
        known = {one.annotator: one.balanced for one in aggregate(rows, "dawid_skene").annotators}
        assert set(sorted(known, key=known.get)[:3]) == {"ann6", "ann7", "ann8"}
    share = {method: numpy.mean(values) for method, values in found.items()}
    assert share["majority"] > 0.09
    assert share["dawid_skene"] < 0.75 * share["majority"] and share["mace"] < 0.75 * share["majority"]
    assert all(a < b for a, b in zip(found["dawid_skene"], found["majority"], strict=True))  # in every one of the ten crowds


def test_the_reward_learns_better_from_it():
    """The same crowd: a linear reward on the aggregated labels has a higher held-out AUC than on majority's shares."""
    from hfi.reward.calibration import auc
    from hfi.reward.probe import fit_probe

    gained = []
    for seed in range(10):
        rows, truth = crowd(NINE, 400, 3, 0.4, seed)
        rng = numpy.random.default_rng(seed)
        direction = rng.normal(size=40)
        names = sorted(truth)
        points = rng.normal(size=(400, 40))
        y = numpy.array([truth[name] for name in names])
        points += numpy.outer(y - 0.5, direction / 4)
        scores = {}
        for method in ("majority", "dawid_skene"):
            found = aggregate(rows, method).labels
            labels = [found[name] for name in names[:200]]
            probe = fit_probe(points[:200], [one.present for one in labels], [one.weight for one in labels])
            scores[method] = auc(probe.predict(points[200:])[0], y[200:])
        gained.append(scores["dawid_skene"] - scores["majority"])
    assert numpy.mean(gained) > 0.01 and numpy.mean(numpy.array(gained) > 0) >= 0.8


@pytest.mark.parametrize(("rates", "each", "prevalence"), [([0.95, 0.92, 0.9, 0.88], 2, 0.4), ([0.9] * 5, 3, 0.3), ([0.9] * 4, 2, 0.1)])
def test_where_nobody_is_random_it_costs_next_to_nothing(rates, each, prevalence):
    pairs = []
    for seed in range(10):
        rows, truth = crowd(rates, 200, each, prevalence, seed)
        pairs.append((wrong(rows, truth, "dawid_skene"), wrong(rows, truth, "majority")))
    ours, majority_s = numpy.mean(pairs, axis=0)
    assert ours < majority_s + 0.015


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["dawid_skene", "majority"]))
@settings(max_examples=25)
def test_what_nobody_contradicts_stands(present, absent, method):
    """One annotator alone: every label is the one given, however rare it is, and weighs something."""
    rows = [Judgement((f"p{i}",), "ann", value="present") for i in range(present)]
    rows += [Judgement((f"a{i}",), "ann", value="absent") for i in range(absent)]
    for name, label in aggregate(rows, method).labels.items():
        assert (label.present > 0.7) == (name[0] == "p") and abs(label.present - 0.5) > 0.2 and label.weight > 0.3


def test_a_reviewer_s_decision_is_the_label_and_teaches_who_was_right():
    rows, truth = crowd([0.9, 0.9, 0.1], 60, 3, 0.5, seed=1)
    said = {name: "present" if there else "absent" for name, there in truth.items()}
    reviewed = [Judgement((name,), "reviewer", value=value, purpose="adjudication") for name, value in said.items()]
    for method in METHODS:
        found = aggregate(rows + reviewed, method)
        assert {name: label.present > 0.5 for name, label in found.labels.items()} == truth
        assert "reviewer" not in {one.annotator for one in found.annotators}
    rates = {one.annotator: one.balanced for one in aggregate(rows + reviewed, "dawid_skene").annotators}
    assert rates["ann2"] < 0.3 < 0.8 < rates["ann0"]


def test_unsure_skip_and_withdrawn_say_nothing():
    rows, _ = crowd(NINE, 30, 3, 0.4, seed=2)
    silent = [Judgement((f"im{i:04d}",), "ann9", value=value) for i, value in enumerate(["unsure", "skip"] * 10)]
    for method in METHODS:
        assert aggregate(rows + silent, method) == aggregate(rows, method)


def test_a_tie_of_equals_teaches_nothing_and_agreement_much():
    rows = [Judgement((f"q{i}",), who, value=value) for i in range(40) for who in "ab" for value in ["present" if i < 20 else "absent"]]
    rows += [Judgement(("tie",), "a", value="present"), Judgement(("tie",), "b", value="absent")]
    found = aggregate(rows).labels
    assert found["tie"].weight < 0.01 and found["q0"].weight > 0.99


# --- nothing but the answers matters --------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False), st.sampled_from(METHODS))
@settings(max_examples=20)
def test_neither_the_order_nor_the_names_matter(random, method):
    rows, _ = crowd([0.9, 0.8, 0.6], 25, 2, 0.4, seed=3)
    before = aggregate(rows, method).labels
    shuffled = random.sample(rows, len(rows))
    assert aggregate(shuffled, method).labels == before
    renamed = [Judgement(row.images, {"ann0": "zoe", "ann1": "bob", "ann2": "amy"}[row.annotator], value=row.value) for row in rows]
    after = aggregate(renamed, method).labels
    assert all(after[name].present == pytest.approx(before[name].present, abs=1e-9) for name in before)


@pytest.mark.parametrize("fitted", [dawid_skene, mace])
def test_present_and_absent_are_treated_alike(fitted):
    rows, _ = crowd(NINE, 80, 3, 0.4, seed=4)
    turned = [Judgement(row.images, row.annotator, value="absent" if row.value == "present" else "present") for row in rows]
    one, other = fitted(Answers.of(rows)), fitted(Answers.of(turned))
    assert one.present == pytest.approx(1 - other.present, abs=1e-6)
    assert one.sensitivity == pytest.approx(other.specificity, abs=1e-6)


# --- oracles: crowd-kit and choix -----------------------------------------------------------------------------------------


def frame(rows):
    import pandas

    return pandas.DataFrame([(row.images[0], row.annotator, row.value) for row in rows], columns=["task", "worker", "label"])


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_without_a_prior_is_crowd_kit_s(seed):
    aggregation = oracle("crowdkit.aggregation")
    rows, _ = crowd(NINE, 150, 4, 0.4, seed)
    answers = Answers.of(rows)
    ours = dawid_skene(answers, prior=(0.0, 0.0), steps=40, tolerance=0.0)
    # without their early stop: it looks at a bound that counts the prior once per answer and need not rise
    theirs = aggregation.DawidSkene(n_iter=40, tol=-numpy.inf).fit(frame(rows))
    table = theirs.probas_.reindex(list(answers.images))
    assert ours.present == pytest.approx(table["present"].to_numpy(), abs=1e-6)
    assert ours.prevalence == pytest.approx(theirs.priors_["present"], abs=1e-2)
    for number, who in enumerate(answers.annotators):  # theirs are one half-step further
        assert ours.sensitivity[number] == pytest.approx(theirs.errors_.loc[(who, "present"), "present"], abs=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_mace_agrees_with_crowd_kit_s(seed):
    """Theirs starts three times at random and keeps the likeliest, so labels are compared, and who is trusted."""
    aggregation = oracle("crowdkit.aggregation")
    rows, truth = crowd(NINE, 200, 4, 0.5, seed)
    answers = Answers.of(rows)
    ours = mace(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = aggregation.MACE(n_restarts=3, n_iter=40, random_state=seed).fit(frame(rows))
    labels = theirs.labels_.reindex(list(answers.images)).to_numpy() == "present"
    assert ((ours.present > 0.5) == labels).mean() >= 0.97
    known = theirs.probas_.reindex(list(answers.images))["present"].to_numpy()
    assert numpy.corrcoef(known, ours.present)[0, 1] > 0.97
    assert numpy.mean((ours.present > 0.5) != list(truth.values())) <= numpy.mean(labels != list(truth.values())) + 0.02


def test_majority_is_crowd_kit_s():
    aggregation = oracle("crowdkit.aggregation")
    rows, _ = crowd(NINE, 100, 3, 0.4, seed=5)
    answers = Answers.of(rows)
    theirs = aggregation.MajorityVote().fit_predict_proba(frame(rows)).reindex(list(answers.images))
    assert majority(answers) == pytest.approx(theirs["present"].to_numpy())


def ranked(count: int, number: int, size: int, seed: int, scale: float = 1.5):
    """Orders drawn from a Plackett-Luce model, and its strengths."""
    rng = numpy.random.default_rng(seed)
    strength = rng.normal(0, scale, count)
    orders = []
    for _ in range(number):
        shown = rng.choice(count, size, replace=False)
        orders.append([int(i) for i in shown[numpy.argsort(-(strength[shown] + rng.gumbel(size=size)))]])
    return orders, strength


@pytest.mark.parametrize("penalty", [0.01, 0.1, 1.0])
def test_bradley_terry_is_choix_s(penalty):
    choix = oracle("choix")
    orders, _ = ranked(20, 60, 4, seed=6)
    pairs = [pair for order in orders for pair in pairs_of(order)]
    theirs = choix.opt_pairwise(20, pairs, alpha=penalty, tol=1e-10)
    assert bradley_terry(numpy.array(pairs), 20, penalty=penalty).value == pytest.approx(theirs - theirs.mean(), abs=1e-3)


@pytest.mark.parametrize("penalty", [0.01, 0.1, 1.0])
def test_plackett_luce_is_choix_s(penalty):
    choix = oracle("choix")
    orders, _ = ranked(20, 60, 5, seed=7)
    theirs = choix.opt_rankings(20, orders, alpha=penalty, tol=1e-10)
    assert plackett_luce(orders, 20, penalty=penalty).value == pytest.approx(theirs - theirs.mean(), abs=1e-3)


# --- rankings -------------------------------------------------------------------------------------------------------------


def test_plackett_luce_of_pairs_is_bradley_terry():
    orders, _ = ranked(12, 80, 2, seed=8)
    one, other = plackett_luce(orders, 12), bradley_terry(numpy.array(orders), 12)
    assert one.value == pytest.approx(other.value, abs=1e-4) and one.deviation == pytest.approx(other.deviation, abs=1e-4)


def test_strengths_come_back_and_their_deviations_say_how_well():
    orders, strength = ranked(30, 400, 5, seed=9)
    found = plackett_luce(orders, 30, penalty=0.01)
    error = found.value - (strength - strength.mean())
    assert numpy.corrcoef(found.value, strength)[0, 1] > 0.98
    assert 0.6 < numpy.sqrt((error**2).mean()) / numpy.sqrt((found.deviation**2).mean()) < 1.6
    few = plackett_luce(orders[:40], 30, penalty=0.01)
    assert few.deviation.mean() > 2 * found.deviation.mean()


def test_who_orders_at_random_counts_nothing():
    rng = numpy.random.default_rng(10)
    orders, strength = ranked(40, 120, 5, seed=10, scale=3.0)
    rows = []
    for number, order in enumerate(orders):
        who = f"ann{number % 3}"
        given = [f"im{i:02d}" for i in (rng.permutation(order) if who == "ann2" else order)]
        rows.append(Judgement(tuple(sorted(given)), who, ranking=tuple(given)))
    eta = ranking_reliability(rows)
    assert eta["ann2"] < 0.65 < 0.85 < min(eta["ann0"], eta["ann1"])
    counted = {who: weight for row, (_, weight) in zip(rows, order_weights(rows), strict=True) for who in [row.annotator]}
    assert counted["ann2"] < 0.3 and counted["ann0"] > 0.7
    assert {weight for _, weight in order_weights(rows, "majority")} == {1.0}
    assert strength.shape == (40,)
