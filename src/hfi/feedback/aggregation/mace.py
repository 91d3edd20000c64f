"""MACE (Hovy et al. 2013): an annotator either knows the label or spams, answering by habit without looking.

Fitted by variational Bayes with the priors of that paper (Beta(0.5, 0.5) on spamming, a flat Dirichlet on the habit), from
the majority's shares instead of random restarts: the same answers give the same result. Both labels are equally likely before
any answer, so where the concept is rare, Dawid-Skene suits better. Nobody is taken to answer the opposite on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy import ndarray
from scipy.special import digamma, expit

from hfi.feedback.aggregation.answers import Answers

SPAMS = (0.5, 0.5)  # Beta prior on knowing and on spamming
HABIT = 10.0  # Dirichlet prior on what a spammer says
STEPS, TOLERANCE = 2000, 1e-7


@dataclass(frozen=True)
class Mace:
    """What the fit found."""

    present: ndarray  # (n,) probability that the picture shows the concept
    trust: ndarray  # (a,) chance that the annotator answers by looking
    habit: ndarray  # (a,) chance to say present when not looking
    steps: int

    @property
    def sensitivity(self) -> ndarray:
        """(a,) chance to say present where it is."""
        return self.trust + (1 - self.trust) * self.habit

    @property
    def specificity(self) -> ndarray:
        """(a,) chance to say absent where it is not."""
        return self.trust + (1 - self.trust) * (1 - self.habit)


def mace(answers: Answers, steps: int = STEPS, tolerance: float = TOLERANCE) -> Mace:
    """Variational Bayes until no probability moves by more than `tolerance`."""
    said = answers.present
    present, total = answers.votes()
    p = answers.settled((present + 1) / (total + 2))
    given = answers.per_annotator(numpy.ones_like(said))
    # at first, what the majority contradicts counts as spam
    agrees = numpy.where(said > 0, p[answers.image], 1 - p[answers.image])
    spammed = answers.per_annotator(1 - agrees)
    spammed_yes = answers.per_annotator((1 - agrees) * said)
    done = 0
    while True:
        know, spam = _share(given - spammed + SPAMS[0], spammed + SPAMS[1])
        says_yes, says_no = _share(spammed_yes + HABIT, spammed - spammed_yes + HABIT)
        habit = numpy.where(said > 0, says_yes[answers.annotator], says_no[answers.annotator])
        by_habit = spam[answers.annotator] * habit
        by_looking = know[answers.annotator]
        log_ratio = numpy.log(by_looking + by_habit) - numpy.log(by_habit)  # of the label that the answer names against the other
        fresh = answers.settled(expit(answers.per_image(numpy.where(said > 0, log_ratio, -log_ratio))))
        # an answer that names the true label was spam with by_habit / (by_looking + by_habit); any other certainly
        agrees = numpy.where(said > 0, fresh[answers.image], 1 - fresh[answers.image])
        was_spam = agrees * by_habit / (by_looking + by_habit) + 1 - agrees
        spammed, spammed_yes = answers.per_annotator(was_spam), answers.per_annotator(was_spam * said)
        moved, p = float(numpy.abs(fresh - p).max(initial=0.0)), fresh
        done += 1
        if moved <= tolerance or done >= steps:
            trust = (given - spammed + SPAMS[0]) / (given + sum(SPAMS))
            return Mace(p, trust, (spammed_yes + HABIT) / (spammed + 2 * HABIT), done)


def _share(first: ndarray, second: ndarray) -> tuple[ndarray, ndarray]:
    """exp E log of a Beta(first, second) variable and of its complement: variational Bayes' stand-in for the two means."""
    whole = digamma(first + second)
    return numpy.exp(digamma(first) - whole), numpy.exp(digamma(second) - whole)
