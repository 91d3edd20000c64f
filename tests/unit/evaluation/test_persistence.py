"""What further training is measured on: what is erased later on purpose is not among what must stay."""

from __future__ import annotations

from types import SimpleNamespace

from hfi.config import Concept, Erase
from hfi.diffusion.prompts import load_vocabulary, members
from hfi.evaluation import prompt_sets
from hfi.evaluation.others import erased_elsewhere, what_stays


def study(name: str, kind: str = "harm") -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(concept=Concept(name=name, kind=kind), erase=Erase()))


def test_what_is_erased_on_top_need_not_stay():
    vocabulary, weapon = load_vocabulary("emoji"), Concept(name="weapon")
    objects, styles = what_stays(weapon, vocabulary, *erased_elsewhere(study("weapon"), [study("alcohol"), study("fluent-ink", "style")]))
    asked = prompt_sets.other(weapon, vocabulary, 200, 1, names=objects, styles=styles)
    drinks = set(members(Concept(name="alcohol"), vocabulary))
    assert not drinks & {probe.object for probe in asked} and "fluent-ink" not in {probe.style for probe in asked}
    assert drinks & {probe.object for probe in prompt_sets.other(weapon, vocabulary, 200, 1)}
    assert what_stays(weapon, vocabulary, *erased_elsewhere(study("weapon"))) == (None, None)
