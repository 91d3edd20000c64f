"""Reviewers' pages: agreement, each annotator, group bias, the disagreement queue with adjudication, gold pictures.

`hfi.feedback.review` is imported where it is asked, in the background: with it comes numpy, which no page of an annotator needs.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hfi.feedback.events import Unknown
from hfi.feedback.tables import KINDS
from hfi.feedback.web.guard import needs, token
from hfi.feedback.web.pages import question, render, seconds_since
from hfi.feedback.web.state import Person, State

router = APIRouter()
Reviewer = Annotated[Person, Depends(needs("reviewer"))]
Image = Annotated[str, Form(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Who = Literal["people", "everyone"]
KINDS_OF = {"people": ("human",), "everyone": KINDS}
STRIP = 12  # disagreements that one page shows


@router.get("/review", response_class=HTMLResponse)
def overview(request: Request, person: Reviewer, who: Who = "people") -> Response:
    """Agreement, annotators and biases; at most five seconds old, counted in the background when that takes long."""
    state: State = request.app.state.hfi

    def count() -> tuple:
        from hfi.feedback import review

        return review.overview(state.store, KINDS_OF[who], study=state.study), state.queue.people()

    counted = state.fresh.get(("overview", who), count)
    if counted is None:
        return render(request, "counting.html", title="Review", refresh=f"/review?who={who}")
    (found, people), age = counted
    kinds = {one.pseudonym: one.kind for one in found.annotators}
    return render(request, "review.html", found=found, age=age, people=people, who=who, kinds=kinds, gold=len(state.queue.gold()))


@router.get("/review/disagreements", response_class=HTMLResponse)
def disagreements(
    request: Request,
    person: Reviewer,
    start: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    decided: UUID | None = None,
    who: Who = "people",
) -> Response:
    """The pictures that annotators differ on, the most evenly split first; one large, the next ones beside it."""
    state: State = request.app.state.hfi

    def count():
        from hfi.feedback import review

        return review.disagreements(state.store, start, STRIP, KINDS_OF[who])

    found = state.fresh.get(("disagreements", start, who), count)
    if found is None:
        return render(request, "counting.html", title="Disagreements", refresh=f"/review/disagreements?start={start}&who={who}")
    return render(
        request,
        "disagreements.html",
        found=found[0],
        age=found[1],
        start=start,
        who=who,
        question=question(state),
        submission=str(uuid4()),
        decided=decided,
    )


@router.post("/review/adjudicate", response_class=RedirectResponse, dependencies=[Depends(token)])
def adjudicate(
    request: Request,
    person: Reviewer,
    image: Image,
    value: Annotated[Literal["present", "absent"], Form()],
    submission: Annotated[UUID, Form()],
    start: Annotated[int, Form(ge=0, le=10_000_000)] = 0,
    shown: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0,
    who: Annotated[Who, Form()] = "people",
) -> Response:
    """A reviewer's final word on a picture."""
    state: State = request.app.state.hfi
    _known(state, image)
    state.queue.adjudicate(person.pseudonym, image, value, str(submission), seconds_since(shown))
    state.fresh.forget()
    return RedirectResponse(f"/review/disagreements?start={start}&who={who}&decided={submission}", 303)


@router.post("/review/undo", response_class=RedirectResponse, dependencies=[Depends(token)])
def undo(request: Request, person: Reviewer, submission: Annotated[UUID, Form()], who: Annotated[Who, Form()] = "people") -> Response:
    """Take a decision back: the picture is open again."""
    state: State = request.app.state.hfi
    state.queue.undo(person.pseudonym, str(submission))
    state.fresh.forget()
    return RedirectResponse(f"/review/disagreements?who={who}", 303)


@router.get("/review/gold", response_class=HTMLResponse)
def gold(request: Request, person: Reviewer, image: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Pictures whose answer is known, and the form that adds one."""
    state: State = request.app.state.hfi
    return render(
        request, "gold.html", gold=state.queue.gold(), image=image if state.store.image_file(image) else "", question=question(state)
    )


@router.post("/review/gold", response_class=RedirectResponse, dependencies=[Depends(token)])
def add_gold(
    request: Request,
    person: Reviewer,
    image: Image,
    value: Annotated[Literal["present", "absent"], Form()],
    note: Annotated[str, Form(max_length=500)] = "",
    quiz: Annotated[Literal["on", ""], Form()] = "",
) -> Response:
    """Make a picture a gold item, or change one."""
    state: State = request.app.state.hfi
    _known(state, image)
    state.queue.set_gold(image, value, note.strip(), quiz == "on")
    state.fresh.forget()
    return RedirectResponse("/review/gold", 303)


@router.post("/review/gold/drop", response_class=RedirectResponse, dependencies=[Depends(token)])
def drop_gold(request: Request, person: Reviewer, image: Image) -> Response:
    """Make a gold picture an ordinary one again."""
    state: State = request.app.state.hfi
    state.queue.drop_gold(image)
    state.fresh.forget()
    return RedirectResponse("/review/gold", 303)


def _known(state: State, image: str) -> None:
    if state.store.image_file(image) is None:
        raise Unknown("no such picture")
