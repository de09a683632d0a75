"""Listening: uvicorn, with a limit on how long a request's head may take, and an end that lets
texts under way end."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import DeviceError
from .app import create_app
from .engine import Engine
from .settings import ServerSettings

_MAX_HEAD_BYTES = 16 << 10
_KEEP_ALIVE_S = 30
_SPARE_THREADS = 16


def listening_socket(settings: ServerSettings) -> socket.socket:
    """Bound and listening, so that its port is known; DeviceError where it cannot be."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
        found.listen(settings.connections)
    except OSError as error:
        found.close()
        message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        raise DeviceError(message) from None
    return found


def serve(engine: Engine, sock: socket.socket, started: Callable[[], None]) -> None:
    """Until SIGTERM or Ctrl-C; `started` is called when the first model is loaded. What loading it
    raises."""
    asyncio.run(DrainingServer(engine).listen(sock, started))


class DrainingServer(uvicorn.Server):
    """Ends within about `drain_s`, texts under way included."""

    def __init__(self, engine: Engine) -> None:
        settings = engine.settings
        config = uvicorn.Config(
            create_app(engine),
            http=_head_protocol(settings.head_s),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(settings.drain_s) + 1),
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._engine = engine

    async def listen(self, sock: socket.socket, started: Callable[[], None] | None = None) -> None:
        """Run the engine, and answer on `sock` until the end."""
        # A prompt that is scored holds a thread for long: nobody else is to wait for one.
        n_threads = self._engine.settings.slots + _SPARE_THREADS
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(n_threads))
        try:
            async with self._engine.running():
                if started is not None:
                    started()
                await self.serve(sockets=[sock])
        finally:
            sock.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The engine ends what does not end by itself."""
        draining = asyncio.create_task(self._engine.drain())
        try:
            await super().shutdown(sockets)
        finally:
            draining.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed does not kill the process again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before: list[tuple[signal.Signals, Any]] = [
            (one, signal.signal(one, self.handle_exit)) for one in signals
        ]
        try:
            yield
        finally:
            for one, handler in before:
                signal.signal(one, handler)


def _head_protocol(head_s: float) -> type[H11Protocol]:
    """Closes connections that take longer than that for the head of a request."""

    class HeadProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self._deadline is None and self._is_between_requests():
                self._expect_head()
            super().data_received(data)
            if self._deadline is not None and not self._is_between_requests():
                self._deadline.cancel()
                self._deadline = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def _is_between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(head_s, self.transport.close)

    return HeadProtocol
