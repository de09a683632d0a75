"""An `Engine` with a script instead of a model, for tests and measurements: what it says and when
is decided by the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from edgellm.errors import FormatError
from edgellm.results import FinishReason
from edgellm.transcript import Exchange

from .messages import (
    Ask,
    Call,
    Event,
    Measure,
    Measured,
    ModelCard,
    ReplyEnded,
    ReplyStarted,
    TextPiece,
)

Script = Sequence[str] | Exception


class FakeEngine:
    """Answers the n-th request with `replies[n]`, around and around: pieces of text, each one
    token, or an error that is raised before anything starts.

    `gated`: every piece waits for a `release()`. `delay_s`: every piece waits that long.
    `breaks_after`: raise `break_with` after so many pieces. `calls`: of tools, in the n-th reply.
    A model whose name begins with "missing" cannot be switched to. Tokens are words.
    """

    def __init__(
        self,
        replies: Sequence[Script],
        *,
        name: str = "fake",
        details: str = "8 parameters, E4_16, 1 threads",
        n_ctx: int = 100,
        gated: bool = False,
        delay_s: float = 0.0,
        dropped_turns: int = 0,
        breaks_after: int | None = None,
        break_with: Exception | None = None,
        calls: Sequence[Sequence[Call]] = (),
        said: Sequence[Exchange] = (),
    ) -> None:
        self.card = ModelCard(name, details, n_ctx, varies=True, root=name)
        self.requests: list[Ask] = []
        self.said = tuple(said)
        self._calls = calls
        self.closed = False
        self._replies = replies
        self._gate = threading.Semaphore(0) if gated else None
        self._delay_s = delay_s
        self._dropped_turns = dropped_turns
        self._breaks_after, self._break_with = breaks_after, break_with
        self._stopped = threading.Event()
        self._context_tokens = 0

    def release(self, n_pieces: int) -> None:
        """Let so many more pieces through."""
        assert self._gate is not None
        self._gate.release(n_pieces)

    def reply(self, ask: Ask) -> Generator[Event, None, None]:
        """See `Engine`."""
        n_request = len(self.requests)
        script = self._replies[n_request % len(self._replies)]
        self.requests.append(ask)
        if isinstance(script, Exception):
            raise script
        self._stopped.clear()
        n_reused = 0 if ask.attempt else self._context_tokens
        n_prompt = n_reused + 10
        yield ReplyStarted(n_prompt)
        reply = ask.begun.reply if ask.begun else ""
        n_tokens = 0
        for piece in script:
            if n_tokens == self._breaks_after and self._break_with is not None:
                raise self._break_with
            self._wait()
            if self._stopped.is_set():
                break
            n_tokens += 1
            reply += piece
            yield TextPiece(piece)
        self._context_tokens = n_prompt + n_tokens
        reason: FinishReason = "cancelled" if self._stopped.is_set() else "stop"
        message = {"role": ask.role, "content": ask.message}
        calls = self._calls[n_request] if ask.tools and n_request < len(self._calls) else ()
        yield ReplyEnded(
            finish_reason=reason,
            kept=n_tokens > 0,
            n_tokens=n_tokens,
            tokens_per_s=25.0,
            ttft_ms=120.0,
            prompt_tokens=n_prompt,
            reused_tokens=n_reused,
            context_tokens=self._context_tokens,
            dropped_turns=self._dropped_turns,
            dropped_tokens=7 * self._dropped_turns,
            exchange=Exchange(message, reply, (1,) * n_tokens, reason) if n_tokens else None,
            calls=tuple(calls),
        )

    def switch(self, name: str) -> ModelCard:
        """See `Engine`."""
        if name.startswith("missing"):
            raise FormatError(f"{name}: no such file", code="file_not_found")
        self.card = ModelCard(name, "another one", 2 * self.card.n_ctx, varies=True, root=name)
        return self.card

    def measure(self, wish: Measure) -> Generator[Measured, None, None]:
        """Faster by one token a second in every round."""
        self._stopped.clear()
        for n_round in range(wish.n_rounds):
            self._wait()
            yield Measured(n_round, 500.0 + n_round, 25.0 + n_round)
            if self._stopped.is_set():
                break
        yield Measured(n_round, 500.0 + n_round, 25.0 + n_round, is_last=True)

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def stop(self) -> None:
        """See `Engine`."""
        self._stopped.set()
        if self._gate is not None:
            self._gate.release()

    def close(self) -> None:
        """Remembers that it was called."""
        self.closed = True

    def _wait(self) -> None:
        if self._gate is not None:
            self._gate.acquire()
        elif self._delay_s > 0:
            self._stopped.wait(self._delay_s)
