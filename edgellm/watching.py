"""What a caller can do while a text is under way: end it by a token, watch its prompt being read.

Knows streams by their `cancel()` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Protocol
from weakref import WeakSet


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


class CancelToken:
    """Ends every text that was given it, from any thread, within about 100 ms: those under way keep
    what they have, as "cancelled", and those that come later have nothing.

        token = CancelToken()
        model.generate(prompt, max_tokens=500, cancel=token)  # elsewhere: token.cancel()
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_cancelled = False
        self._texts: WeakSet[_Cancellable] = WeakSet()

    @property
    def is_cancelled(self) -> bool:
        """`cancel()` was called."""
        return self._is_cancelled

    def cancel(self) -> None:
        """For good. Idempotent."""
        with self._lock:
            self._is_cancelled = True
            texts = list(self._texts)
        for text in texts:
            text.cancel()

    def attach(self, text: _Cancellable) -> None:
        """`text` ends when the token says, which may be now."""
        with self._lock:
            self._texts.add(text)
            is_cancelled = self._is_cancelled
        if is_cancelled:
            text.cancel()


@dataclass(frozen=True)
class PrefillProgress:
    """Of a prompt: tokens read, those whose KV was there included, of how many; seconds since the
    first was computed, and how many more it will take at this speed, None while that is unknown."""

    n_done: int
    n_total: int
    elapsed_s: float
    eta_s: float | None


class PrefillWatch:
    """Tells `told` how far the prompt of one text is: about every 80 ms, and when it was read."""

    def __init__(self, told: Callable[[PrefillProgress], None], n_total: int) -> None:
        self._told = told
        self._n_total = n_total
        self._started = perf_counter()
        self._n_first: int | None = None
        self._is_over = False

    def tell(self, n_done: int) -> None:
        """So many tokens are processed."""
        if self._is_over:
            return
        n_done = min(n_done, self._n_total)
        self._is_over = n_done == self._n_total
        elapsed = perf_counter() - self._started
        eta = None
        if self._is_over:
            eta = 0.0
        elif self._n_first is None:
            self._n_first, self._started = n_done, perf_counter()
        elif n_done > self._n_first:
            eta = elapsed / (n_done - self._n_first) * (self._n_total - n_done)
        self._told(PrefillProgress(n_done, self._n_total, elapsed, eta))
