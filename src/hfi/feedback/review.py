"""What a reviewer needs to see of the judgements: agreement, each annotator's confusion, disagreements, group bias, gold accuracy.

Every function works on the arrays of hfi.feedback.ledger: the first look at a million judgements takes seconds, each later one
reads only what is new and takes a fraction of a second. Binary judgements, unless a name says ranking. Superseded and undone judgements
never count; a reviewer's own decisions count as decisions, not as one more opinion.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy import ndarray
from sqlalchemy import bindparam, text

from hfi.feedback.ledger import ABSENT, PRESENT, RANKING, SKIP, UNSURE, VALUES, Standing, standing
from hfi.feedback.store import Store
from hfi.feedback.tables import CURRENT, LABEL_ROUND
from hfi.feedback.traits import traits
from hfi.seeds import numpy_generator
from hfi.workspace import Workspace

PEOPLE = ("human",)
Z = 1.959963984540054  # the 97.5 % point of the normal distribution
MOST_RANKINGS = 20_000  # of which agreement is counted, the newest
LEAST_EXCESS = 0.1  # a bias that is smaller than this is no finding, however sure


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha with a 95 % bootstrap interval over pictures; None where it is not defined (docs/metrics.md)."""

    measure: str
    alpha: float | None
    low: float | None
    high: float | None
    pictures: int  # judged by at least two annotators
    judgements: int  # of those pictures


@dataclass(frozen=True)
class Share:
    """A share of `n` answers with Wilson's 95 % interval; `value` is None when n is 0."""

    value: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Confusion:
    """One annotator's answers beside the majority of the others on the same pictures; ties and lone judgements are left out.

    The first word is what the others said: `present_absent` counts pictures that the others call present and this one absent.
    """

    present_present: int
    present_absent: int
    present_unsure: int
    absent_present: int
    absent_absent: int
    absent_unsure: int
    agree: Share  # of pictures on which this annotator decided
    misses: Share  # "absent" where the others say present
    false_alarms: Share  # "present" where the others say absent


@dataclass(frozen=True)
class AnnotatorReview:
    """One annotator's work."""

    pseudonym: str
    kind: str  # human, simulated or machine
    judgements: int  # that count
    present: int
    absent: int
    unsure: int
    skip: int
    rankings: int
    seconds: float | None  # mean time of an answer
    confusion: Confusion
    gold: Share  # right on gold items
    repeats: Share  # same answer when the same picture came again


@dataclass(frozen=True)
class Answer:
    """What one annotator said of one picture."""

    pseudonym: str
    kind: str
    value: str
    seconds: float | None
    created: str


@dataclass(frozen=True)
class Disagreement:
    """A picture on which annotators differ, or on which none of several could decide."""

    image: str
    present: int
    absent: int
    unsure: int
    answers: tuple[Answer, ...]
    adjudicated: str | None  # what a reviewer decided, if one did


@dataclass(frozen=True)
class Disagreements:
    """A page of the queue: the most evenly split first, those on which all were unsure last; what a reviewer has decided is left out."""

    total: int
    start: int
    items: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Bias:
    """One annotator (or group of them) flags pictures of one kind more often than the others flag the very same pictures."""

    who: str  # a pseudonym, or several with commas between: they share the bias
    trait: str  # what the pictures share: "style", "object", "cluster" ...
    value: str  # e.g. "ink"
    pictures: int  # of that kind that this annotator and at least one other decided on
    flagged: Share  # by this annotator
    flagged_by_others: Share
    excess: float  # difference of the two, beyond this annotator's excess on all other pictures
    low: float  # 95 % interval of the excess
    high: float
    words: str  # one sentence for the reviewer


@dataclass(frozen=True)
class Overview:
    """Everything that the reviewer's page shows at the top."""

    images: int
    judged: int  # pictures with at least one decided judgement
    judgements: int
    disagreements: int
    agreement: Agreement
    ranking_agreement: Agreement
    annotators: tuple[AnnotatorReview, ...]
    biases: tuple[Bias, ...]


