"""What every request passes before a route sees it, and what every answer carries: size, origin, host, headers, form tokens."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfi.feedback.accounts import ROLES
from hfi.feedback.events import NotLoggedIn, NotYours, Refused
from hfi.feedback.web.state import Person, State, new_token

MOST_BYTES = 256 * 1024  # of a request's body; the longest honest one is an edited guideline
SAFE = {"GET", "HEAD", "OPTIONS"}
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "[::1]", "::1"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class CrossSite(Refused):
    """A request that a page of another site made, or a form without this session's token."""

    status, kind = 403, "csrf"


class Guard:
    """Middleware: refuses what is too large, from elsewhere or for another host; adds the security headers."""

    def __init__(self, app: ASGIApp, state: State):
        self.app, self.state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["refused"] = self._refusal(scope)
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(413, "larger than any honest request")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        await self.app(scope, counted, with_headers)

    def _refusal(self, scope: Scope) -> Exception | None:
        """Why this request is not let in; raised inside the app, so that the error pages and the event table see it."""
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 12 or int(length) > MOST_BYTES:
            return HTTPException(413, "larger than any honest request")
        host = headers.get("host", "")
        # a name that was pointed at 127.0.0.1 to read the pages of a study without a login
        strange = host.rsplit(":", 1)[0] not in LOOPBACK_HOSTS and host not in LOOPBACK_HOSTS
        if self.state.loopback and strange and not self.state.accounts.exist():
            return CrossSite(
                f"this study is served to this machine only, not as {host[:60]!r}", remedy="open the link that 'hfi label' prints"
            )
        if scope["method"] not in SAFE:
            site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
            if site not in ("same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host):
                return CrossSite("the request came from a page of another site", remedy="use the pages of this study")
        return None


async def let_in(request: Request) -> None:
    """Raise what the middleware found, and see who is asking. A dependency of every route, before all others.

    The database is asked on a thread, and only where nothing fresh is remembered: most requests never leave the event loop for this.
    """
    if request.scope.get("refused"):
        raise request.scope["refused"]
    state: State = request.app.state.hfi
    if not hasattr(request.state, "person"):
        person = state.person_by_memory(_token_of(request))
        request.state.person = person or await run_in_threadpool(state.person, request.state.token)


def asker(request: Request) -> Person | None:
    """Who is asking, or None. A browser without a cookie gets one, for its form tokens; it stands for nobody until a login."""
    if not hasattr(request.state, "person"):  # what no route has taken, or was refused before
        request.state.person = request.app.state.hfi.person(_token_of(request))
    return request.state.person


def _token_of(request: Request) -> str:
    state: State = request.app.state.hfi
    request.state.token = request.cookies.get(state.cookie)
    request.state.fresh = request.state.token is None
    if request.state.fresh:
        request.state.token = new_token()
    return request.state.token


def keep_cookie(request: Request, response: Response, token: str | None = None) -> None:
    """Give the browser its session's cookie: `token` after a login, else the one that `asker` made."""
    state: State = request.app.state.hfi
    if token is None and not getattr(request.state, "fresh", False):
        return
    response.set_cookie(
        state.cookie, token or request.state.token, httponly=True, samesite="lax", secure=request.url.scheme == "https", path="/"
    )


def needs(role: str):
    """A dependency: somebody who may do what `role` may. Raises NotLoggedIn (401), NotYours (403)."""
    assert role in ROLES

    async def dependency(request: Request) -> Person:
        person = asker(request)
        if person is None:
            raise NotLoggedIn("not logged in", remedy="log in first")
        if not person.may(role):
            raise NotYours(f"this page is for {role}s", remedy="ask whoever runs the study")
        return person

    return dependency


async def token(request: Request) -> None:
    """A dependency of every route that changes something: the session's token, in the header or in the form."""
    await let_in(request)
    sent = request.headers.get("x-csrf-token")
    if sent is None and "form" in request.headers.get("content-type", ""):
        sent = (await request.form()).get("csrf")
    expected = request.app.state.hfi.csrf(request.state.token)
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise CrossSite("the form's token is missing or of another session", remedy="load the page again and repeat it")
