"""Files that somebody names and that must be small: read whole, or refused."""

from __future__ import annotations

from pathlib import Path

from .errors import FormatError, InvalidArgumentError


def read_small(path: Path, most: int) -> bytes:
    """All of a file of at most so many bytes. FormatError: none, not readable, or larger."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise FormatError(message, code="file_unreadable") from error
    if len(data) > most:
        raise FormatError(f"{path}: larger than {most:,} bytes", code="json_too_large")
    return data


def read_small_text(path: Path, most: int) -> str:
    """As UTF-8, a mark at its beginning left out; InvalidArgumentError besides: it is none."""
    try:
        return read_small(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 at byte {error.start}; convert it first"
        raise InvalidArgumentError(message, code="invalid_utf8") from None
