"""Where a prompt comes from: an argument, a file, a pipe, or several of these."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from ..errors import InvalidArgumentError
from ..small_files import read_small_text

STDIN = "-"
_FILE_MARK = "@"
_MAX_BYTES = 64 << 20


def whole_prompt(text: str | None, files: list[Path], *, reads_pipe: bool) -> str:
    """The files and what is piped in, then `text`, with an empty line between them. `text`: "-" for
    all of stdin, "@FILE" for a file's contents, "@@..." for a text that begins with @.
    FormatError: a file that cannot be read; InvalidArgumentError: no UTF-8, or nothing at all."""
    parts = [
        _stdin() if str(path) == STDIN else read_small_text(path, _MAX_BYTES) for path in files
    ]
    takes_stdin = text == STDIN or any(str(path) == STDIN for path in files)
    if reads_pipe and not takes_stdin and _is_piped():
        parts.append(_stdin())
    if text == STDIN:
        parts.append(_stdin())
    elif text is not None and text.startswith(_FILE_MARK * 2):
        parts.append(text[1:])
    elif text is not None and text.startswith(_FILE_MARK) and len(text) > 1:
        parts.append(read_small_text(Path(text[1:]), _MAX_BYTES))
    elif text is not None:
        parts.append(text)
    if len(parts) == 1:
        return parts[0]
    found = "\n\n".join(part.strip("\n") for part in parts if part)
    if not found:
        message = "there is no prompt: give a text, -f FILE, or a pipe (... | edgellm run -m MODEL)"
        raise InvalidArgumentError(message, code="invalid_argument")
    return found


def _is_piped() -> bool:
    """Somebody writes to stdin, or it is a file: neither a terminal nor nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        message = f"the prompt on stdin is not {error.encoding} text: {error.reason}"
        raise InvalidArgumentError(message, code="invalid_utf8") from None
