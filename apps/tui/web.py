"""The chat screen in a browser of this machine, through textual-serve.

textual-serve lets whoever reaches its port use the program behind it, and its page asks a server
of fonts. Here a secret in the address lets one browser in, other sites and other names for this
machine are turned away, and the page may load nothing from elsewhere.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from edgellm.cli.output import note
from edgellm.errors import UnsupportedError

_HOST = "127.0.0.1"
_COOKIE = "edgellm-chat"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src ws://{host} http://{host}; "
    "frame-ancestors 'none'"
)
Handler = Callable[[Any], Awaitable[Any]]


def serve(arguments: Sequence[str]) -> None:
    """Run `edgellm` with `arguments` for every browser tab that has the address, until Ctrl+C.
    UnsupportedError: textual-serve is not installed."""
    try:
        from textual_serve.server import Server
    except ImportError:
        message = "the chat in a browser needs textual-serve; pip install 'edgellm[web]' brings it"
        raise UnsupportedError(message, code="feature_unsupported") from None
    door = Door(_free_port())
    command = shlex.join([sys.executable, "-m", "edgellm", *arguments])

    class OnlyHere(Server):  # type: ignore[misc,unused-ignore]
        """With the door in front."""

        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(door.middleware())
            return app

        async def on_startup(self, app: Any) -> None:
            del app
            note(f"the chat is at {door.address} for this machine; Ctrl+C ends it")

    OnlyHere(command, host=_HOST, port=door.port, title="edgellm").serve()


class Door:
    """Who may come in at `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._host = f"{_HOST}:{port}"
        self._secret = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """With the secret: the first visit leaves it in a cookie."""
        return f"http://{self._host}/?key={self._secret}"

    def why_not(self, host: str, origin: str | None, key: str, cookie: str) -> str | None:
        """None: let in. A page of another site has another origin, a name that somebody made point
        here is another host, and another user of this machine has no secret."""
        if host != self._host:
            return "this is no name for it"
        if origin is not None and origin != f"http://{self._host}":
            return "not from another site"
        given = (key or cookie).encode()
        return None if hmac.compare_digest(given, self._secret.encode()) else "the key is missing"

    def middleware(self) -> Any:
        """Of aiohttp."""
        from aiohttp import web

        async def check(request: Any, handler: Handler) -> Any:
            key = request.query.get("key", "")
            headers = request.headers
            cookie = request.cookies.get(_COOKIE, "")
            reason = self.why_not(request.host, headers.get("Origin"), key, cookie)
            if reason is not None:
                raise web.HTTPForbidden(text=f"403: {reason}\n")
            response = await handler(request)
            if not response.prepared:
                response.headers["Content-Security-Policy"] = _POLICY.format(host=self._host)
                response.headers["Referrer-Policy"] = "no-referrer"
                if key:
                    response.set_cookie(_COOKIE, key, httponly=True, samesite="Strict")
            return response

        wrapped: Any = web.middleware(check)
        return wrapped


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((_HOST, 0))
        return int(free.getsockname()[1])
