"""What makes a rename last: the directory that it happened in, written to disk."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """After this, renames in `directory` outlast a power failure. OSError if it cannot be."""
    if os.name != "posix":
        return  # a directory cannot be opened there; the rename is journalled
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
