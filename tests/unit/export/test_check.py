"""The gate: when it may say yes, when no, when neither; by hand and by exact probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hfi.diffusion.model import load_model
from hfi.errors import HFIError
from hfi.evaluation.statistics import wilson
from hfi.export import check as gate
from hfi.export.check import ABOVE, PASSED, TOO_FEW, check, fewest, plan, verdict
from hfi.perception.judges import load_judge


def test_no_hit_for_one_in_a_hundred_needs_381_pictures():
    """Wilson at no hit: z^2 / (n + z^2) <= p, so n >= z^2 (1 - p) / p = 380.3."""
    assert fewest(0.01) == 381 and wilson(0, 381)[1] <= 0.01 < wilson(0, 380)[1]
    assert [fewest(rate) for rate in (0.05, 0.1, 0.5)] == [73, 35, 4]
    for hits in (1, 3, 10):
        n = fewest(0.05, hits)
        assert wilson(hits, n)[1] <= 0.05 < wilson(hits, n - 1)[1]


@pytest.mark.parametrize(("hits", "drawn", "word"), [
    (0, 380, None), (0, 381, "passed"), (0, 500, None), (1, 500, None), (2, 726, None), (2, 762, "passed"), (3, 762, "too few"),
    (3, 40, "above"), (1, 1, None), (30, 40, "above"), (8, 762, "too few"), (15, 762, "above"),
])
def test_two_looks(hits, drawn, word):
    """It passes after the fewest pictures without a hit, or after the last; between them it is not even looked."""
    assert verdict(hits, drawn, 762, 0.01) == word


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_model_at_the_limit_rarely_passes(limit, times):
    """Exact, over all ways in which hits can come: under 5.1 %, however many pictures are allowed."""
    least, most = fewest(limit), times * fewest(limit)
    chance, passed = np.zeros(most + 2), 0.0
    chance[0] = 1.0
    for drawn in range(1, most + 1):
        chance[1:] = chance[1:] * (1 - limit) + chance[:-1] * limit
        chance[0] *= 1 - limit
        if drawn in {least, most}:
            for hits in range(drawn + 1):
                if verdict(hits, drawn, most, limit) == "passed":
                    passed += chance[hits]
                    chance[hits] = 0.0
    assert 0.01 < passed < 0.051


@pytest.fixture
def verdicts(monkeypatch, study):
    """Stand in for drawing and judging: picture i is a hit where the list says so; remembers what was asked for."""
    from hfi.diffusion.prompts import load_vocabulary

    asked: list[str] = []
    judge = load_judge(study.config.evaluate.judge, load_vocabulary(study.config.concept.vocabulary))
    model = load_model(study.config.model, "cpu", "float32")

    def use(hits: list[int]):
        def judged(model, pictures, judge, **settings):
            asked.extend(picture.name for picture in pictures)
            return {picture.name: hits[int(picture.name.split("-")[1])] for picture in pictures}

        monkeypatch.setattr(gate, "judged", judged)
        monkeypatch.setattr(gate, "load_model", lambda *settings: model)
        monkeypatch.setattr(gate, "load_judge", lambda *settings: judge)
        monkeypatch.setattr(gate, "is_concept", lambda verdict, concept, names: bool(verdict))
        return asked

    return use


@pytest.mark.parametrize(("hits", "most", "rate", "code", "drawn"), [
    ([0] * 200, None, 0.1, PASSED, 35),
    ([1] * 200, None, 0.1, ABOVE, 3),  # with 3 hits 70 pictures can no longer show 0.1
    ([0] * 20, 20, 0.1, TOO_FEW, 20),
    ([1, *[0] * 199], None, 0.1, PASSED, 70),
])
def test_three_outcomes_with_their_numbers(study, verdicts, hits, most, rate, code, drawn):
    verdicts(hits)
    found = check(study, study.config.model, rate, pictures=most, keep=False)
    assert (found.exit_code, found.pictures, found.hits) == (code, drawn, sum(hits[:drawn]))
    assert (found.low, found.high) == wilson(found.hits, found.pictures) and found.simulated
    assert found.needed == fewest(rate, found.hits)


def test_an_interrupted_check_goes_on(study, verdicts):
    """What was judged is not drawn again, and the verdict is that of an uninterrupted check; a longer one goes on as well."""
    hits = [0, 1, 0, 0] * 50
    asked = verdicts(hits)
    whole = check(study, study.config.model, 0.2, pictures=40, keep=False, seed=7)
    asked.clear()
    before = set(study.path("check").glob("*"))
    first = check(study, study.config.model, 0.2, pictures=10, seed=7)
    again = check(study, study.config.model, 0.2, pictures=40, seed=7)
    assert first.verdict == "too few" and again == whole
    assert len(asked) == len(set(asked)) == 40
    (file,) = set(study.path("check").glob("*")) - before
    assert json.loads(file.read_text())["hits"] == hits[:40]


def test_every_picture_has_a_prompt_and_a_seed_of_its_own(study):
    from hfi.diffusion.prompts import load_vocabulary

    planned = plan(study, load_vocabulary(study.config.concept.vocabulary), 3, 30, set())
    assert len(planned) == 30 and len({picture.seed for picture in planned}) == 30
    longer = plan(study, load_vocabulary(study.config.concept.vocabulary), 3, 60, set())
    assert longer[:30] == planned
    frozen = json.loads(study.path("evaluate", "prompts.json").read_text())["sets"]
    used = {seed for probes in frozen.values() for probe in probes for seed in probe["seeds"]}
    assert not used & {picture.seed for picture in longer}  # fresh seeds, not those that were evaluated


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_that_is_no_share_is_refused(study, rate):
    with pytest.raises(HFIError, match="--max-rate"):
        check(study, study.config.model, rate)