def overview(
    store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0, study: Workspace | None = None, round: str = LABEL_ROUND
) -> Overview:
    """All of the below at once.

    Args:
        kinds: whose judgements count.
        study: where traits of the pictures are found; None: no biases.
        round: "label", or an evaluation round.
    """
    now = standing(store, round)
    rows = now.of(kinds)
    present, absent = now.votes(PRESENT, rows), now.votes(ABSENT, rows)
    with store.reading() as connection:
        images = connection.scalar(text("SELECT count(*) FROM image WHERE round = :round"), {"round": round})
    return Overview(
        images=images,
        judged=int((present + absent > 0).sum()),
        judgements=int(rows.sum()),
        disagreements=int(_open(now, present, absent, now.votes(UNSURE, rows)).sum()),
        agreement=agreement(store, kinds, seed, round=round),
        ranking_agreement=ranking_agreement(store, kinds, seed, round=round),
        annotators=annotators(store, kinds, round),
        biases=biases(store, kinds, study=study) if study is not None else (),
    )


def agreement(store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0, resamples: int = 1000, round: str = LABEL_ROUND) -> Agreement:
    """Krippendorff's alpha (nominal) of present and absent, with a bootstrap interval over pictures."""
    now = standing(store, round)
    rows = now.of(kinds)
    counts = numpy.stack([now.votes(ABSENT, rows), now.votes(PRESENT, rows)], axis=1)
    return _agreement("Krippendorff's alpha, nominal", counts, seed, resamples)


def ranking_agreement(
    store: Store, kinds: Sequence[str] = PEOPLE, seed: int = 0, resamples: int = 1000, round: str = LABEL_ROUND
) -> Agreement:
    """Nominal alpha over pairs of pictures (which of the two comes first), bootstrap over pairs; of the newest rankings."""
    query = text(f"""SELECT j.ranking {CURRENT[CURRENT.index("FROM") :]} AND j.value = 'ranked' AND j.round = :round AND a.kind IN :kinds
                     ORDER BY j.id DESC LIMIT {MOST_RANKINGS}""").bindparams(bindparam("kinds", expanding=True))  # fmt: skip
    with store.reading() as connection:
        orders = [tuple(json.loads(ranking)) for ranking in connection.scalars(query, {"round": round, "kinds": list(kinds) or [""]})]
    pairs: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for order in orders:
        for first, second in itertools.combinations(order, 2):
            pairs[min(first, second), max(first, second)][first > second] += 1
    counts = numpy.array([[seen[False], seen[True]] for seen in pairs.values()]).reshape(-1, 2)
    return _agreement("Krippendorff's alpha, nominal, over pairs of pictures", counts, seed, resamples, mirrored=True)


def annotators(store: Store, kinds: Sequence[str] = PEOPLE, round: str = LABEL_ROUND) -> tuple[AnnotatorReview, ...]:
    """Each annotator's work, the one with most judgements first."""
    now = standing(store, round)
    rows = now.of(kinds)
    count = len(now.names)
    given = numpy.bincount(now.annotator[rows] * len(VALUES) + now.value[rows], minlength=count * len(VALUES)).reshape(count, len(VALUES))
    known = rows & ~numpy.isnan(now.seconds)
    seconds = numpy.bincount(now.annotator[known], now.seconds[known], count)
    timed = numpy.bincount(now.annotator[known], minlength=count)
    tables = _confusions(now, rows)
    gold, again = _gold(store, now, rows), _repeats(now)
    found = [
        AnnotatorReview(
            pseudonym=now.names[i],
            kind=now.kinds[i],
            judgements=int(given[i].sum()),
            present=int(given[i, PRESENT]),
            absent=int(given[i, ABSENT]),
            unsure=int(given[i, UNSURE]),
            skip=int(given[i, SKIP]),
            rankings=int(given[i, RANKING]),
            seconds=float(seconds[i] / timed[i]) if timed[i] else None,
            confusion=_confusion(tables[i]),
            gold=share(*gold[i]),
            repeats=share(*again[i]),
        )
        for i in range(count)
        if given[i].sum()
    ]
    return tuple(sorted(found, key=lambda one: (-one.judgements, one.pseudonym)))


