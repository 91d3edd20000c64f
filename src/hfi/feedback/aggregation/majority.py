"""Majority: every answer counts alike, whoever gave it."""

from __future__ import annotations

from numpy import ndarray

from hfi.feedback.aggregation.answers import Answers


def majority(answers: Answers) -> ndarray:
    """Share of "present" among the answers to each picture (n,)."""
    present, total = answers.votes()
    return present / total
