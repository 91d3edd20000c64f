"""Detectors' rates and sweeps, distances and the benchmarks' measures, on tables small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfi.config import Concept
from hfi.diffusion.prompts import Vocabulary, load_vocabulary, members
from hfi.errors import HFIError
from hfi.evaluation import detection, distances, protocols
from hfi.evaluation.drawing import Verdict
from hfi.evaluation.prompt_sets import Probe
from hfi.evaluation.protocols import Shown
from hfi.perception.detectors import Detector


def test_rates_by_hand():
    before, after, prompts = [0.9, 0.5, 0.45, 0.1], [0.44, 0.5, 0.0, 0.1], ["a", "a", "b", "b"]
    found = detection.change(before, after, prompts, 0.45, 0, 200)
    assert (found["before"]["value"], found["after"]["value"], found["change"]["value"]) == (0.75, 0.25, -0.5)
    assert found["before"]["n"] == 4 and found["before"]["prompts"] == 2
    assert found["before"]["low"] <= 0.75 <= found["before"]["high"]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_sweep_never_rises_and_holds_the_rate_at_its_threshold(pairs):
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    prompts = [str(i // 2) for i in range(len(pairs))]
    rows = detection.sweep(before, after, prompts, 0, 20)
    assert [row["threshold"] for row in rows] == pytest.approx([0.05 * k for k in range(1, 20)])
    for side in ("before", "after"):
        shares = [row[side]["value"] for row in rows]
        assert shares == sorted(shares, reverse=True)
    assert rows[9]["after"]["value"] == detection.change(before, after, prompts, 0.5, 0, 20)["after"]["value"]


@pytest.mark.parametrize(("spec", "plain", "threshold"), [
    ("nudenet@0.45", "nudenet", 0.45), ("nudenet", "nudenet", None), ("q16:me@home/q.safetensors@1", "q16:me@home/q.safetensors", 1.0),
    ("classifier:me@home", "classifier:me@home", None),
])  # fmt: skip
def test_thresholds_are_read_from_the_end(spec, plain, threshold):
    assert detection.split_threshold(spec) == (plain, threshold)


@pytest.mark.parametrize("spec", ["nudenet@0", "nudenet@1.01", "nudenet@-1", "nudenet@nan"])
def test_impossible_thresholds_are_refused(spec):
    with pytest.raises(HFIError, match="a threshold lies above 0"):
        detection.split_threshold(spec)


def test_a_measure_is_named_with_version_and_threshold():
    def named(name: str, threshold: float, version: str = "") -> str:
        return detection.measure_name(Detector(name, threshold, 0.1, lambda paths: torch.zeros(0), version=version))

    assert named("nudenet-3.4.2-320n@0.45", 0.6) == "nudenet-3.4.2-320n@0.6"
    assert named("classifier:nsfw#nude", 0.5, "1a2b3c4d") == "classifier:nsfw#nude-1a2b3c4d@0.5"
    assert named("clip:/home/x/clip#a gun", 0.3, "1a2b") == "clip:clip#a gun-1a2b@0.3"


def unit(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + shift, dim=1)


@pytest.fixture
def torchmetrics():
    pytest.importorskip("torchmetrics", reason="torchmetrics (extra 'measures') is not installed")


@pytest.mark.usefixtures("torchmetrics")
def test_fid_of_itself_is_nothing_and_equals_the_formula():
    x, y = unit(50, 0), unit(40, 1, 0.5)
    assert distances.fid(x, x) == pytest.approx(0, abs=1e-6)
    from scipy.linalg import sqrtm

    a, b = (z.double().numpy() for z in (x, y))
    s, t = np.cov(a.T), np.cov(b.T)
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert distances.fid(x, y) == pytest.approx(by_hand, abs=1e-6) and by_hand > 0.1
    assert distances.fid(x.flip(0), y) == pytest.approx(distances.fid(y, x), abs=1e-9)


@pytest.mark.usefixtures("torchmetrics")
def test_kid_by_hand_whatever_the_order_and_the_global_generator():
    """x = (1, 0), (0, 1) and y = (1, 0), (1, 0): k = (cos + 1)^3 is 1 within x, 8 within y, and 8, 8, 1, 1 across."""
    x, y = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert distances.kid(x, y) == pytest.approx(1 + 8 - 2 * 4.5)
    assert distances.kid_of_pairs(x, y) == pytest.approx(1 + 8 - 2 * (8 + 1) / 2)
    x, y = unit(20, 0), unit(20, 1, 0.5)
    state = torch.random.get_rng_state()
    found = distances.kid(x, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert distances.kid(x.flip(0), y) == pytest.approx(found, abs=1e-12)
    assert distances.kid_of_pairs(x, x) == pytest.approx(0, abs=1e-12)
    assert distances.kid_of_pairs(x.flip(0), y.flip(0)) == pytest.approx(distances.kid_of_pairs(x, y), abs=1e-12)
    assert distances.kid(x, x) < 0  # the same pictures twice are no independent samples: that is what pairs_left_out is for


@pytest.mark.usefixtures("torchmetrics")
def test_what_would_need_a_download_is_one_line(monkeypatch):
    import sys

    for package in ("torchvision", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HFIError, match=r"LPIPS.*(needs torchvision|cannot be fetched).*") as caught:
        distances.lpips_distance("alex")
    assert "\n" not in str(caught.value)
    with pytest.raises(HFIError, match=r"Inception v3.*(needs torch-fidelity|cannot be fetched).*"):
        distances.inception([], [], "fid")
    with pytest.raises(HFIError, match="no such network 'resnet'"):
        distances.lpips_distance("resnet")


def test_lpips_is_a_mean_over_pairs_with_an_interval_over_prompts(tmp_path):
    """The network stands aside: any distance of two batches."""
    from PIL import Image

    files = []
    for i, grey in enumerate((0, 51, 102)):
        Image.new("RGB", (4, 4), (grey,) * 3).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")

    def distance(x, y):
        return (x - y).abs().mean((1, 2, 3))

    assert distances.lpips(distance, files, files, ["a", "b", "c"], 0, 50)["value"] == 0
    found = distances.lpips(distance, files, [files[0]] * 3, ["a", "b", "c"], 0, 200)
    assert found["value"] == pytest.approx(0.2, abs=1e-4) and found["low"] < 0.2 < found["high"]


def shown(asked_style: str, asked_object: str, style: str, name: str) -> Shown:
    return Shown(Probe(f"{asked_object}, {asked_style}", asked_object, asked_style), Verdict(name, style, 1.0, 1.0))


GRID = [  # asked style, asked object -> style, object named; "ink" has been erased
    shown("ink", "cat", "chalk", "cat"), shown("ink", "dog", "ink", "dog"),
    shown("chalk", "cat", "chalk", "cat"), shown("chalk", "dog", "chalk", "cat"),
    shown("oil", "cat", "oil", "cat"), shown("oil", "dog", "ink", "dog"),
    shown("oil", "dog", "oil", "neither"),
]  # fmt: skip


def test_unlearn_canvas_by_hand():
    """ink 1/2 right; chalk 2/2 and oil 1/3 right (garbage has no style); cat 3/3 and dog 2/4 right."""
    found = protocols.unlearn_canvas(GRID, "ink", "style")
    assert found == {"ua": 0.5, "ira": pytest.approx((1 + 1 / 3) / 2), "cra": pytest.approx((1 + 0.5) / 2)}
    as_object = protocols.unlearn_canvas(GRID, "dog", "object")
    assert as_object == {"ua": 0.5, "ira": 1.0, "cra": pytest.approx((0.5 + 1 + 1 / 3) / 3)}
    assert protocols.unlearn_canvas(GRID, "gouache", "style")["ua"] is None


def test_the_mean_over_targets_has_an_interval_and_the_unerased_model_a_row():
    whole = [shown(one.probe.style, one.probe.object, one.probe.style, one.probe.object) for one in GRID]
    erased = {("style", "ink"): GRID, ("style", "chalk"): GRID, ("object", "dog"): GRID}
    table = protocols.unlearn_canvas_table(erased, whole, seed=0, resamples=200)
    assert [row["target"] for row in table["targets"]] == ["ink", "chalk", "dog"]
    style = table["mean"]["style"]["ua"]
    assert style == {"value": 0.25, "low": 0.0, "high": 0.5, "targets": 2, "interval": "bootstrap over targets"}
    assert table["mean"]["object"]["ua"]["low"] is None and table["mean"]["object"]["ua"]["value"] == 0.5
    assert {name: table["unerased"]["style"][name]["value"] for name in protocols.MEASURES} == {"ua": 0, "ira": 1, "cra": 1}
    every = table["unerased"]["style"]["ira"]
    assert every["interval"] == "wilson over targets" and every["low"] < 0.5 < every["high"] == 1.0  # two of two are no certainty
    again = protocols.unlearn_canvas_table({key: rows[::-1] for key, rows in erased.items()}, whole, seed=0, resamples=200)
    assert again == table  # in any order of pictures


def test_pinpointness_and_selective_alignment_by_hand():
    before = [shown("ink", "cat", "ink", "cat"), shown("oil", "cat", "oil", "cat"), shown("ink", "dog", "ink", "dog"),
              shown("oil", "dog", "oil", "cat")]  # fmt: skip
    after = [shown("ink", "cat", "ink", "cat"), shown("oil", "cat", "chalk", "dog"), shown("ink", "dog", "chalk", "dog"),
             shown("oil", "dog", "oil", "neither")]  # fmt: skip
    found = protocols.pinpointness(before, after, 0, 100)
    assert (found["before"]["value"], found["after"]["value"]) == (0.75, 0.5)
    assert found["kept"]["value"] == pytest.approx(2 / 3, abs=1e-4) and found["kept"]["prompts"] == 2
    assert found["words"] == {"cat": {"before": 1.0, "after": 0.5}, "dog": {"before": 0.5, "after": 0.5}}
    rest = protocols.selective_alignment(before, after, "style", 0, 100)
    assert (rest["before"]["value"], rest["after"]["value"], rest["kept"]["value"]) == (1.0, 0.25, 0.25)


WEAPON = Concept(name="weapon")


def test_pinpoint_words_are_the_nearest_non_members():
    vocabulary = load_vocabulary("emoji")

    def embed(texts):  # axe points one way, hammer nearly so, all else elsewhere
        angle = {"a photo of axe": 0.0, "a photo of hammer": 0.1, "a photo of scissors": 0.3}
        return torch.tensor([[math.cos(angle.get(text, 2.0)), math.sin(angle.get(text, 2.0))] for text in texts])

    concept = Concept(name="weapon", members=("axe",))
    assert protocols.pinpoint_words(concept, vocabulary, embed, 2) == ("hammer", "scissors")
    probes = protocols.pinpoint_probes(concept, vocabulary, ("hammer", "scissors"), 6, 0)
    assert {probe.object for probe in probes} == {"hammer", "scissors"} and all(probe.style for probe in probes)


def test_multilingual_prompts_and_what_this_text_encoder_knows_of_them():
    """Most words of other languages fall into pieces: a rate of 0 under them is no erasure, and the table shows why."""
    from transformers import CLIPTokenizer

    from hfi import emoji

    vocabulary, words = load_vocabulary("emoji"), emoji.translations()
    assert set(words) == {"de", "es", "fr", "it", "pt"}
    assert all(set(names) == set(vocabulary.objects) - {"pistol"} for names in words.values())
    tokenize = CLIPTokenizer.from_pretrained(str(emoji.clip_folder())).tokenize
    known = {language: protocols.known_share(list(names.values()), tokenize) for language, names in words.items()}
    assert all(share < 0.1 for share in known.values()), known
    assert protocols.known_share(list(vocabulary.objects), tokenize) > 0.6
    probes = protocols.multilingual_probes(WEAPON, vocabulary, words["de"], "de", 12, 3)
    assert len(probes) == 12 and probes == protocols.multilingual_probes(WEAPON, vocabulary, words["de"], "de", 12, 3)
    assert {probe.object for probe in probes} <= set(vocabulary.concepts["weapon"]["members"]) - {"pistol"}
    assert any(probe.text == "Küchenmesser" for probe in probes) and sum(bool(probe.style) for probe in probes) == 6
    named = ("kitchen knife", "axe")
    seen = [Shown(probe, Verdict("axe" if i < 3 else "cat", None, 1.0, 0.0)) for i, probe in enumerate(probes)]
    table = protocols.multilingual({"de": seen}, {"de": seen[::-1]}, known, WEAPON, named, 0, 50)
    assert table["de"]["before"]["value"] == table["de"]["after"]["value"] == 0.25 and table["de"]["known_words"] < 0.1
    assert protocols.multilingual_probes(WEAPON, vocabulary, {"cat": "Katze"}, "de", 5, 3) == []


def test_alignment_prompts_ask_for_something_beside_the_concept():
    vocabulary = load_vocabulary("emoji")
    for concept in (WEAPON, Concept(name="noto", kind="style")):
        probes = protocols.alignment_probes(concept, vocabulary, 20, 1)
        assert len(probes) == 20 and all(probe.style and probe.object for probe in probes)
        rest = "style" if concept.kind == "harm" else "object"
        alone = protocols.rest_alone(probes, rest)  # says the rest, and nothing of the concept
        assert [getattr(one, rest) for one in alone] == [getattr(one, rest) for one in probes]
        assert all(getattr(one, rest) in one.text and getattr(one, protocols.OTHER[rest]) not in one.text for one in alone)
        assert len({(one.text, one.copy) for one in alone}) == len(alone)  # each with a seed of its own


def test_canvas_of_a_harm_weighs_its_members_alike_and_estimates_agree_with_it():
    whole = [shown(s, o, "chalk", "cat") for s in ("ink", "chalk") for o in ("cat", "dog", "owl", "fox")]
    exact = protocols.unlearn_canvas(whole, ("cat", "dog"), "object")
    assert exact == {"ua": 0.5, "ira": 0.0, "cra": 0.5}
    found = protocols.unlearn_canvas_estimates(whole, ("cat", "dog"), "object", 0, "x", 200)
    assert {name: found[name]["value"] for name in found} == exact
    assert found["ua"]["low"] < 0.5 < found["ua"]["high"] and found["ua"]["n"] == 4


def test_the_grid_of_a_vocabulary_has_the_target_and_each_pair_once():
    vocabulary = load_vocabulary("emoji")
    inside = members(WEAPON, vocabulary)
    for concept, most in ((WEAPON, 20), (WEAPON, 6), (Concept(name="fluent-ink", kind="style"), 5)):
        probes = protocols.grid_probes(concept, vocabulary, most, 0)
        objects, styles = {one.object for one in probes}, {one.style for one in probes}
        assert (len(objects), len(styles)) == (most, min(most, len(vocabulary.styles)))
        assert len({(one.object, one.style) for one in probes}) == len(probes) == len(objects) * len(styles)
        assert all(styles <= set(vocabulary.objects[name].styles or styles) for name in objects - set(inside))
        assert probes == protocols.grid_probes(concept, vocabulary, most, 0) != protocols.grid_probes(concept, vocabulary, most, 1)
        if concept.kind == "style":
            assert concept.name in styles
        else:
            assert 1 <= len(objects & set(inside)) <= most // 2
    plain = Vocabulary({name: vocabulary.objects[name] for name in ("axe", "cat face")}, (), {"weapon": {"members": ["axe"]}})
    assert [one.text for one in protocols.grid_probes(WEAPON, plain, 9, 0)] == ["a picture of an axe", "a picture of a cat face"]
