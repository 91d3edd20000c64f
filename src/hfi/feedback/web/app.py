"""The application: routes, error pages, and the event table that keeps what was refused."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from hfi.errors import HFIError
from hfi.feedback.events import NotLoggedIn, Refused, TooMany
from hfi.feedback.web import admin, api, care, labelling, login, pages, pictures, review
from hfi.feedback.web.guard import Guard, asker, let_in
from hfi.feedback.web.state import State

WORDS = {404: "There is no such page.", 405: "That cannot be done here.", 413: "That is larger than anything honest."}


def create_app(state: State) -> FastAPI:
    """The app of one study. Its OpenAPI schema lists every route; no page of it is served."""
    app = FastAPI(
        title=f"hfi label: {state.study.config.name}", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(let_in)]
    )
    app.state.hfi = state
    for module in (labelling, api, care, pictures, review, admin, login):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=pages.FOLDER / "static"), name="static")
    app.add_middleware(Guard, state=state)
    for kind, handler in ((Refused, _refused), (RequestValidationError, _invalid), (HTTPException, _http), (HFIError, _unavailable)):
        app.add_exception_handler(kind, handler)
    return app


def _refused(request: Request, error: Refused) -> Response:
    _log(request, error.kind, error.status, str(error))
    headers = {"retry-after": str(int(error.seconds) + 1)} if isinstance(error, TooMany) else None
    if isinstance(error, NotLoggedIn) and request.method == "GET" and not _wants_json(request):
        where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={login.quoted(where)}", 303)
    return _answer(request, error.status, error.problem, error.remedy, error.kind, headers)


def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    _log(request, "invalid", 422, f"{field}: {first['msg']}")
    return _answer(request, 422, f"{field}: {first['msg'].lower()}", "", "invalid")


def _http(request: Request, error: HTTPException) -> Response:
    if error.status_code != 405:
        _log(request, "http", error.status_code, str(error.detail))
    return _answer(request, error.status_code, WORDS.get(error.status_code, str(error.detail)), "", "http", error.headers)


def _unavailable(request: Request, error: HFIError) -> Response:
    """The disk is full, the database is busy: nothing is wrong with the request, so the client tries again."""
    return _answer(request, 503, error.problem, error.remedy, "unavailable", {"retry-after": "5"})


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _answer(request: Request, status: int, problem: str, remedy: str, kind: str, headers: dict | None = None) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": problem, "remedy": remedy, "kind": kind}, status, headers)
    try:
        response = pages.render(request, "error.html", status, problem=problem, remedy=remedy, number=status)
    except HFIError:  # the database that a page needs is what is away
        response = PlainTextResponse(f"{problem}. {remedy}", status)
    response.headers.update(headers or {})
    return response


def _log(request: Request, kind: str, status: int, problem: str) -> None:
    """Keep what was refused: the kind, the route and the pseudonym; no address, nothing that was sent."""
    state: State = request.app.state.hfi
    if status == 404 and kind == "http" and not _wants_json(request):
        return  # a mistyped address is no event
    person = asker(request)
    state.log(kind, status, person.pseudonym if person else None, f"{request.method} {_route(request)}", problem)


def _route(request: Request) -> str:
    """The route's own pattern, for an invite's token or a forged id shall not be kept."""
    return getattr(request.scope.get("route"), "path", None) or request.url.path[:40]
