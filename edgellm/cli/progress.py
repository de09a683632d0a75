"""Progress of a long verb, on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

from ..sanitize import visible_line
from ..watching import PrefillProgress
from .output import note

_NOTE_EVERY_S = 10.0
_LONG_PROMPT_S = 2.0
Progress = Callable[[str, int, int], None]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Call it with what is being done, and how many of how many are.

    A bar on a terminal that can redraw (rich honours NO_COLOR), otherwise a line every 10 s.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    name = TextColumn("{task.description:<24}", markup=False)
    columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, n_done: int, n_total: int) -> None:
            bar.update(task, description=visible_line(what), completed=n_done, total=n_total)

        yield show


class PromptBar:
    """For `on_prefill=`: shown where a prompt will take long, gone before the first token."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None

    def __call__(self, progress: PrefillProgress) -> None:
        if progress.n_done == progress.n_total:
            self._stack.close()
            self._bar = None
            return
        if self._bar is None and (progress.eta_s or 0) > _LONG_PROMPT_S:
            self._bar = self._stack.enter_context(progress_bar())
        if self._bar is not None:
            self._bar("reading the prompt", progress.n_done, progress.n_total)

    def __enter__(self) -> PromptBar:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _lines() -> Progress:
    last = monotonic()

    def show(what: str, n_done: int, n_total: int) -> None:
        nonlocal last
        if monotonic() - last >= _NOTE_EVERY_S:
            last = monotonic()
            note(f"{what}: {n_done:,} of {n_total:,}")

    return show