def disagreements(
    store: Store, start: int = 0, count: int = 50, kinds: Sequence[str] = PEOPLE, round: str = LABEL_ROUND
) -> Disagreements:
    """A page of pictures on which annotators differ, the most evenly split first, then of those on which all of several were unsure.

    What a reviewer has decided is left out.
    """
    now = standing(store, round)
    rows = now.of(kinds)
    present, absent, unsure = (now.votes(value, rows) for value in (PRESENT, ABSENT, UNSURE))
    places = numpy.flatnonzero(_open(now, present, absent, unsure))
    total = present[places] + absent[places]
    split = numpy.where(total > 0, numpy.abs(present[places] - absent[places]) / numpy.maximum(total, 1), 1.0)
    order = places[numpy.lexsort((places, -total, split))]
    page = order[max(0, start) : max(0, start) + count].tolist()
    answers = _answers(store, [now.targets[i] for i in page], round)
    items = [
        Disagreement(now.targets[i], int(present[i]), int(absent[i]), int(unsure[i]), tuple(answers.get(now.targets[i], ())), None)
        for i in page
    ]
    return Disagreements(len(order), max(0, start), tuple(items))


def biases(
    store: Store,
    kinds: Sequence[str] = PEOPLE,
    least: int = 20,
    study: Workspace | None = None,
    found_traits: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Bias, ...]:
    """Annotators who flag a kind of picture (a style, an object, a cluster) rather than the concept; the largest excess first.

    On each picture an annotator is compared with the others who judged that very picture. The excess is how much more often it
    flags pictures of the kind than they do, beyond how much more often it flags any other picture. Told are excesses of at least
    LEAST_EXCESS whose 95 % interval, corrected for the number of comparisons (Bonferroni), lies above 0, on at least `least` pictures;
    annotators with the same bias are told together, compared with everybody else.
    """
    found_traits = found_traits if found_traits is not None else traits(study) if study is not None else {}
    now = standing(store)
    decided = now.of(kinds) & ((now.value == PRESENT) | (now.value == ABSENT))
    found: list[Bias] = []
    for trait, values in found_traits.items():
        words = sorted(set(values.values()))
        code = {word: i for i, word in enumerate(words)}
        of_target = numpy.array([code.get(values.get(target, ""), -1) for target in now.targets], dtype=int)
        if len(words) < 2 or not len(of_target):
            continue
        rows = decided & (of_target[now.target] >= 0)
        single = {(i,): _excesses(now, rows, of_target, len(words), [i]) for i in range(len(now.names))}
        comparisons = sum(int((n >= least).sum()) for n, *_ in single.values())
        z = _normal_point(1 - 0.025 / max(comparisons, 1))
        for k in range(len(words)):
            who = [i for (i,), numbers in single.items() if _finding(numbers, k, z, least)]
            if not who:
                continue
            together = _excesses(now, rows, of_target, len(words), who) if len(who) > 1 else single[who[0],]
            numbers = together if _finding(together, k, z, least) else None
            for members, these in [(who, numbers)] if numbers else [([i], single[i,]) for i in who]:
                found.append(_bias([now.names[i] for i in members], trait, words[k], these, k, z))
    return tuple(sorted(found, key=lambda one: -one.excess))


# --- the parts ---------------------------------------------------------------------------------------------------------------


def share(hits: float, n: float) -> Share:
    """hits out of n with Wilson's 95 % interval."""
    if n <= 0:
        return Share(None, 0.0, 1.0, 0)
    p, square = hits / n, Z * Z
    centre, half = (p + square / (2 * n)) / (1 + square / n), Z / (1 + square / n) * (p * (1 - p) / n + square / (4 * n * n)) ** 0.5
    return Share(float(p), float(max(0.0, centre - half)), float(min(1.0, centre + half)), int(n))


