"""Present/absent answers as arrays, in an order that does not depend on who answered first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy
from numpy import ndarray

from hfi.feedback.judgements import Judgement

DECIDED = ("present", "absent")


@dataclass(frozen=True)
class Answers:
    """Answer v says that picture image[v] shows the concept (present[v] = 1) or not (0), by annotator[v]."""

    images: tuple[str, ...]  # n picture ids, sorted
    annotators: tuple[str, ...]  # a pseudonyms, sorted
    kinds: tuple[str, ...]  # of the annotators: human, simulated or machine
    image: ndarray  # (v,) index into images
    annotator: ndarray  # (v,) index into annotators
    present: ndarray  # (v,) 0.0 or 1.0
    known: ndarray  # (n,) 0.0 or 1.0 where a reviewer decided (adjudication), else nan

    @classmethod
    def of(cls, rows: Iterable[Judgement]) -> Answers:
        """The answers among judgements: unsure, skip, withdrawn and rankings say nothing about presence and are left out.

        One answer of one annotator on one picture: of several the last counts. A reviewer's adjudication is no answer among
        others but the label, from which the reliability of those who answered is learned as well.
        """
        said: dict[tuple[str, str], float] = {}
        kinds: dict[str, str] = {}
        decided: dict[str, float] = {}
        for row in rows:
            if row.task != "binary":
                continue
            if row.purpose == "adjudication":
                if row.value in DECIDED:
                    decided[row.images[0]] = float(row.value == "present")
                continue
            place = (row.images[0], row.annotator)
            if row.value in DECIDED:
                said[place] = float(row.value == "present")
                kinds[row.annotator] = row.kind
            else:
                said.pop(place, None)
        images, annotators = sorted({*decided, *(name for name, _ in said)}), sorted({name for _, name in said})
        rank, place = {name: i for i, name in enumerate(images)}, {name: i for i, name in enumerate(annotators)}
        order = sorted(said)
        return cls(
            tuple(images),
            tuple(annotators),
            tuple(kinds[name] for name in annotators),
            numpy.array([rank[image] for image, _ in order], dtype=int),
            numpy.array([place[annotator] for _, annotator in order], dtype=int),
            numpy.array([said[key] for key in order], dtype=float),
            numpy.array([decided.get(name, numpy.nan) for name in images], dtype=float),
        )

    def settled(self, present: ndarray) -> ndarray:
        """Probabilities (n,) with what a reviewer decided put in their place."""
        return numpy.where(numpy.isnan(self.known), present, self.known)

    def per_image(self, values: ndarray) -> ndarray:
        """Sums (n,) of one number per answer (v,)."""
        return numpy.bincount(self.image, values, len(self.images))

    def per_annotator(self, values: ndarray) -> ndarray:
        """Sums (a,) of one number per answer (v,)."""
        return numpy.bincount(self.annotator, values, len(self.annotators))

    def votes(self) -> tuple[ndarray, ndarray]:
        """(n,) how many said present, (n,) how many answered."""
        return self.per_image(self.present), self.per_image(numpy.ones_like(self.present))

    def log_odds(self, sensitivity: ndarray, specificity: ndarray) -> ndarray:
        """log P(answers | present) / P(answers | absent) of each picture (n,), given the annotators' rates (a,)."""
        alpha, beta = sensitivity[self.annotator], specificity[self.annotator]
        yes, no = numpy.log(alpha) - numpy.log1p(-beta), numpy.log1p(-alpha) - numpy.log(beta)
        return self.per_image(numpy.where(self.present > 0, yes, no))
