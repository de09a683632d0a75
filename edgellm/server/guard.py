"""Who may ask: requests that a web page of a stranger, or a stranger, could send are turned away.

A page that a browser shows can make it call this machine, by its own name for it (DNS rebinding) or
across origins. So the Host must be one of ours, an Origin too, and bodies must be JSON.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Refusal, error_object
from .settings import ServerSettings

# No script but the page's own, no connection but to here, nowhere to be framed.
_SAFE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ALLOWED_HEADERS = "authorization, content-type"
# What anybody may see without a token: the page, and that the server is there.
OPEN_PATHS = frozenset({"/", "/health", "/static/app.js", "/static/style.css", "/static/icon.svg"})


class Guard:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._token = None if settings.token is None else settings.token.encode()
        local = ("127.0.0.1", "localhost", "::1") if settings.is_local else ()
        self._hosts = {_plain(host) for host in (*local, settings.host, *settings.hosts)}
        self._origins = frozenset(origin.rstrip("/") for origin in settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in _SAFE_HEADERS.items():
                    out.setdefault(name, value)
                if origin in self._origins:
                    out["Access-Control-Allow-Origin"] = str(origin)
                    out["Vary"] = "Origin"
            await send(message)

        try:
            self._check(scope, headers, origin)
        except Refusal as refusal:
            answer: Response = refused(refusal)
        else:
            if scope["method"] != "OPTIONS" or origin is None:
                await self._app(scope, receive, send_safe)
                return
            allowed = {
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": "600",
            }
            answer = Response(status_code=204, headers=allowed)
        await answer(scope, receive, send_safe)

    def _check(self, scope: Scope, headers: Headers, origin: str | None) -> None:
        host = headers.get("host", "")
        if _host_of(f"//{host}") not in self._hosts:
            message = f"this server is not {host!r:.100}; --allow-host NAME adds a name"
            raise Refusal(403, message, "host_forbidden")
        if origin is not None and origin not in self._origins and not _is_same(origin, host):
            message = f"pages of {origin!r:.100} may not ask; --allow-origin adds them"
            raise Refusal(403, message, "origin_forbidden")
        if self._token is None or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self._token)
        if kind.lower() != "bearer" or not is_right:
            raise Refusal(401, "a token is needed: Authorization: Bearer ...", "invalid_api_key")


def refused(refusal: Refusal) -> JSONResponse:
    """The answer to a request that is turned away."""
    return JSONResponse(error_object(refusal), refusal.status, headers=refusal.headers)


def _is_same(origin: str, host: str) -> bool:
    return origin in (f"http://{host}", f"https://{host}")


def _host_of(url: str) -> str:
    try:
        return _plain(urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _plain(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")
