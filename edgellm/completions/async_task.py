"""Tasks for asyncio: every text is computed in a thread of its own, and they share steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol

from ..async_stream import AsyncTokenStream
from ..results import Stats, Token
from ..stream import TokenStream
from .task import Chunk, Task, Whole

_Event = tuple[int, Token | None, Exception | None]


class Watch(Protocol):
    """Is told what happens to a text."""

    def token(self) -> None:
        """It has another token."""

    def end(self, stats: Stats | None) -> None:
        """It is over, whole or not; None: it never began."""


Start = Callable[[int], TokenStream]
Watches = Callable[[], Watch]


class TaskRun(Generic[Whole, Chunk]):
    """The texts of a task under way. `start`: the task's own, or one around it, which is called in
    the thread of the text; `watches` makes a watch for each."""

    def __init__(
        self,
        task: Task[Whole, Chunk],
        start: Start | None = None,
        watches: Watches | None = None,
    ) -> None:
        self._task = task
        starting = start or task.start
        self._streams = [_stream(starting, at) for at in range(task.n)]
        self._watches = [] if watches is None else [watches() for _ in range(task.n)]

    def cancel(self) -> None:
        """End all texts early; what there is stays."""
        for stream in self._streams:
            stream.cancel()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Once. Closing the iterator, or cancelling who waits for it, ends the texts.

        A text goes on only when its last token was taken: who reads slowly slows down himself.
        """
        task = self._task
        for chunk in task.opening():
            yield chunk
        events: asyncio.Queue[_Event] = asyncio.Queue(1)
        readers = [asyncio.create_task(self._read(at, events)) for at in range(task.n)]
        n_left = task.n
        try:
            while n_left:
                at, token, error = await events.get()
                if error is not None:
                    raise error
                n_left -= token is None
                for chunk in self._ended(at) if token is None else task.take(at, token):
                    yield chunk
            for chunk in task.closing():
                yield chunk
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            await asyncio.gather(*(stream.aclose() for stream in self._streams))
            for watch, stream in zip(self._watches, self._streams, strict=False):
                watch.end(stream.stats)

    def _ended(self, at: int) -> list[Chunk]:
        stats = self._streams[at].stats
        assert stats is not None
        return self._task.end(at, self._streams[at].finish_reason or "cancelled", stats)

    async def _read(self, at: int, events: asyncio.Queue[_Event]) -> None:
        watch = self._watches[at] if self._watches else None
        try:
            async for token in self._streams[at]:
                if watch is not None:
                    watch.token()
                await events.put((at, token, None))
            await events.put((at, None, None))
        except Exception as error:
            await events.put((at, None, error))


async def astream_task(task: Task[Whole, Chunk]) -> AsyncIterator[Chunk]:
    """The chunks of a task; see `TaskRun.chunks()`."""
    async for chunk in TaskRun(task).chunks():
        yield chunk


async def arun_task(task: Task[Whole, Chunk]) -> Whole:
    """To the end."""
    async for _ in TaskRun(task).chunks():
        pass
    return task.result()


def _stream(start: Start, at: int) -> AsyncTokenStream:
    return AsyncTokenStream(lambda: start(at))
