"""Between the screen and a model: the `Engine` protocol, and the thread that one runs on, so that
the screen never waits.

Knows nothing of widgets or terminals. An engine may block and is used by one thread at a time;
only `stop()` and `count()` may come from another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Protocol

from edgellm.errors import EdgeError
from edgellm.transcript import Exchange

from .messages import (
    Ask,
    Event,
    Measure,
    Measured,
    ModelCard,
    ModelSwitched,
    ReplyFailed,
    ReplyStarted,
    Request,
    SwitchModel,
    TextPiece,
)


class Engine(Protocol):
    """What the chat screen needs of a model."""

    @property
    def card(self) -> ModelCard:
        """What it is; another one after `switch()`."""
        ...

    @property
    def said(self) -> tuple[Exchange, ...]:
        """What was said before the first request, in a chat that goes on."""
        ...

    def reply(self, ask: Ask) -> Generator[Event, None, None]:
        """Blocks between events: ReplyStarted, TextPieces, ReplyEnded. Failures are raised. Closing
        the iterator ends the reply and keeps what came."""
        ...

    def switch(self, name: str) -> ModelCard:
        """Another model. Failures are raised, and the one before stays."""
        ...

    def measure(self, wish: Measure) -> Generator[Measured, None, None]:
        """Blocks between points."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text. From any thread."""
        ...

    def stop(self) -> None:
        """End the reply under way, if any, keeping what came. From any thread."""
        ...

    def close(self) -> None:
        """Free what it holds. Idempotent."""
        ...


class EngineThread:
    """Runs an engine on a thread of its own and collects its events until `take()`.

    One request at a time: the next one after the last event of the one before was taken.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="edgellm-chat", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Begin a reply. Returns at once."""
        self._stopping = False
        self._requests.put(request)

    def stop(self) -> None:
        """End the reply under way, keeping what came. Returns at once."""
        # Before the engine has a stream, only the flag is there to be seen; see `_run`.
        self._stopping = True
        self._engine.stop()

    def take(self) -> list[Event]:
        """Everything since the last call; pieces of text that follow each other as one."""
        with self._lock:
            events, self._events = self._events, []
        merged: list[Event] = []
        for event in events:
            last = merged[-1] if merged else None
            if isinstance(event, TextPiece) and isinstance(last, TextPiece):
                text, n_tokens = last.text + event.text, last.n_tokens + event.n_tokens
                merged[-1] = TextPiece(text, n_tokens)
            else:
                merged.append(event)
        return merged

    def close(self) -> None:
        """Stop, and wait for the thread (about 100 ms at most). The engine stays open."""
        self.stop()
        self._requests.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            self._run(request)

    def _run(self, request: Request) -> None:
        started = kept = False
        try:
            for event in self._events_of(request):
                started = started or isinstance(event, ReplyStarted)
                kept = kept or isinstance(event, TextPiece)
                self._put(event)
                if self._stopping:
                    self._engine.stop()
        except Exception as error:  # the boundary to the screen, which shows every failure
            known = isinstance(error, EdgeError)
            message = str(error) if known else f"internal: {type(error).__name__}: {error}"
            self._put(ReplyFailed(message, getattr(error, "code", "internal"), started, kept))

    def _events_of(self, request: Request) -> Iterator[Event]:
        match request:
            case Ask():
                yield from self._engine.reply(request)
            case SwitchModel():
                yield ModelSwitched(self._engine.switch(request.name))
            case Measure():
                yield from self._engine.measure(request)

    def _put(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)
