"""A server in a thread of the test's process, and models whose tokens come when the test says."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

from edgellm.model import Model
from edgellm.options import GenerateArguments
from edgellm.results import Token
from edgellm.server.engine import Engine
from edgellm.server.run import DrainingServer, listening_socket
from edgellm.server.settings import ServerSettings
from edgellm.stream import TokenStream
from edgellm.testing import FakeModel
from edgellm.testing.fake_stream import FakeStream

PATIENCE_S = 60.0  # until a test gives up on what must happen


class GatedStream(FakeStream):
    """A token for every permit of its model; without permits it waits, and can be cancelled."""

    gate: threading.Semaphore

    def _step(self, session: Any) -> Token:
        while not self.gate.acquire(timeout=0.01):
            session.run()  # raises when cancelled
        return super()._step(session)


class GatedModel(FakeModel):
    """`gate.release(n)` lets n tokens come; `open()` all."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.gate = threading.Semaphore(0)

    def open(self) -> None:
        self.gate.release(1_000_000)

    def stream(
        self, prompt: Any, *, adapter: Any = None, **arguments: Unpack[GenerateArguments]
    ) -> TokenStream:
        stream = super().stream(prompt, adapter=adapter, **arguments)
        stream.__class__ = GatedStream
        stream.gate = self.gate  # type: ignore[attr-defined]
        return stream


@dataclass
class Running:
    """A server that answers at `port`."""

    port: int
    engine: Engine
    server: DrainingServer
    thread: threading.Thread
    opened: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers, and the body, as JSON if it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            if data is not None:
                told.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, told)
            answer = connection.getresponse()
            raw = answer.read()
            kind = answer.headers.get("Content-Type", "")
            content = json.loads(raw) if kind.startswith("application/json") else raw.decode()
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, content
        finally:
            connection.close()

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which this was sent."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self.opened.append(found)
        found.sendall(data)
        return found

    def stop(self) -> None:
        for one in self.opened:
            one.close()
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def post(path: str, body: Any) -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def chat(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def until(what: Any) -> None:
    """Wait for something that must come about."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@contextmanager
def serving(model: Model | None = None, **settings: Any) -> Iterator[Running]:
    """`model` under the name fake, or the real ones that the settings name."""
    if model is not None:
        settings.setdefault("models", ("fake",))
    wanted = ServerSettings(port=0, **settings)
    engine = Engine(wanted, None if model is None else lambda path, **options: model)
    sock = listening_socket(wanted)
    server = DrainingServer(engine)
    thread = threading.Thread(target=lambda: asyncio.run(server.listen(sock)), daemon=True)
    thread.start()
    running = Running(sock.getsockname()[1], engine, server, thread)
    try:
        until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield running
    finally:
        if isinstance(model, GatedModel):
            model.open()
        running.stop()
