"""Between the screen and a model: the `Engine` protocol, the engine of a loaded model, and the
thread that one runs on, so that the screen never waits.

Knows nothing of widgets or terminals. An engine may block and is used by one thread at a time;
only `stop()` may come from another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgellm.chat import Chat
from edgellm.errors import EdgeError
from edgellm.model import Model
from edgellm.results import Generation
from edgellm.stream import TokenStream

from .messages import (
    EditLast,
    Event,
    ModelCard,
    ReplyEnded,
    ReplyFailed,
    ReplyStarted,
    Request,
    Send,
    TextPiece,
)

_N_SEEDS = 2**64


class Engine(Protocol):
    """What the chat screen needs of a model."""

    @property
    def card(self) -> ModelCard:
        """What it is; does not change."""
        ...

    def reply(self, request: Request) -> Generator[Event, None, None]:
        """Blocks between events: ReplyStarted, TextPieces, ReplyEnded. Failures are raised. Closing
        the iterator ends the reply and keeps what came."""
        ...

    def stop(self) -> None:
        """End the reply under way, if any, keeping what came. From any thread."""
        ...

    def close(self) -> None:
        """Free what it holds. Idempotent."""
        ...


class ModelEngine:
    """An `Engine` over a chat with a loaded model. `sampling` goes into every reply; each further
    try at one message takes the next seed. Closes the chat, not the model; `save_to`: a file that
    the chat is saved to before."""

    def __init__(
        self,
        model: Model,
        chat: Chat,
        name: str,
        sampling: Mapping[str, Any],
        save_to: Path | None = None,
    ) -> None:
        info = model.info()
        formats = {k: n for k, n in info.weight_formats.items() if k != "F32"}
        weights = max(formats, key=lambda name: formats[name], default="F32")
        self._chat, self._save_to = chat, save_to
        self._sampling = dict(sampling)
        self._attempt = 0
        self._stream: TokenStream | None = None
        self._last_result: Generation | None = None
        self._card = ModelCard(
            name=name,
            details=f"{_count(info.n_parameters)} parameters, {weights}, {info.threads} threads",
            n_ctx=chat.context_tokens[1],
            varies=sampling.get("temperature", 0.0) > 0,
        )

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def last_result(self) -> Generation | None:
        """The reply that ended last."""
        return self._last_result

    def reply(self, request: Request) -> Generator[Event, None, None]:
        """See `Engine`."""
        stream = self._stream = self._open(request)
        try:
            with stream:
                yield ReplyStarted(stream.stats.prompt_tokens)
                for token in stream:
                    yield TextPiece(token.text)
        finally:
            self._stream = None
        self._last_result = result = stream.result()
        stats = result.stats
        yield ReplyEnded(
            finish_reason=result.finish_reason,
            kept=bool(result.token_ids),
            n_tokens=stats.generated_tokens,
            tokens_per_s=stats.tokens_per_s,
            ttft_ms=stats.ttft_ms,
            prompt_tokens=stats.prompt_tokens,
            reused_tokens=stats.reused_tokens,
            context_tokens=self._chat.context_tokens[0],
            dropped_turns=result.dropped_turns,
            dropped_tokens=stats.dropped_tokens,
        )

    def stop(self) -> None:
        """See `Engine`."""
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def close(self) -> None:
        """Saves the chat, once, and frees the KV cache. Idempotent."""
        path, self._save_to = self._save_to, None
        try:
            if path is not None:
                self._chat.save(path)
        finally:
            self._chat.close()

    def _open(self, request: Request) -> TokenStream:
        if isinstance(request, Send):
            self._attempt = 0
            return self._chat.stream(request.text, **self._sampling)
        if isinstance(request, EditLast):
            self._attempt = 0
            last = len(self._chat.turns) - 1
            return self._chat.stream_edit(last, request.text, **self._sampling)
        self._attempt += 1
        seed = (self._sampling.get("seed", 0) + self._attempt) % _N_SEEDS
        return self._chat.stream_regenerate(**{**self._sampling, "seed": seed})


class EngineThread:
    """Runs an engine on a thread of its own and collects its events until `take()`.

    One request at a time: the next one after ReplyEnded or ReplyFailed was taken.
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
            for event in self._engine.reply(request):
                started = started or isinstance(event, ReplyStarted)
                kept = kept or isinstance(event, TextPiece)
                self._put(event)
                if self._stopping:
                    self._engine.stop()
        except Exception as error:  # the boundary to the screen, which shows every failure
            known = isinstance(error, EdgeError)
            message = str(error) if known else f"internal: {type(error).__name__}: {error}"
            self._put(ReplyFailed(message, getattr(error, "code", "internal"), started, kept))

    def _put(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)


def _count(n: int) -> str:
    """5770528 -> "5.8M"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= limit:
            return f"{n / limit:.1f}{unit}"
    return str(n)
