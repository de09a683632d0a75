"""What the verbs print and how: results on stdout, everything else on stderr, all of it sanitized.

With --json stdout holds exactly one JSON document, the envelope of `print_json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..sanitize import visible, visible_line

SCHEMA_VERSION = 1


def print_json(command: str, data: Mapping[str, Any]) -> None:
    """The envelope every verb shares. Non-ASCII is escaped, so no control character gets out."""
    _write_json({"schema_version": SCHEMA_VERSION, "command": command, "data": data})


def print_json_error(command: str, error: BaseException, message: str) -> None:
    """The envelope of a failure: `error` in the place of `data`."""
    details = {
        "type": type(error).__name__,
        "code": getattr(error, "code", "internal"),
        "message": message,
    }
    _write_json({"schema_version": SCHEMA_VERSION, "command": command, "error": details})


def _write_json(document: Mapping[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_text(text: str) -> None:
    """Text of a model, to stdout, at once."""
    sys.stdout.write(visible(text))
    sys.stdout.flush()


def print_table(rows: Iterable[tuple[str, object]]) -> None:
    """Name and value, one pair a line."""
    pairs = [(visible_line(name), visible_line(str(value))) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


def note(message: str) -> None:
    """One line about progress or timing, to stderr."""
    sys.stderr.write(visible_line(message) + "\n")


class Placed(Protocol):
    """A model, or what is known of it."""

    @property
    def host_layers(self) -> int: ...
    @property
    def graph_tokens(self) -> int: ...


def note_placement(model: Placed) -> None:
    """Says of a model on a GPU or an NPU that not all of it is there."""
    if model.host_layers:
        why = "the GPU's memory is short (docs/backends.md)"
        note(f"the first {model.host_layers} layers run on the CPU: {why}")
    if model.graph_tokens:
        why = "its graphs hold no more (docs/NPU.md)"
        note(f"tokens behind the first {model.graph_tokens} run on the CPU: {why}")


def print_error(message: str) -> None:
    """The one line a failure gets."""
    sys.stderr.write("error: " + visible_line(message) + "\n")
