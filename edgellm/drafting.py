"""Guessing ahead in one generation: turned on or off for it, and what came of it.

Knows native sessions only. docs/SPECULATION.md says what the runtime does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from . import _native
    from ._native_types import SessionStats


@dataclass(frozen=True)
class DraftFigures:
    """Of one text: whether it was guessed at; by kind of guessing, how many tokens and how many of
    them right; and the milliseconds that it has saved."""

    is_on: bool = False
    drafters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    saved_ms: float = 0.0
    capped_steps: int = 0

    @property
    def n_drafted(self) -> int:
        return sum(drafted for drafted, _ in self.drafters.values())

    @property
    def n_accepted(self) -> int:
        return sum(accepted for _, accepted in self.drafters.values())


class Drafting:
    """For the text that `session` is going to hold. `wanted`: None leaves it as the session is.

    MemoryBudgetError; UnsupportedError for a session with a namespace."""

    def __init__(self, session: _native.Session, wanted: bool | None) -> None:
        self._before = session.stats
        self._was_on = self._before["is_speculating"]
        if wanted is not None and wanted != self._was_on:
            session.set_speculation(wanted)
        self._figures = DraftFigures()

    def figures(self, session: _native.Session | None) -> DraftFigures:
        """So far; the last ones known once the session is gone."""
        if session is not None:
            with suppress(InvalidArgumentError):  # of a model that was closed
                self._figures = self._since(session.stats)
        return self._figures

    def end(self, session: _native.Session) -> None:
        """The text is over: keep the figures, and leave the session as it was."""
        if self.figures(session).is_on != self._was_on:
            session.set_speculation(self._was_on)

    def _since(self, stats: SessionStats) -> DraftFigures:
        drafters = {}
        for name, (drafted, accepted) in stats["drafters"].items():
            drafted_before, accepted_before = self._before["drafters"].get(name, (0, 0))
            if drafted > drafted_before:
                drafters[name] = (drafted - drafted_before, accepted - accepted_before)
        saved_ms = stats["saved_ms"] - self._before["saved_ms"]
        capped = stats["n_capped_steps"] - self._before["n_capped_steps"]
        return DraftFigures(stats["is_speculating"], drafters, saved_ms, capped)
