"""Tasks for asyncio: every text is computed in a thread of its own, and they share steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ..async_stream import AsyncTokenStream
from ..results import Token
from .task import Chunk, Task, Whole

_Event = tuple[int, Token | None, BaseException | None]


async def astream_task(task: Task[Whole, Chunk]) -> AsyncIterator[Chunk]:
    """The chunks of a task. Closing the iterator, or cancelling who waits for it, ends its texts.

    A text goes on only when its last token was taken: who reads slowly slows down himself.
    """
    for chunk in task.opening():
        yield chunk
    streams = [_started(task, at) for at in range(task.n)]
    events: asyncio.Queue[_Event] = asyncio.Queue(1)
    readers = [asyncio.create_task(_read(at, one, events)) for at, one in enumerate(streams)]
    n_left = task.n
    try:
        while n_left:
            at, token, error = await events.get()
            if error is not None:
                raise error
            if token is not None:
                chunks = task.take(at, token)
            else:
                n_left -= 1
                chunks = _ended(task, at, streams[at])
            for chunk in chunks:
                yield chunk
        for chunk in task.closing():
            yield chunk
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await asyncio.gather(*(stream.aclose() for stream in streams))


async def arun_task(task: Task[Whole, Chunk]) -> Whole:
    """To the end."""
    async for _ in astream_task(task):
        pass
    return task.result()


def _started(task: Task[Whole, Chunk], at: int) -> AsyncTokenStream:
    return AsyncTokenStream(lambda: task.start(at))


def _ended(task: Task[Whole, Chunk], at: int, stream: AsyncTokenStream) -> list[Chunk]:
    reason, stats = stream.finish_reason, stream.stats
    assert stats is not None
    return task.end(at, reason or "cancelled", stats)


async def _read(at: int, stream: AsyncTokenStream, events: asyncio.Queue[_Event]) -> None:
    try:
        async for token in stream:
            await events.put((at, token, None))
        await events.put((at, None, None))
    except Exception as error:
        await events.put((at, None, error))
