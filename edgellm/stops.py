"""Stop strings in a stream: text is held back while it could still become a stop string.

Knows text only: no tokens, no model. A stop string may begin in one piece and end in a later one;
none of it is ever released.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InvalidArgumentError


class StopMatcher:
    """Feed pieces with `push`; it returns what is safe to show. `matched` names the stop found."""

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                message = f"stop must hold non-empty strings, not {stop!r}"
                raise InvalidArgumentError(message, code="invalid_argument")
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        """Text that can be shown now. After a match, always the empty string."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        found = self._first_match(text)
        if found is not None:
            at, self.matched = found
            self._held = ""
            return text[:at]
        keep = self._held_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What is still held back, when no more text will come."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """The match that ends first, as if characters came one by one: pieces must not matter."""
        hits = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self._stops]
        hits = [hit for hit in hits if hit[0] >= len(hit[2])]
        if not hits:
            return None
        end, _, stop = min(hits)
        return end - len(stop), stop

    def _held_length(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        for n in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - n :]
            if any(stop.startswith(tail) for stop in self._stops):
                return n
        return 0
