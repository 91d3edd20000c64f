"""Logging in and out, and accepting an invite. Only studies with accounts ask for it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hfi.feedback.events import Invalid, Refused
from hfi.feedback.web.guard import asker, keep_cookie, token
from hfi.feedback.web.pages import render
from hfi.feedback.web.state import State

router = APIRouter()
Invitation = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Password = Annotated[str, Form(max_length=1024)]


def quoted(where: str) -> str:
    return quote(where, safe="")


def local(where: str) -> str:
    """A page of this server and no other, whatever a link says."""
    plain = where.startswith("/") and not where.startswith(("//", "/\\", "/login", "/logout")) and where.isprintable() and "\\" not in where
    return where if plain else "/label"


@router.get("/login", response_class=HTMLResponse)
def login(request: Request, next: Annotated[str, Query(max_length=500)] = "/label") -> Response:
    if asker(request) is not None:
        return RedirectResponse(local(next), 303)
    return render(request, "login.html", next=local(next), wrong="", name="")


@router.post("/login", response_class=HTMLResponse, dependencies=[Depends(token)])
def log_in(
    request: Request, name: Annotated[str, Form(max_length=128)], password: Password, next: Annotated[str, Form(max_length=500)] = "/label"
) -> Response:
    """A new session, under a new token. Wrong names and wrong passwords read alike; too many are answered with 429."""
    state: State = request.app.state.hfi
    if not state.accounts.exist():
        return RedirectResponse("/label", 303)
    try:
        session = state.accounts.log_in(name, password, request.client.host if request.client else "")
    except Refused as error:
        state.log(error.kind, error.status, None, "POST /login", error.problem)
        response = render(request, "login.html", error.status, next=local(next), wrong=str(error), name=name)
        if error.status == 429:
            response.headers["retry-after"] = str(int(getattr(error, "seconds", 60)) + 1)
        return response
    response = RedirectResponse(local(next), 303)
    keep_cookie(request, response, session.token)
    return response


@router.post("/logout", response_class=RedirectResponse, dependencies=[Depends(token)])
def log_out(request: Request) -> Response:
    state: State = request.app.state.hfi
    state.accounts.log_out(request.state.token)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(state.cookie, path="/")
    return response


@router.get("/invite/{invitation}", response_class=HTMLResponse)
def invite(request: Request, invitation: Invitation) -> Response:
    """Where an invite link leads: choose a password."""
    state: State = request.app.state.hfi
    found = state.accounts.invited(invitation)
    return render(request, "invite.html", name=found.name, role=found.role, wrong="", invitation=invitation)


@router.post("/invite/{invitation}", response_class=HTMLResponse, dependencies=[Depends(token)])
def accept(request: Request, invitation: Invitation, password: Password, again: Password) -> Response:
    """Keep the password and log in."""
    state: State = request.app.state.hfi
    found = state.accounts.invited(invitation)
    try:
        if password != again:
            raise Invalid("the two passwords differ")
        session = state.accounts.accept(invitation, password)
    except Invalid as error:
        return render(request, "invite.html", 422, name=found.name, role=found.role, wrong=error.problem, invitation=invitation)
    response = RedirectResponse("/label", 303)
    keep_cookie(request, response, session.token)
    return response
