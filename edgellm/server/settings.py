"""What a server is told when it starts, checked before it listens."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError

DEFAULT_PORT = 8080
_LEAST_TOKEN_CHARS = 16


@dataclass(frozen=True)
class ServerSettings:
    """`models`: names and paths, as `edgellm.load()` takes them; the first is loaded at the start.
    `models_dir`: its `.edge` files are served by their stems, loaded on demand. `max_memory`: bytes
    of all loaded models together; the one used least recently goes first. `keep_alive_s`: a model
    that nobody used for so long is unloaded; None: never.

    `slots`: texts at once; `queue`: requests that may wait for one. `max_tokens`: of an answer
    that does not say. `load_options`: of `edgellm.load()`.

    `token`: what clients must send; needed where `host` is not this machine alone. `hosts`,
    `origins`: names by which clients may call it, and web pages that may, besides its own.

    Limits against who holds connections: bytes of a body, seconds for a request's head, for its
    body, and for a client to take what it was sent. `drain_s`: texts under way have so long to end
    when the server stops. `govern`: rest when it gets hot or the battery low, and trim
    when memory is short (docs/PLAN.md).
    """

    models: tuple[str, ...] = ()
    models_dir: Path | None = None
    max_memory: int | None = None
    keep_alive_s: float | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    slots: int = 16
    queue: int = 64
    connections: int = 512
    max_tokens: int = 4096
    max_body: int = 4 << 20
    head_s: float = 10.0
    body_s: float = 30.0
    send_s: float = 30.0
    drain_s: float = 4.0
    load_options: dict[str, Any] = field(default_factory=dict)
    govern: bool = False

    def __post_init__(self) -> None:
        if not self.models and self.models_dir is None:
            raise _fail("give a model to serve, or --models DIR")
        if self.models_dir is not None and not self.models_dir.is_dir():
            raise _fail(f"--models {self.models_dir} is no directory")
        if not 0 <= self.port <= 65535:
            raise _fail(f"port must be in 0..65535, but is {self.port}")
        for name, least, most in (
            ("slots", 1, 1024),
            ("queue", 0, 100_000),
            ("connections", 1, 100_000),
            ("max_tokens", 1, 2**31 - 1),
            ("max_body", 1, 1 << 30),
        ):
            if not least <= getattr(self, name) <= most:
                raise _fail(f"{name} must be in {least}..{most}, but is {getattr(self, name)}")
        if self.keep_alive_s is not None and self.keep_alive_s <= 0:
            raise _fail(f"keep-alive must be above 0 seconds, but is {self.keep_alive_s}")
        if self.token is not None and len(self.token) < _LEAST_TOKEN_CHARS:
            raise _fail(f"a token must have {_LEAST_TOKEN_CHARS} characters or more")
        if self.token is None and not self.is_local:
            raise _fail(
                f"{self.host} can be reached from other machines: give a token "
                "(EDGELLM_SERVE_TOKEN), or serve on 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """Only programs on this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _fail(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
