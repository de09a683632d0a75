"""One generation for asyncio: the tokens of a `TokenStream`, computed in a thread of its own.

The event loop never waits for the model. A cancelled task cancels its text, whose KV is then free
within about 100 ms. Knows nothing of models and chats but how to start their streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from .results import FinishReason, Generation, Stats, Token
    from .stream import TokenStream

T = TypeVar("T")


class AsyncTokenStream:
    """`async for token in ...`, and `await ....result()` for all that is left at once.

    `start` makes the stream, in the thread: what is wrong with its arguments is raised by the
    first `await`. Close it with `async with` or `aclose()` when the loop is left early. For one
    task at a time, except `cancel()`.
    """

    def __init__(self, start: Callable[[], TokenStream]) -> None:
        self._start = start
        self._stream: TokenStream | None = None
        self._is_cancelled = False
        self._is_closed = False
        self._lock = Lock()  # of the two above: threads and the loop's meet there
        # Not the loop's own threads: texts that share steps must not wait for a free one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edgellm-stream")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        token = await self._in_thread(lambda: next(self._started(), None))
        if token is None:
            self._close()
            raise StopAsyncIteration
        return token

    async def result(self) -> Generation:
        """Run to the end and return everything, tokens already taken included."""
        try:
            return await self._in_thread(lambda: self._started().result())
        finally:
            await self.aclose()

    @property
    def stats(self) -> Stats | None:
        """Measured so far; None before the first token."""
        return None if self._stream is None else self._stream.stats

    @property
    def finish_reason(self) -> FinishReason | None:
        """ "stop", "length" or "cancelled"; None while the text goes on."""
        return None if self._stream is None else self._stream.finish_reason

    def cancel(self) -> None:
        """End the text early, from any thread; the iteration stops within about 100 ms."""
        with self._lock:
            self._is_cancelled = True
            stream = self._stream
        if stream is not None:
            stream.cancel()

    async def aclose(self) -> None:
        """Free the sequence. Ends an unfinished text as "cancelled". Idempotent."""
        self._close()
        await asyncio.shield(asyncio.to_thread(self._thread.shutdown))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _started(self) -> TokenStream:
        if self._stream is None:
            stream = self._start()
            with self._lock:
                self._stream = stream
                is_cancelled = self._is_cancelled
            if is_cancelled:
                stream.cancel()
        return self._stream

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._is_closed:  # there is little to do then
            return await asyncio.to_thread(work)
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_forget)  # whatever it ends with, nobody waits for it
            self._close()
            raise

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        stream = self._stream
        if stream is None or stream.finish_reason is None:
            self.cancel()
            self._thread.submit(self._close_stream)
        self._thread.shutdown(wait=False)

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()


def _forget(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()
