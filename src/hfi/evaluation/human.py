"""Blind evaluation by people: pictures of the original and of the erased model, mixed and unlabelled.

A round is a round of the study's own store (`round` of images, guidelines, items and judgements), so the labelling app, its accounts
and its queue serve it like the label round: Queue.of(study, store, "human-concept"). Its judgements never reach the reward.

    round "human-concept"    "is the concept here?"
    round "human-hand"       styles: "same hand as the reference pictures?"
    STUDY/human/images/      the pictures, under random ids that say nothing of the model
    STUDY/human/references/  the artist's real pictures, shown beside every picture of "human-hand"
    STUDY/human/key.json     which picture is which; read by the numbers, never served

Both rounds show pictures of the frozen prompt sets, the same prompts and seeds before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfi.evaluation.statistics import Estimate
from hfi.workspace import Workspace

QUESTIONS = ("concept", "hand")  # rounds "human-concept" and "human-hand"


@dataclass(frozen=True)
class Round:
    """One round of the study's store."""

    name: str  # "human-concept" or "human-hand": the `round` of Queue.of and of judgements
    question: str  # "concept" or "hand"
    words: str  # the question as raters read it
    pictures: int
    references: tuple[Path, ...]  # shown beside every picture; empty for "concept"


@dataclass(frozen=True)
class HumanRates:
    """What the raters of one round said: shares of pictures with the concept (or the same hand), with 95 % intervals over prompts."""

    question: str
    words: str
    before: Estimate
    after: Estimate
    judge_before: Estimate  # the judge network on the very same pictures
    judge_after: Estimate
    pictures: int
    rated: int  # pictures with at least one decided answer
    answers: int
    raters: dict[str, int]  # {"human": n, "simulated": n}
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    judge_agrees: Estimate  # share of rated pictures on which the judge says what most raters say

    @property
    def simulated(self) -> bool:
        """Whether any rater was simulated: then this is no evidence of what people see."""
        return self.raters.get("simulated", 0) > 0


def build_rounds(study: Workspace, pictures: int = 100, references: Path | None = None) -> tuple[Round, ...]:
    """Make the rounds of a study whose evaluation is done; rounds that are there already are kept, answers and all.

    Args:
        pictures: prompts-and-seeds in a round; each gives two pictures, before and after.
        references: a folder of the artist's real pictures (styles only); without it there is no "hand" round.
    """
    raise NotImplementedError


def rounds(study: Workspace) -> tuple[Round, ...]:
    """The rounds that have been built; empty when there is none."""
    raise NotImplementedError


def rates(study: Workspace, seed: int = 0) -> tuple[HumanRates, ...]:
    """The numbers of every round that somebody has answered."""
    raise NotImplementedError


def simulate(study: Workspace, rounds: Sequence[Round]) -> None:
    """Let simulated raters answer (marked so); for demonstrations and tests."""
    raise NotImplementedError
