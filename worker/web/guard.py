"""Who may look and act: token login, actions that only this page can send, security headers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import deque
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.runtime import Runtime
from worker.web import render

_COOKIE = "lowtide"
_SESSION_SECONDS = 14 * 86_400
_OPEN = ("/health", "/ready", "/login", "/static/", "/webhooks/openai")
_FAILURES_A_MINUTE = 10
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_failures: deque[float] = deque(maxlen=_FAILURES_A_MINUTE)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets in who has logged in; without a token, only this machine's own browsers.

    A session is a cookie with a random number in it, signed with the token. Actions carry the
    number's own signature as a field, which no other site can know.
    """

    def __init__(self, app: ASGIApp, rt: Runtime) -> None:
        self._app = app
        self._rt = rt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        key = token(self._rt)
        session = _session(request, key)
        fresh = "" if session else secrets.token_urlsafe(18)
        scope["state"] = {**scope.get("state", {}), "session": session or fresh, "key": key}
        refusal = self._refusal(request, key, known=bool(session))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("cache-control", "no-store")
                if fresh and not key and "text/html" in headers.get("content-type", ""):
                    headers.append("set-cookie", _cookie(request, fresh, key))
            await send(message)

        await (refusal or self._app)(scope, receive, sending)

    def _refusal(self, request: Request, key: str, *, known: bool) -> Response | None:
        path = request.url.path
        if path.startswith(_OPEN):
            return None
        if key:
            if known or _bearer(request.headers, key):
                return None
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)
            return PlainTextResponse("Log in first: LOWTIDE_WEB_TOKEN as a bearer token.\n", 401)
        if _is_local(request):
            return None
        return PlainTextResponse(
            "This page has no token, so it answers on this machine alone. Set LOWTIDE_WEB_TOKEN "
            "to reach it from elsewhere.\n",
            403,
        )


def token(rt: Runtime) -> str:
    """What to log in with; "" when nothing is set."""
    kept = rt.settings.web_token
    return kept.get_secret_value() if kept is not None else ""


def field(request: Request) -> str:
    """The hidden field of every form: what proves that the page itself sends it."""
    return _sign(request.state.key, "action", request.state.session)


async def form(request: Request) -> FormData:
    """The form of an action.

    Raises:
        HTTPException: It does not come from this page.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "The action comes from another site.")
    sent = await request.form(max_files=1, max_fields=50)
    if request.state.key and _bearer(request.headers, request.state.key):
        return sent  # no other site can make a browser send that header
    if not hmac.compare_digest(str(sent.get("proof", "")), field(request)):
        raise HTTPException(403, "The form is out of date; go back, reload the page and try again.")
    return sent


async def login(request: Request) -> Response:
    """Takes the token and gives a session for it."""
    key = request.state.key
    target = _inside(request.query_params.get("next", "/"))
    if not key:
        return RedirectResponse(target, 303)
    if request.method == "GET":
        return render.page(request, "login.html", target=target)
    now = time.monotonic()
    if len(_failures) == _FAILURES_A_MINUTE and now - _failures[0] < 60:
        return render.page(
            request, "login.html", status=429, target=target, problem="Too many tries; wait."
        )
    sent = await request.form(max_files=0, max_fields=5)
    if not hmac.compare_digest(str(sent.get("token", "")).strip().encode(), key.encode()):
        _failures.append(now)
        return render.page(
            request, "login.html", status=403, target=target, problem="That is not the token."
        )
    response = RedirectResponse(target, 303)
    response.raw_headers.append(
        (b"set-cookie", _cookie(request, secrets.token_urlsafe(18), key).encode())
    )
    return response


async def logout(request: Request) -> Response:
    """Forgets the session."""
    await form(request)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(_COOKIE, path="/")
    return response


def _inside(target: str) -> str:
    """A path of this page; anything else becomes its start."""
    inside = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if inside and "\n" not in target and "\r" not in target else "/"


def _is_local(request: Request) -> bool:
    """Whether a browser of this machine asks, for this machine by name, with nobody in between.

    The name matters: a site may let its own name point to 127.0.0.1.
    """
    client = request.client.host if request.client else ""
    named = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    passed_on = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    return is_loopback(client) and is_loopback(named) and not passed_on


def _bearer(headers: Headers, key: str) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _session(request: Request, key: str) -> str:
    """The number of the session that the cookie holds; "" when it holds none that is good."""
    parts = request.cookies.get(_COOKIE, "").split("|")
    if len(parts) != 3 or not parts[1].isdigit() or int(parts[1]) < time.time():
        return ""
    good = hmac.compare_digest(parts[2], _sign(key, "session", f"{parts[0]}|{parts[1]}"))
    return parts[0] if good else ""


def _cookie(request: Request, session: str, key: str) -> str:
    content = f"{session}|{int(time.time()) + _SESSION_SECONDS}"
    secure = "; Secure" if request.url.scheme == "https" else ""
    signed = f"{content}|{_sign(key, 'session', content)}"
    return f"{_COOKIE}={signed}; Path=/; Max-Age={_SESSION_SECONDS}; HttpOnly; SameSite=Lax{secure}"


# Signs sessions where no token is set: they end with the process, and guard actions alone.
_process_key = secrets.token_bytes(32)


def _sign(key: str, use: str, content: Any) -> str:
    secret = hashlib.sha256(b"lowtide" + key.encode()).digest() if key else _process_key
    return hmac.new(secret, f"{use}|{content}".encode(), hashlib.sha256).hexdigest()
