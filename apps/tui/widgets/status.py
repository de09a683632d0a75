"""The line between transcript and prompt: what happens, and how full the context is."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal

from .kept import Kept
from .plain import Plain

_BAR_CELLS = 10
_WIDE_COLUMNS = 70


class StatusLine(Kept, Horizontal):
    """Left a sentence, right the meter."""

    def __init__(self, n_ctx: int) -> None:
        super().__init__(id="status")
        self._n_ctx = n_ctx
        self._n_used = 0
        self._n_cells = 0
        self._text = Plain(id="state")
        self._meter = Plain(id="meter")

    def compose(self) -> ComposeResult:
        """Both parts."""
        yield self._text
        yield self._meter

    def on_resize(self) -> None:
        """Narrow windows have no bar."""
        self.show_context(self._n_used)

    def say(self, text: str) -> None:
        """The sentence."""
        self._text.show(text, same_size=True)

    def set_limit(self, n_ctx: int) -> None:
        """Of another model."""
        self._n_ctx = n_ctx
        self.show_context(self._n_used)

    def show_context(self, n_used: int) -> None:
        """Tokens in the context now."""
        self._n_used = n_used
        text = meter(n_used, self._n_ctx, wide=self.size.width >= _WIDE_COLUMNS)
        self._meter.show(text, same_size=len(text) == self._n_cells)
        self._n_cells = len(text)
        self._meter.set_class(n_used >= 0.9 * self._n_ctx, "-full")


def meter(n_used: int, n_ctx: int, *, wide: bool) -> str:
    """How full the context is, in 4 to 40 cells."""
    percent = 100 * n_used // max(1, n_ctx)
    if not wide:
        return f"ctx {percent:3}%"
    n_full = min(_BAR_CELLS, -(-_BAR_CELLS * n_used // max(1, n_ctx)))
    bar = "█" * n_full + "░" * (_BAR_CELLS - n_full)
    return f"context {bar} {percent:3}% of {n_ctx}"
