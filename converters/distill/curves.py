"""The losses of a run, step by step: one JSON object a line of a file in its folder.

{"step", "n_tokens", "rate", "loss", "grad_norm", "terms": {term: loss}, "kinds": {kind: loss}} of a
step; {"step", "valid": {...}} of a measurement. A run that goes on drops the lines of steps after
the one that it goes on from, so that the file is that of a run without interruption.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgellm.durable import write_whole
from edgellm.errors import FormatError

FILE = "curve.jsonl"


class Curve:
    """The file of a run. step: that it goes on from."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / FILE
        kept = [line for line in read_curve(folder) if line["step"] <= step]
        write_whole(self.path, "".join(_line(one) for one in kept))

    def add(self, value: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(value))
        except OSError as error:
            raise _not_written(self.path, error) from error

    def sync(self) -> None:
        """Onto the disk: before the step that the lines lead to is saved."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run that are whole; a last one may have been cut off."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    lines: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict) or not isinstance(value.get("step"), int):
            break
        lines.append(value)
    return lines


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True) + "\n"


def _not_written(path: Path, error: OSError) -> FormatError:
    return FormatError(f"{path}: cannot be written: {error}", code="file_write_failed")
