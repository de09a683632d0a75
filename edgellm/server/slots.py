"""Turns of requests: so many texts at once, so many requests waiting, in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .failures import RATE, Refusal


class Slots:
    """For the event loop only."""

    def __init__(self, n: int, queue: int) -> None:
        self.n = n
        self.n_taken = 0
        self._most_waiting = queue
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def n_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @asynccontextmanager
    async def taken(self, n_texts: int) -> AsyncIterator[None]:
        """As many slots as texts, or all; Refusal 429 where the queue is full."""
        n = min(n_texts, self.n)
        if self._waiting or self.n_taken + n > self.n:
            await self._wait(n)
        else:
            self.n_taken += n
        try:
            yield
        finally:
            self.n_taken -= n
            self._admit()

    async def _wait(self, n: int) -> None:
        if len(self._waiting) >= self._most_waiting:
            message = f"{self.n_taken} texts go on and {len(self._waiting)} requests wait already"
            raise Refusal(429, f"{message}; try again later", "queue_full", RATE)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((n, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came as it gave up
                self.n_taken -= n
            else:
                self._waiting.remove((n, turn))
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self.n_taken + self._waiting[0][0] <= self.n:
            n, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self.n_taken += n
            turn.set_result(None)
