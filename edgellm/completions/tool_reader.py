"""Finds tool calls in an answer: text goes through as it comes, calls come at the end."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterable

from ..errors import ToolCallError
from . import xml_calls
from .pythonic import parse_calls
from .tool_formats import ARGS, ToolFormat
from .tools import Tool
from .types import JsonObject, ToolCall

# Nine letters and digits: templates of Mistral refuse others, and nobody else minds.
_ID_CHARACTERS = string.ascii_letters + string.digits
_ID_LENGTH = 9


class ToolReader:
    """Of one answer. `push()` returns what is text for sure; `end()` what was held back that is
    text after all, and the calls."""

    def __init__(self, form: ToolFormat, tools: Iterable[Tool]) -> None:
        self._form = form
        self._schemas: dict[str, JsonObject] = {
            tool.name: json.loads(tool.schema) for tool in tools
        }
        self._calls: str | None = None  # the text of the calls, once they have begun
        self._held = ""  # may be the beginning of calls
        self._is_text = False

    def push(self, text: str) -> str:
        """More of the answer, special tokens spelled out."""
        if self._calls is not None:
            self._calls += text
            return ""
        if self._form.marker:
            return self._until_marker(text)
        return text if self._is_text else self._first(text)

    def end(self, *, is_whole: bool) -> tuple[str, list[ToolCall]]:
        """`is_whole`: the model ended the answer. ToolCallError: what ought to be calls is none;
        of an answer that was cut off, it is text."""
        if self._calls is None:
            return self._held, []
        try:
            return "", [self._call(*call) for call in self._parsed(self._calls)]
        except ToolCallError:
            if is_whole:
                raise
            return self._form.marker + self._calls, []

    def _until_marker(self, text: str) -> str:
        marker, text = self._form.marker, self._held + text
        at = text.find(marker)
        if at >= 0:
            self._calls, self._held = text[at + len(marker) :], ""
            return text[:at].rstrip()
        lengths = range(min(len(marker) - 1, len(text)), 0, -1)
        n_held = next((n for n in lengths if marker.startswith(text[-n:])), 0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def _first(self, text: str) -> str:
        self._held += text
        first = self._held.lstrip()
        if _PYTHON_TAG.startswith(first):  # or there is nothing yet
            return ""
        text, self._held = self._held, ""
        if first.startswith((self._form.starts, _PYTHON_TAG)):
            self._calls = text
            return ""
        self._is_text = True
        return text

    def _parsed(self, text: str) -> list[tuple[str, JsonObject]]:
        try:
            if self._form.style == "pythonic":
                calls = parse_calls(text)
            elif self._form.style == "xml":
                calls = xml_calls.parse_calls(text, self._schemas)
            elif self._form.style == "named":
                calls = [_named(part) for part in text.split(self._form.marker) if part.strip()]
            else:
                calls = [_json_call(value, self._form.key) for value in _objects(text)]
        except ValueError as error:
            raise _broken(f"{error}: {text!r:.200}") from None
        if not calls:
            raise _broken("the answer announces a call and holds none")
        return calls

    def _call(self, name: str, arguments: JsonObject) -> ToolCall:
        if name not in self._schemas:
            raise _broken(f"there is no function {name!r:.80}")
        identity = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
        text = json.dumps(arguments, ensure_ascii=False)
        return {
            "id": identity,
            "type": "function",
            "function": {"name": name, "arguments": text},
        }


_PYTHON_TAG = "<|python_tag|>"
_MARKS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", _PYTHON_TAG)


def _broken(message: str) -> ToolCallError:
    return ToolCallError(f"the model's tool call cannot be read: {message}")


def _objects(text: str) -> list[JsonObject]:
    """The JSON objects in `text`, between marks, brackets and separators."""
    decoder = json.JSONDecoder()
    found: list[JsonObject] = []
    at = 0
    while at < len(text):
        mark = next((mark for mark in _MARKS if text.startswith(mark, at)), None)
        if mark is not None:
            at += len(mark)
        elif text[at] in " \t\r\n[],;":
            at += 1
        elif text[at] == "{":
            try:
                value, at = decoder.raw_decode(text, at)
            except RecursionError:
                raise ValueError("nested too deep") from None
            found.append(value)
        else:
            raise ValueError(f"{text[at : at + 20]!r} is no JSON object")
    return found


def _json_call(value: JsonObject, key: str) -> tuple[str, JsonObject]:
    arguments: object = next((value[k] for k in (key, "arguments", "parameters") if k in value), {})
    if isinstance(arguments, str):  # some write JSON within JSON
        arguments = json.loads(arguments)
    name = value.get("name")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError("a call needs a name, and an object of arguments")
    return name, arguments


def _named(text: str) -> tuple[str, JsonObject]:
    name, mark, rest = text.partition(ARGS)
    arguments = json.loads(rest) if mark else None
    if not isinstance(arguments, dict):
        raise ValueError(f"a call needs a name, {ARGS} and an object of arguments")
    return name.strip(), arguments
