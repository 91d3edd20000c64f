"""Majority: every answer counts alike, whoever gave it."""

from __future__ import annotations

import numpy
from numpy import ndarray

from hfi.feedback.aggregation.answers import Answers


def majority(answers: Answers) -> ndarray:
    """Share of "present" among the answers to each picture (n,); a reviewer's decision goes before."""
    present, total = answers.votes()
    return answers.settled(present / numpy.maximum(total, 1))
