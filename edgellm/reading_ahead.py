"""Lets the disk read a file that is soon needed, while Python is at something else."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

_BYTES = 128 << 20  # what a disk reads while modules are imported and a signature is verified


def read_ahead(path: Path) -> None:
    """Begins to read the first bytes of a file, in a thread of its own. A hint: nothing follows
    from what is there, and what cannot be read is left to who needs it."""
    if sys.platform == "linux":
        threading.Thread(target=_read, args=(path,), daemon=True).start()


def _read(path: Path) -> None:
    """By one call without Python's lock, which would be waited for after each of many."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError), ExitStack() as opened:
        source = os.open(path, flags)
        opened.callback(os.close, source)
        if not stat.S_ISREG(os.fstat(source).st_mode):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        opened.callback(os.close, nowhere)
        os.sendfile(nowhere, source, 0, _BYTES)
