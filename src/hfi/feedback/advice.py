"""Would more labels help, and about how many? In words, for `hfi label status` and the progress page. No torch.

Reads what the reward stage left: reward/learning_curve.json (how the held-out AUC rises with the pictures judged) and
reward/calibration.json. Before there is a reward it goes by counts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hfi.errors import HFIError
from hfi.feedback import database
from hfi.feedback.label import needed
from hfi.feedback.store import Store
from hfi.workspace import Workspace, read_json

REACH = 10  # a number of pictures more than so many times today's is not called a plan
PEOPLE = ("human", "simulated")  # machines judge everything at no cost: their labels are not counted here
OF_EACH = 10  # pictures of each label below which a learning curve says little


@dataclass(frozen=True)
class Advice:
    """What to tell whoever asks whether to go on."""

    words: str  # one or two sentences
    help: bool | None  # None: it cannot be said yet
    more: int | None = None  # about so many more pictures to judge; None: no number can be given
    low: int | None = None  # 95 % interval of `more`; a missing upper end is open
    high: int | None = None


def advise(study: Workspace) -> Advice:
    """Advice for a study as it stands; never fails for a missing or damaged reward stage."""
    if not database.is_there(database.place(study)):
        return from_counts({}, 0, needed(study))
    with Store.of(study) as store:
        kinds = ("machine",) if study.config.label.source == "machines" else PEOPLE
        votes, judged = store.label_counts(kinds=kinds), store.counts(kinds)["judged"]
    shown = from_counts(votes, judged, needed(study))
    if shown.help is not None:
        return shown
    curve, found = _read(study.path("reward", "learning_curve.json")), _read(study.path("reward", "calibration.json"))
    if found is None:
        return shown
    if curve is None:
        return from_rankings(found) or shown
    return from_curve(curve, _learned(votes, curve))


def from_counts(votes: dict[str, dict[str, int]], judged: int, minimum: int) -> Advice:
    """Advice from counts alone; `help` is None where there is enough to learn from.

    Args:
        votes: {image: {"present": n, "absent": n}}; judged: pictures judged in any way; minimum: `label.minimum`.
    """
    if judged < minimum:
        more = minimum - judged
        return Advice(f"About {more} more pictures must be judged before the reward can be learned ({judged} of {minimum}).", True, more)
    present = sum(seen["present"] > seen["absent"] for seen in votes.values())
    absent = sum(seen["absent"] > seen["present"] for seen in votes.values())
    if votes and min(present, absent) < OF_EACH:
        rare, have, word = ("present", present, "present") if present < absent else ("absent", absent, "absent")
        if have == 0:
            return Advice(f"Nobody has said {word!r} yet: the reward needs pictures of both kinds. Draw others, or go on.", True)
        share = have / max(1, present + absent)
        more = _rounded((OF_EACH - have) / share)
        return Advice(
            f"About {more} more labels would help: only {have} pictures are {rare} so far, and under {OF_EACH} of a kind teach little.",
            True,
            more,
        )
    return Advice("There is enough to learn from. Run 'hfi reward' on the study; then this says whether more labels would help.", None)


def from_curve(curve: dict, learned: int) -> Advice:
    """Advice from a learning curve.

    Args:
        curve: learning_curve.json; learned: pictures that would be learned from today (more may be judged since).
    """
    now, target, pictures = curve["now"], curve["target"], curve["pictures"]
    value, low, high = (curve["needed"][name] for name in ("value", "low", "high"))
    exponent = max(0.0, curve["exponent"]["value"])
    doubled = 1 - (1 - now) * 2.0**-exponent
    if now >= target:
        return Advice(f"More labels would hardly help: held-out AUC is {now:.3f}; twice as many would bring about {doubled:.3f}.", False, 0)
    if value is None or value > REACH * pictures:
        return Advice(
            f"More labels alone will hardly bring AUC {target:g}: it is {now:.2f} now, and twice as many would bring about {doubled:.2f}. "
            "Look at the annotators' agreement and the guideline first, or try another encoder.",
            False,
        )
    more = _rounded(max(0, value - learned) / (1 - curve.get("held_out", 0.0)))
    if more == 0:
        return Advice(f"The labels given since may be enough for AUC {target:g} ({now:.2f} before them): run 'hfi reward' again.", False, 0)
    ends = [None if end is None else _rounded(max(0, end - learned) / (1 - curve.get("held_out", 0.0))) for end in (low, high)]
    spread = f"{ends[0] or 0} to {ends[1]}" if ends[1] is not None and ends[1] <= 100 * pictures else f"{ends[0] or 0} or more"
    words = f"About {more} more labels would help ({spread}): held-out AUC is {now:.2f} now, and {target:g} is expected then."
    return Advice(words, True, more, *ends)


def from_rankings(found: dict) -> Advice | None:
    """Advice from rankings alone: by how well their order is known."""
    seen = found.get("pairwise_accuracy")
    if not seen:
        return None
    width = seen["high"] - seen["low"]
    words = f"pairwise accuracy is {seen['value']:.2f} (95 % {seen['low']:.2f} to {seen['high']:.2f})"
    if width > 0.1:
        factor = (width / 0.1) ** 2  # an interval narrows with the square root of what it rests on
        return Advice(f"More rankings would help: {words}; it would be known to within 0.05 with about {factor:.1f} times as many.", True)
    return Advice(f"More rankings would change little: {words}.", False)


def _learned(votes: dict[str, dict[str, int]], curve: dict) -> int:
    """Pictures that the reward would learn from today: those that people judged, less the held-out share of last time."""
    judged = sum(1 for seen in votes.values() if seen["present"] + seen["absent"])
    return round(judged * (1 - curve.get("held_out", 0.0)))


def _rounded(number: float) -> int:
    """To two digits, tens at the finest: nobody counts on more."""
    if number <= 0:
        return 0
    step = 10 if number < 300 else 100
    return max(step, step * round(number / step))


def _read(path: Path) -> dict | None:
    try:
        found = read_json(path)
    except HFIError:
        return None
    return found if isinstance(found, dict) else None
