"""Dawid and Skene (1979): every picture has one true label, every annotator a sensitivity and a specificity; EM finds all three.

With a prior on the two rates the estimate is a posterior mode, so that few answers do not make an annotator infallible and
"present" keeps its meaning (without one, all labels and all annotators turned round explain the answers as well).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy import ndarray
from scipy.special import expit, logit

from hfi.feedback.aggregation.answers import Answers
from hfi.feedback.aggregation.majority import majority

PRIOR = (4.0, 0.5)  # pseudo-counts: as if each annotator had given four right answers of each label and half a wrong one (ours)
LEVEL = 2.0  # pseudo-count of pictures of each label. Four times PRIOR's wrong one: an answer that nobody contradicts is
# right with a chance of at least 0.8, however rare the concept (with equal pseudo-counts a single annotator's rare
# "present" would be half explained away as that annotator's mistakes)
STEPS, TOLERANCE = 2000, 1e-7
NEVER = 1e-9  # no rate is taken for 0 or 1


@dataclass(frozen=True)
class DawidSkene:
    """What EM found."""

    present: ndarray  # (n,) probability that the picture shows the concept
    prevalence: float  # share of pictures that show it
    sensitivity: ndarray  # (a,) chance to say present where it is
    specificity: ndarray  # (a,) chance to say absent where it is not
    steps: int


def dawid_skene(answers: Answers, prior: tuple[float, float] = PRIOR, steps: int = STEPS, tolerance: float = TOLERANCE) -> DawidSkene:
    """Expectation maximisation from the majority's shares, until no probability moves by more than `tolerance`.

    Args:
        answers: at least one.
        prior: pseudo-counts (right, wrong) of every annotator on each label; (0, 0) is plain maximum likelihood.
    """
    right, wrong = prior
    level = LEVEL if right + wrong > 0 else 0.0
    p = majority(answers)
    done = 0
    while True:
        at_present, at_absent = p[answers.image], 1 - p[answers.image]
        said = answers.present
        sensitivity = _rate(answers.per_annotator(at_present * said), answers.per_annotator(at_present), right, wrong)
        specificity = _rate(answers.per_annotator(at_absent * (1 - said)), answers.per_annotator(at_absent), right, wrong)
        prevalence = float(_rate(p.sum(), len(p), level, level))
        fresh = answers.settled(expit(logit(prevalence) + answers.log_odds(sensitivity, specificity)))
        moved, p = float(numpy.abs(fresh - p).max(initial=0.0)), fresh
        done += 1
        if moved <= tolerance or done >= steps:
            return DawidSkene(p, prevalence, sensitivity, specificity, done)


def _rate(hits, total, right: float, wrong: float):
    """(hits + right) / (total + right + wrong), kept inside (0, 1); 1/2 where there is nothing to go by."""
    below = total + right + wrong
    share = numpy.where(below > 0, (hits + right) / numpy.where(below > 0, below, 1), 0.5)
    return numpy.clip(share, NEVER, 1 - NEVER)
