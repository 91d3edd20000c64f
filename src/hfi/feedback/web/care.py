"""What comes before and beside the work: consent, the quiz, settings, the guideline, one's own progress."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from hfi.feedback import tables
from hfi.feedback.events import Answered, Invalid, Unknown
from hfi.feedback.judgements import now
from hfi.feedback.queue import Answer
from hfi.feedback.web.api import Annotator, Word
from hfi.feedback.web.guard import token
from hfi.feedback.web.pages import KEYS, guideline_html, question, render, seconds_since
from hfi.feedback.web.state import State

router = APIRouter()
NAMED_KEYS = {
    "Space": " ",
    "Enter": "Enter",
    "Backspace": "Backspace",
    "Delete": "Delete",
    "Home": "Home",
    "End": "End",
    "PageUp": "PageUp",
    "PageDown": "PageDown",
    "ArrowLeft": "ArrowLeft",
    "ArrowRight": "ArrowRight",
    "ArrowUp": "ArrowUp",
    "ArrowDown": "ArrowDown",
}
Box = Annotated[Literal["on", ""], Form()]


@router.get("/consent", response_class=HTMLResponse)
def consent(request: Request, person: Annotator) -> Response:
    """What will be shown, what is stored, and how to stop."""
    state: State = request.app.state.hfi
    return render(
        request,
        "consent.html",
        kind=state.study.config.concept.kind,
        cap=state.study.config.label.queue.daily_cap,
        break_every=state.study.config.label.queue.break_every,
    )


@router.post("/consent", response_class=RedirectResponse, dependencies=[Depends(token)])
def give_consent(request: Request, person: Annotator, choice: Annotated[Literal["agree", "decline"], Form()], blur: Box = "") -> Response:
    """Keep the choice; whoever declines is shown nothing."""
    state: State = request.app.state.hfi
    chosen = state.queue.preferences(person.pseudonym)
    agreed = choice == "agree"
    changed = replace(chosen, consented=now() if agreed else None, opted_out=not agreed, blur=blur == "on" if agreed else chosen.blur)
    state.queue.save_preferences(person.pseudonym, changed)
    return RedirectResponse("/label" if agreed else "/stopped", 303)


@router.get("/stopped", response_class=HTMLResponse)
def stopped(request: Request, person: Annotator) -> Response:
    """For whoever declined or opted out."""
    return render(request, "stopped.html")


@router.get("/settings", response_class=HTMLResponse)
def settings(request: Request, person: Annotator, saved: bool = False) -> Response:
    return render(request, "settings.html", saved=saved, wrong="", sent=None, defaults=KEYS)


@router.post("/settings", response_class=HTMLResponse, dependencies=[Depends(token)])
def save_settings(
    request: Request,
    person: Annotator,
    action: Annotated[list[Annotated[str, Form(max_length=16)]], Form()] = [],  # noqa: B006
    key: Annotated[list[Annotated[str, Form(max_length=16)]], Form()] = [],  # noqa: B006
    blur: Box = "",
    toggle: Box = "",
    opted_out: Box = "",
    reset: Box = "",
) -> Response:
    """Keep what a person chose. Two actions on one key are refused."""
    state: State = request.app.state.hfi
    sent = dict(zip(action, key, strict=False))
    try:
        keys = {} if reset else _keys(sent)
    except Invalid as error:
        return render(request, "settings.html", 422, saved=False, wrong=error.problem, sent=sent, defaults=KEYS)
    chosen = state.queue.preferences(person.pseudonym)
    pairs = tuple((name, value) for name, value in keys.items() if KEYS[name] != value) + ((("hold", "toggle"),) if toggle else ())
    state.queue.save_preferences(person.pseudonym, replace(chosen, keys=pairs, blur=blur == "on", opted_out=opted_out == "on"))
    return RedirectResponse("/settings?saved=true", 303)


@router.get("/guideline", response_class=HTMLResponse)
def guideline(request: Request, person: Annotator, version: Annotated[int | None, Query(ge=1, lt=2**31)] = None) -> Response:
    """The guideline of now, or the words of an earlier version."""
    state: State = request.app.state.hfi
    found, latest = state.guideline()
    columns = tables.guideline.c
    with state.store.reading() as connection:
        ours = columns.round == tables.LABEL_ROUND  # evaluation rounds have guidelines of their own
        versions = connection.execute(select(columns.version, columns.created).where(ours).order_by(columns.version.desc()).limit(50)).all()
        old = connection.execute(select(columns.text).where(ours, columns.version == version)).first() if version else None
    if version and old is None:
        raise Unknown(f"there is no version {version} of the guideline")
    return render(
        request,
        "guideline.html",
        guideline=found,
        html=guideline_html(found),
        question=question(state),
        latest=latest,
        versions=versions,
        version=version,
        old=old.text if old and version != latest else None,
    )


@router.get("/quiz", response_class=HTMLResponse)
def quiz(request: Request, person: Annotator) -> Response:
    """The next quiz item; after the last one, how it went."""
    state: State = request.app.state.hfi
    chosen = state.queue.preferences(person.pseudonym)
    if not chosen.consented:
        return RedirectResponse("/consent", 303)
    items = state.queue.quiz(person.pseudonym)
    score = state.queue.quiz_score(person.pseudonym)
    if not items and not chosen.quiz_done:
        state.queue.save_preferences(person.pseudonym, replace(chosen, quiz_done=True))
    return render(
        request,
        "quiz.html",
        item=items[0] if items else None,
        score=score,
        lesson=None,
        question=question(state),
        value="",
        submission=str(uuid4()),
        guideline=state.guideline()[0],
        version=state.guideline()[1],
    )


@router.post("/quiz", response_class=HTMLResponse, dependencies=[Depends(token)])
def answer_quiz(
    request: Request,
    person: Annotator,
    item: Annotated[Word, Form()],
    submission: Annotated[UUID, Form()],
    value: Annotated[Literal["present", "absent", "unsure"], Form()],
    shown: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0,
) -> Response:
    """Take a quiz answer and say what was expected, and why."""
    state: State = request.app.state.hfi
    try:
        given = Answer(value, seconds=seconds_since(shown), guideline=state.guideline()[1])
        receipt = state.queue.submit(person.pseudonym, item, given, str(submission))
    except Answered:
        return RedirectResponse("/quiz", 303)
    if receipt.lesson is None:  # not a quiz item: its answer counts all the same
        return RedirectResponse("/label", 303)
    return render(
        request,
        "quiz.html",
        item=state.queue.item(person.pseudonym, item),
        score=state.queue.quiz_score(person.pseudonym),
        lesson=receipt.lesson,
        question=question(state),
        value=value,
        submission="",
        guideline=state.guideline()[0],
        version=state.guideline()[1],
    )


@router.get("/progress", response_class=HTMLResponse)
def progress(request: Request, person: Annotator, before: Annotated[int | None, Query(ge=1, lt=2**31)] = None) -> Response:
    """One's own numbers and answers; each answer can be looked at and changed."""
    state: State = request.app.state.hfi
    entries = state.queue.history(person.pseudonym, before, 48)
    return render(
        request,
        "progress.html",
        progress=state.queue.progress(person.pseudonym),
        entries=entries,
        before=before,
        older=entries[-1].position if len(entries) == 48 else None,
    )


def _keys(sent: dict[str, str]) -> dict[str, str]:
    """{action: key} from the form. Raises Invalid for a key that cannot be used, or is used twice."""
    found = dict(KEYS)
    for action, typed in sent.items():
        if action not in KEYS:
            raise Invalid(f"There is no action {action[:16]!r}.")
        key = NAMED_KEYS.get(typed.strip(), typed.strip().lower())
        if len(key) != 1 and key not in NAMED_KEYS.values() or not key.isprintable():
            raise Invalid(f"“{typed[:16]}” is no key. Type one letter, or one of {', '.join(NAMED_KEYS)}.")
        if key in "?123456789":
            raise Invalid(f"“{key}” has a fixed meaning. Choose another key.")
        found[action] = key
    for action, key in found.items():
        if (other := next(name for name, used in found.items() if used == key)) != action:
            raise Invalid(f"“{key if key != ' ' else 'Space'}” stands for both {other} and {action}. Give each a key of its own.")
    return found
