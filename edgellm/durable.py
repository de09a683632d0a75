"""Small files that are there whole or not at all, and stay when the power fails."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .errors import FormatError


def fsync_directory(directory: Path) -> None:
    """After this, renames in `directory` outlast a power failure. OSError if it cannot be."""
    if os.name != "posix":
        return  # a directory cannot be opened there; the rename is journalled
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_whole(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Puts `data` in the place of what is at `path`, or leaves that as it is with an OSError.

    temporary: beside it, where it is written first, for who sweeps up after a kill; else a name
    that nobody has.
    """
    written = temporary or path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with written.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_whole(path: Path, data: str | bytes) -> None:
    """As replace_whole(), text as UTF-8; FormatError where it cannot be written."""
    try:
        replace_whole(path, data.encode("utf-8") if isinstance(data, str) else data)
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise FormatError(message, code="file_write_failed") from error
