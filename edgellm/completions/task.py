"""What a request becomes: several texts, and the objects that are made of their tokens.

`run_task` and `stream_task` drive one from a thread; the server has its own way, for asyncio.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..results import FinishReason, Stats, Token
from .types import Usage

if TYPE_CHECKING:
    from ..stream import TokenStream

Whole = TypeVar("Whole", bound=Mapping[str, Any])
Chunk = TypeVar("Chunk", bound=Mapping[str, Any])


class Task(ABC, Generic[Whole, Chunk]):
    """`n` texts. Each is started, gives tokens, and ends; the order among them does not matter."""

    def __init__(self, kind: str, model: str, n: int, *, includes_usage: bool) -> None:
        self.n = n
        self.id = f"{kind}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = model
        self._includes_usage = includes_usage
        self._usage = [0, 0, 0]  # tokens of prompts, of these cached, of answers

    @abstractmethod
    def start(self, at: int) -> TokenStream:
        """Text `at`; ContextOverflowError, MemoryBudgetError, InvalidArgumentError."""

    @abstractmethod
    def opening(self) -> list[Chunk]:
        """Before any token."""

    @abstractmethod
    def take(self, at: int, token: Token) -> list[Chunk]:
        """The next token of text `at`."""

    @abstractmethod
    def end(self, at: int, reason: FinishReason, stats: Stats) -> list[Chunk]:
        """Text `at` is over. ToolCallError."""

    @abstractmethod
    def usage_chunk(self) -> Chunk:
        """The last one, where the request asks for it."""

    @abstractmethod
    def result(self) -> Whole:
        """All texts, when they are over."""

    def closing(self) -> list[Chunk]:
        """After all texts."""
        return [self.usage_chunk()] if self._includes_usage else []

    @property
    def usage(self) -> Usage:
        """So far."""
        n_prompt, n_cached, n_new = self._usage
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_new,
            "total_tokens": n_prompt + n_new,
            "prompt_tokens_details": {"cached_tokens": n_cached},
        }

    def count(self, at: int, stats: Stats) -> None:
        """The tokens of text `at`; a prompt counts once, however many answers it gets."""
        if at % self.per_prompt == 0:
            self._usage[0] += stats.prompt_tokens
            self._usage[1] += stats.reused_tokens
        self._usage[2] += stats.generated_tokens

    @property
    def per_prompt(self) -> int:
        """Texts of one prompt."""
        return self.n


class Together(Protocol):
    """Tokens of `n` texts, with the number of theirs, as they come."""

    def __call__(
        self, n: int, start: Callable[[int], TokenStream]
    ) -> Iterator[tuple[int, Token]]: ...


def stream_task(task: Task[Whole, Chunk], together: Together) -> Iterator[Chunk]:
    """The chunks of a task whose arguments were checked. Closing the iterator ends its texts."""
    streams: dict[int, TokenStream] = {}

    def start(at: int) -> TokenStream:
        streams[at] = task.start(at)
        return streams[at]

    def chunks() -> Iterator[Chunk]:
        yield from task.opening()
        over: set[int] = set()
        try:
            if task.n == 1:  # by itself: a single text may be guessed ahead
                tokens: Iterator[tuple[int, Token]] = ((0, token) for token in start(0))
            else:
                tokens = together(task.n, start)
            for at, token in tokens:
                yield from task.take(at, token)
                reason = streams[at].finish_reason
                if reason is not None and at not in over and _is_last(streams[at], token):
                    over.add(at)
                    yield from task.end(at, reason, streams[at].stats)
            for at in sorted(streams.keys() - over):
                yield from task.end(at, streams[at].finish_reason or "cancelled", streams[at].stats)
            yield from task.closing()
        finally:
            for stream in streams.values():
                stream.close()

    return chunks()


def run_task(task: Task[Whole, Chunk], together: Together) -> Whole:
    """To the end."""
    for _ in stream_task(task, together):
        pass
    return task.result()


def _is_last(stream: TokenStream, token: Token) -> bool:
    """Tokens of a batch may come after their text has ended."""
    return stream.tokens[-1] is token