def _agreement(measure: str, counts: ndarray, seed: int, resamples: int, mirrored: bool = False) -> Agreement:
    """alpha of two values from counts (units, 2). Units with equal counts are one pattern: drawing units with replacement is drawing
    from a multinomial over patterns, so the bootstrap costs the same for a hundred units and for a million."""
    counts = counts[counts.sum(1) >= 2]
    patterns, many = numpy.unique(counts, axis=0, return_counts=True) if len(counts) else (counts, numpy.zeros(0, dtype=int))
    alpha = _alphas(patterns, many[None, :], mirrored)[0] if len(counts) else numpy.nan
    low = high = None
    if not numpy.isnan(alpha):
        draws = numpy_generator(seed, "agreement", measure).multinomial(many.sum(), many / many.sum(), size=resamples)
        values = _alphas(patterns, draws, mirrored)
        low, high = (float(x) for x in numpy.percentile(values[~numpy.isnan(values)], [2.5, 97.5]))
    return Agreement(measure, None if numpy.isnan(alpha) else float(alpha), low, high, len(counts), int(counts.sum()))


def _alphas(patterns: ndarray, many: ndarray, mirrored: bool) -> ndarray:
    """Krippendorff's alpha (draws,) of two values; nan where only one value occurs.

    Args:
        patterns: (m, 2) counts of the two values in a unit; many: (draws, m) how often each pattern occurs.
        mirrored: count every unit with its values exchanged as well (which of two pictures is named first is arbitrary).
    """
    size = patterns.sum(1)
    disagreement = many @ (2 * patterns[:, 0] * patterns[:, 1] / (size - 1))
    first, second = (many @ patterns[:, i] for i in (0, 1))
    if mirrored:
        disagreement, first, second = 2 * disagreement, first + second, first + second
    n = first + second
    with numpy.errstate(divide="ignore", invalid="ignore"):
        expected = 2.0 * first * second / (n - 1)
        return numpy.where(expected > 0, 1 - disagreement / expected, numpy.nan)


def _open(now: Standing, present: ndarray, absent: ndarray, unsure: ndarray) -> ndarray:
    """(targets,) whether annotators differ on a picture, or several were unsure and nobody was not, and no reviewer has decided."""
    differ, undecided = (present > 0) & (absent > 0), (present + absent == 0) & (unsure > 1)
    return (differ | undecided) & (now.adjudicated() < 0)


def _confusions(now: Standing, rows: ndarray) -> ndarray:
    """(annotators, 2, 3): what most of the others said (present, absent), by what this one said (present, absent, unsure)."""
    margin = now.votes(PRESENT, rows) - now.votes(ABSENT, rows)
    mine = rows & (now.value <= UNSURE)
    own = numpy.where(now.value[mine] == PRESENT, 1, numpy.where(now.value[mine] == ABSENT, -1, 0))
    others = margin[now.target[mine]] - own
    told = others != 0
    code = (now.annotator[mine] * 2 + (others < 0)) * 3 + now.value[mine]
    return numpy.bincount(code[told], minlength=len(now.names) * 6).reshape(-1, 2, 3)


def _confusion(table: ndarray) -> Confusion:
    (pp, pa, pu), (ap, aa, au) = table.tolist()
    return Confusion(pp, pa, pu, ap, aa, au, share(pp + aa, pp + pa + ap + aa), share(pa, pp + pa), share(ap, ap + aa))


def _gold(store: Store, now: Standing, rows: ndarray) -> list[tuple[int, int]]:
    """(right, answered) on gold pictures, for each annotator; unsure and skip are no answers."""
    with store.reading() as connection:
        known = {row.image: VALUES.index(row.value) for row in connection.execute(text("SELECT image, value FROM gold"))}
    truth = numpy.array([known.get(target, -1) for target in now.targets] if known else numpy.full(len(now.targets), -1), dtype=int)
    asked = rows & (now.value <= ABSENT) & (truth[now.target] >= 0) if len(truth) else rows & False
    right = asked & (now.value == (truth[now.target] if len(truth) else 0))
    return _per_annotator(now, now.annotator[right], now.annotator[asked])


