"""Another program in the place of the chat: it has the terminal until it ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from textual.app import App


def run_outside(app: App[Any], command: Sequence[str], *, waits: bool = False) -> int:
    """The exit code. `waits`: what the program wrote stays until Enter. SuspendNotSupported: there
    is no terminal to hand over; OSError: the program did not start."""
    with app.suspend(), _deaf():
        code = subprocess.run(command, check=False).returncode
        if waits:
            input("\nEnter goes back to the chat ")
    return code


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl+C is for the other program: here it would end the chat. Ignoring the signal would make
    the other program ignore it too."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
