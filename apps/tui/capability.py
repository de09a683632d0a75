"""Whether this terminal can show the chat screen. Imports no textual, which may be missing."""

from __future__ import annotations

import importlib.util
import os
import select
import sys
from collections.abc import Mapping
from typing import TextIO

MIN_COLUMNS, MIN_ROWS = 32, 8
_WITHOUT_CURSOR = ("", "dumb", "unknown")


def why_no_screen() -> str | None:
    """The reason for line mode and what changes it, or None if the screen will do."""
    if importlib.util.find_spec("textual") is None:
        return "the terminal app is not installed; pip install 'edgellm[tui]' brings it"
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.__stderr__}
    return why_poor_terminal(os.environ, streams)


def why_poor_terminal(
    environ: Mapping[str, str], streams: Mapping[str, TextIO | None]
) -> str | None:
    """As above, for a terminal."""
    for name, stream in streams.items():
        if stream is None or not stream.isatty():
            return f"{name} is not a terminal"
    term = environ.get("TERM", "").lower()
    if os.name == "posix" and term in _WITHOUT_CURSOR:
        return f"TERM={term} cannot place a cursor; set TERM to what your terminal is"
    for name, stream in streams.items():
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        if name != "stdin" and encoding != "utf8":
            return (
                f"{name} takes {encoding or 'unknown'} text; a UTF-8 locale such as C.UTF-8 helps"
            )
    columns, rows = _size(streams["stdout"])
    if columns < MIN_COLUMNS or rows < MIN_ROWS:
        return f"the window is {columns}x{rows}; from {MIN_COLUMNS}x{MIN_ROWS} on there is a screen"
    return None


def is_terminal_gone(fd: int) -> bool:
    """Nobody will ever read or write on the other side again: the window was closed, the
    connection broke. False where the system cannot tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(fd, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def _size(stream: TextIO | None) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(1 if stream is None else stream.fileno())
    except (OSError, ValueError):  # no size to be had: the screen asks again and takes 80x24
        return 80, 24
    # A serial line reports 0x0.
    return size.columns or 80, size.lines or 24