def _repeats(now: Standing) -> list[tuple[int, int]]:
    """(same answer, asked again), for each annotator."""
    first, second = now.repeats.T
    same = now.said[first] == now.said[second]
    return _per_annotator(now, now.by[second[same]], now.by[second])


def _per_annotator(now: Standing, hits: ndarray, all_: ndarray) -> list[tuple[int, int]]:
    count = len(now.names)
    return list(zip(numpy.bincount(hits, minlength=count).tolist(), numpy.bincount(all_, minlength=count).tolist(), strict=True))


def _answers(store: Store, images: Sequence[str], round: str) -> dict[str, list[Answer]]:
    """What was said of a few pictures, those who said present first."""
    query = text(f"{CURRENT} AND j.round = :round AND j.image IN :images ORDER BY j.value DESC, a.pseudonym")
    found: dict[str, list[Answer]] = {}
    with store.reading() as connection:
        rows = connection.execute(query.bindparams(bindparam("images", expanding=True)), {"round": round, "images": list(images) or [""]})
        for row in rows:
            found.setdefault(row.target, []).append(Answer(row.pseudonym, row.kind, row.value, row.seconds, row.created))
    return found


def _excesses(now: Standing, rows: ndarray, of_target: ndarray, values: int, members: Sequence[int]) -> tuple[ndarray, ...]:
    """Of some annotators taken together, for each value of a trait: (pictures, own share flagged, others' share, excess, its deviation)."""
    inside = numpy.isin(now.annotator, members)
    size = len(now.targets)
    said = now.value == PRESENT
    own, others = (numpy.bincount(now.target[rows & side], minlength=size) for side in (inside, ~inside))
    own_yes, others_yes = (numpy.bincount(now.target[rows & side & said], minlength=size) for side in (inside, ~inside))
    both = (own > 0) & (others > 0)
    flagged, flagged_by_others = own_yes[both] / own[both], others_yes[both] / others[both]
    code, difference = of_target[both], flagged - flagged_by_others
    n = numpy.bincount(code, minlength=values)
    sums = numpy.bincount(code, difference, values)
    squares = numpy.bincount(code, difference**2, values)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        rest = n.sum() - n
        mean, elsewhere = sums / n, (sums.sum() - sums) / rest
        spread = (squares / n - mean**2) / n + ((squares.sum() - squares) / rest - elsewhere**2) / rest
        shares = numpy.bincount(code, flagged, values) / n, numpy.bincount(code, flagged_by_others, values) / n
        # the smaller of both: who is lenient everywhere has no bias, nor has who only looks strict beside somebody biased
        return n, *shares, numpy.minimum(mean, mean - elsewhere), numpy.sqrt(numpy.maximum(spread, 0.0))


def _finding(numbers: tuple[ndarray, ...], k: int, z: float, least: int) -> bool:
    n, _, _, excess, deviation = (column[k] for column in numbers)
    return bool(n >= least and excess >= LEAST_EXCESS and excess - z * deviation > 0)


def _bias(who: Sequence[str], trait: str, value: str, numbers: tuple[ndarray, ...], k: int, z: float) -> Bias:
    n, own, others, excess, deviation = (float(column[k]) for column in numbers)
    who = sorted(who)
    names = ", ".join(who[:-1]) + (" and " if len(who) > 1 else "") + who[-1]
    kind = f"cluster {value}" if trait == "cluster" else f"the {trait} “{value}”"
    words = (
        f"{names} flag{'s' if len(who) == 1 else ''} pictures of {kind} more often than the others do on the same pictures, by "
        f"{100 * excess:.0f} points beyond the difference elsewhere: perhaps {kind} is taken for the concept."
    )
    return Bias(", ".join(who), trait, value, int(n), share(own * n, n), share(others * n, n), excess, excess - z * deviation,
                excess + z * deviation, words)  # fmt: skip


def _normal_point(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
