"""Lets the disk read a file that is soon needed, while Python is at something else."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

_BYTES = 128 << 20  # what a disk reads while modules are imported and a signature is verified
_STEP_BYTES = 1 << 20  # of one hint the system may take no more


def read_ahead(path: Path) -> None:
    """Begins to read the first bytes of a file, in a thread of its own. A hint: nothing follows
    from what is there, and what cannot be read is left to who needs it."""
    if sys.platform == "linux":
        threading.Thread(target=_read, args=(path,), daemon=True).start()


def _read(path: Path) -> None:
    """By hints: reads proper, which go on beside those of who needs the file, cost that one twice
    the time of the system (seen with Linux 6.18)."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError), ExitStack() as opened:
        source = os.open(path, flags)
        opened.callback(os.close, source)
        found = os.fstat(source)
        if stat.S_ISREG(found.st_mode):
            for at in range(0, min(found.st_size, _BYTES), _STEP_BYTES):
                os.posix_fadvise(source, at, _STEP_BYTES, os.POSIX_FADV_WILLNEED)
