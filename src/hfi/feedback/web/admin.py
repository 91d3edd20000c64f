"""Administrators' pages: accounts and invites, the guideline's text, what was refused."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hfi.feedback.events import Invalid, NotYours, Refused, latest
from hfi.feedback.guideline import MOST_TEXT
from hfi.feedback.web.guard import needs, token
from hfi.feedback.web.pages import guideline_html, question, render
from hfi.feedback.web.state import Person, State
from hfi.workspace import write_bytes

router = APIRouter(prefix="/admin")
Admin = Annotated[Person, Depends(needs("admin"))]
Login = Annotated[str, Form(max_length=128)]


@router.get("/accounts", response_class=HTMLResponse)
def accounts(request: Request, person: Admin) -> Response:
    state: State = request.app.state.hfi
    return render(request, "accounts.html", people=state.accounts.list(), invite=None, link="", wrong="", name="")


@router.post("/invite", response_class=HTMLResponse, dependencies=[Depends(token)])
def invite(
    request: Request, person: Admin, name: Login, role: Annotated[Literal["annotator", "reviewer", "admin"], Form()] = "annotator"
) -> Response:
    """Add an account, or invite one again; the link is shown this once."""
    state: State = request.app.state.hfi
    if person.name is None:
        raise NotYours("the first account is added on the command line", remedy=f"hfi label users add {state.study.root} NAME --role admin")
    if name.strip().lower() == person.name:
        raise Invalid("an invite would end your own password and session", remedy="let another administrator do it")
    try:
        made = state.accounts.invite(name, role)
    except Refused as error:
        return render(
            request, "accounts.html", error.status, people=state.accounts.list(), invite=None, link="", wrong=str(error), name=name
        )
    link = f"{request.url.scheme}://{request.url.netloc}/invite/{made.token}"
    return render(request, "accounts.html", people=state.accounts.list(), invite=made, link=link, wrong="", name="")


@router.post("/remove", response_class=RedirectResponse, dependencies=[Depends(token)])
def remove(request: Request, person: Admin, name: Login) -> Response:
    """Forget an account; its judgements stay under the pseudonym."""
    state: State = request.app.state.hfi
    if name.strip().lower() == person.name:
        raise Invalid("you cannot remove yourself", remedy="let another administrator do it")
    state.accounts.remove(name)
    return RedirectResponse("/admin/accounts", 303)


@router.get("/guideline", response_class=HTMLResponse)
def guideline(request: Request, person: Admin, saved: bool = False) -> Response:
    state: State = request.app.state.hfi
    found, version = state.guideline()
    return render(
        request, "edit_guideline.html", guideline=found, version=version, html=guideline_html(found), question=question(state), saved=saved
    )


@router.post("/guideline", response_class=RedirectResponse, dependencies=[Depends(token)])
def save_guideline(request: Request, person: Admin, text: Annotated[str, Form(max_length=MOST_TEXT)] = "") -> Response:
    """Keep the text as STUDY/guideline.md; a changed text is a new version."""
    state: State = request.app.state.hfi
    clean = "\n".join(line.rstrip() for line in text.replace("\0", "").splitlines()).strip()
    write_bytes(state.study.path("guideline.md"), (clean + "\n").encode("utf-8", "replace"))
    state.guideline()
    return RedirectResponse("/admin/guideline?saved=true", 303)


@router.get("/events", response_class=HTMLResponse)
def events(request: Request, person: Admin) -> Response:
    """What was refused of late: the kind and the route, no address."""
    state: State = request.app.state.hfi
    return render(request, "events.html", events=latest(state.store))
