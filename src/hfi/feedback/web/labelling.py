"""The label page, and the same by plain forms for browsers without JavaScript."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hfi.feedback.events import Answered, Invalid, Refused
from hfi.feedback.judgements import MAX_RANKED
from hfi.feedback.queue import Answer, Entry, Item
from hfi.feedback.tables import LABEL_ROUND
from hfi.feedback.web.api import Annotator, Round, Version, Word, entry_out, item_out
from hfi.feedback.web.guard import token
from hfi.feedback.web.pages import guideline_html, question, ranking_question, render, seconds_since
from hfi.feedback.web.state import Person, State

router = APIRouter()
AHEAD = 9  # the one on screen and the next eight
PAST = 30  # answered ones that a page can go back to
Place = Annotated[str, Form(max_length=2)]


@router.get("/", response_class=RedirectResponse)
def home(person: Annotator) -> RedirectResponse:
    return RedirectResponse("/label", 303)


@router.get("/label", response_class=HTMLResponse)
def label(
    request: Request, person: Annotator, item: Annotated[str | None, Query(max_length=128)] = None, round: Round = LABEL_ROUND
) -> Response:
    """The next item, or with ?item= one that was answered; what must come first (consent, the quiz) comes first."""
    state: State = request.app.state.hfi
    chosen = state.queue.preferences(person.pseudonym)
    if not chosen.consented:
        return RedirectResponse("/consent", 303)
    if round == LABEL_ROUND and not chosen.quiz_done and not chosen.opted_out:
        if state.queue.quiz(person.pseudonym):
            return RedirectResponse("/quiz", 303)
        state.queue.save_preferences(person.pseudonym, replace(chosen, quiz_done=True))
    return _page(request, state, person, round, item)


@router.post("/label/answer", response_class=HTMLResponse, dependencies=[Depends(token)])
def answer(
    request: Request,
    person: Annotator,
    submission: Annotated[UUID, Form()],
    item: Annotated[Word, Form()],
    value: Annotated[Literal["present", "absent", "unsure", "skip", "ranked"], Form()],
    image: Annotated[list[Word], Form()] = [],  # noqa: B006
    place: Annotated[list[Place], Form()] = [],  # noqa: B006
    shown: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0,
    guideline: Annotated[Version | None, Form()] = None,
    revises: Annotated[str, Form(max_length=36)] = "",
    round: Annotated[str, Form(pattern=r"^[a-z0-9-]{1,32}$")] = LABEL_ROUND,
) -> Response:
    """An answer by form. `image` and `place` name each ranked picture and its place, "x" for excluded."""
    state: State = request.app.state.hfi
    ranking: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    if value == "ranked":
        places = dict(zip(image, place, strict=False))
        try:
            ranking, excluded = order(image, place)
        except Invalid as error:
            return _page(request, state, person, round, item, hint=error.problem, places=places, status=422)
    given = Answer(value, ranking, excluded, seconds_since(shown), guideline, revises or None)
    with contextlib.suppress(Answered):  # answered in another tab: go on
        state.queue_of(round).submit(person.pseudonym, item, given, str(submission))
    return RedirectResponse(_address(round), 303)


@router.post("/label/undo", response_class=RedirectResponse, dependencies=[Depends(token)])
def undo(
    request: Request,
    person: Annotator,
    submission: Annotated[UUID, Form()],
    round: Annotated[str, Form(pattern=r"^[a-z0-9-]{1,32}$")] = LABEL_ROUND,
) -> RedirectResponse:
    """Take an answer back by form; its item comes again."""
    state: State = request.app.state.hfi
    state.queue_of(round).undo(person.pseudonym, str(submission))
    return RedirectResponse(_address(round), 303)


@router.get("/blank", response_class=HTMLResponse)
def blank(request: Request, person: Annotator) -> HTMLResponse:
    """An empty page, for leaving the pictures at once without JavaScript."""
    return render(request, "blank.html")


def order(images: list[str], places: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(ranking, excluded) from a form's places. Raises Invalid for ties and for pictures without a place."""
    if len(images) != len(places) or len(set(images)) != len(images) or len(images) > MAX_RANKED:
        raise Invalid("every picture needs one place")
    taken: dict[int, int] = {}
    for number, place in enumerate(places, 1):
        if place == "x":
            continue
        if not place.isascii() or not place.isdigit():
            raise Invalid(f"Picture {number} has no place yet. Give it one, or exclude it with X.")
        if (first := taken.get(int(place))) is not None:
            raise Invalid(f"No ties: pictures {first} and {number} both have place {int(place)}. Give one of them another place.")
        taken[int(place)] = number
    if len(taken) < 2:
        raise Invalid("An order needs two pictures at least. Choose Unsure or Skip instead.")
    ranking = tuple(images[taken[place] - 1] for place in sorted(taken))
    return ranking, tuple(name for name, place in zip(images, places, strict=True) if place == "x")


def _address(round: str) -> str:
    return "/label" if round == LABEL_ROUND else f"/label?round={round}"


def _page(
    request: Request,
    state: State,
    person: Person,
    round: str,
    wanted: str | None,
    hint: str = "",
    places: dict | None = None,
    status: int = 200,
) -> Response:
    queue = state.queue_of(round)
    past = [entry for entry in queue.history(person.pseudonym, None, PAST) if entry.counts and entry.item_id]
    here = state.of_round(round, [entry.images[0] for entry in past])
    past = [entry for entry in past if entry.images[0] in here]
    items = queue.next(person.pseudonym, AHEAD)
    before: Entry | None = None
    shown: Item | None = items[0] if items else None
    if wanted:
        before = next((entry for entry in past if entry.item_id == wanted), None)
        try:
            shown = queue.item(person.pseudonym, wanted)
        except Refused:
            return RedirectResponse(_address(round), 303)
    guideline, version = state.guideline(round)
    progress = queue.progress(person.pseudonym)
    index = next((number for number, entry in enumerate(past) if before and entry.submission == before.submission), -1)
    client = {
        "items": [item_out(one).model_dump() for one in items],
        "past": [entry_out(entry).model_dump() for entry in reversed(past)],
        "progress": asdict(progress),
        "guideline": version,
        "round": round,
        "break_every": state.study.config.label.queue.break_every,
    }
    return render(
        request,
        "label.html",
        status,
        item=shown,
        before=before,
        hint=hint,
        places=places or _places(before),
        progress=progress,
        round=round,
        rounds=state.rounds(),
        question=guideline.question if round != LABEL_ROUND else question(state),
        ranking_question=ranking_question(state),
        guideline=guideline,
        version=version,
        guideline_html=guideline_html(guideline),
        submission=str(uuid4()),
        client_state=client,
        ranks=any(one.task == "ranking" for one in items) or state.study.config.label.judgement != "binary",
        last=past[0] if past else None,
        back=past[index + 1] if index + 1 < len(past) else None,
        forward=past[index - 1] if index > 0 else None,
        ranking_size=max([len(one.images) for one in items if one.task == "ranking"], default=state.study.config.label.ranking_size),
    )


def _places(before: Entry | None) -> dict[str, str]:
    """{image: place} of an order that was given, to show it again."""
    if before is None:
        return {}
    placed = {name: str(number) for number, name in enumerate(before.answer.ranking, 1)}
    return placed | dict.fromkeys(before.answer.excluded, "x")
