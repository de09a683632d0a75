"""Messages as OpenAI's API has them, as chat templates want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UnsupportedError
from .fields import Fields, sound, wrong
from .types import JsonObject

_ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_MESSAGES = 10_000


def take_messages(given: Any) -> list[JsonObject]:
    """Parts of text joined, arguments of calls as objects, developers as the system.
    InvalidArgumentError says which message is wrong; UnsupportedError: it holds no text."""
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
        raise wrong(f"messages must be an array that is not empty, but is {given!r:.60}")
    if len(given) > _MAX_MESSAGES:
        raise wrong(f"messages may hold {_MAX_MESSAGES}, but holds {len(given)}")
    return [_message(one, f"messages[{at}]") for at, one in enumerate(given)]


def _message(given: Any, where: str) -> JsonObject:
    if not isinstance(given, Mapping):
        raise wrong(f"{where} must be an object, but is {given!r:.60}")
    fields = Fields(given, f"{where}.")
    role = fields.text("role")
    if role not in _ROLES:
        raise wrong(f"{where}.role must be one of {', '.join(_ROLES)}, but is {role!r:.60}")
    content = text_of(fields.take("content", (str, list, tuple), "a text or an array"), where)
    message: JsonObject = {"role": "system" if role == "developer" else role}
    if name := fields.text("name"):
        message["name"] = name
    if role == "assistant":
        calls = fields.items("tool_calls")
        if calls:
            message["tool_calls"] = [
                _call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)
            ]
        if reasoning := fields.text("reasoning_content"):
            message["reasoning_content"] = reasoning
        for name in ("refusal", "audio", "annotations", "function_call"):
            if fields.take(name, (str, list, Mapping), "as the API has it"):
                raise wrong(f"{where}.{name} is not supported here")
        content = content or ""
    elif role == "tool":
        if (identity := fields.text("tool_call_id")) is None:
            raise wrong(f"{where}.tool_call_id is missing: it says which call was answered")
        message["tool_call_id"] = identity
    if content is None:
        raise wrong(f"{where}.content is missing")
    fields.end()
    return {**message, "content": content}


def text_of(content: Any, where: str) -> str | None:
    """A text, or the texts of parts, joined; None if there is none."""
    if content is None:
        return None
    if isinstance(content, str):
        return sound(content, f"{where}.content")
    texts = []
    for at, part in enumerate(content):
        place = f"{where}.content[{at}]"
        if not isinstance(part, Mapping):
            raise wrong(f"{place} must be an object, but is {part!r:.60}")
        kind, text = part.get("type"), part.get("text")
        if kind not in ("text", "input_text", "output_text"):
            message = f"{place} is of type {kind!r:.60}; edgellm reads text only"
            raise UnsupportedError(message, code="feature_unsupported")
        if not isinstance(text, str):
            raise wrong(f"{place}.text must be a text, but is {text!r:.60}")
        texts.append(sound(text, place))
    return "".join(texts)


def _call(given: Any, where: str) -> JsonObject:
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping):
        raise wrong(f"{where}.function must be an object")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str):
        raise wrong(f"{where}.function.name must be a text, but is {name!r:.60}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments else {}
        except (ValueError, RecursionError) as error:
            raise wrong(f"{where}.function.arguments is no JSON: {error}") from None
    if not isinstance(arguments, Mapping):
        raise wrong(f"{where}.function.arguments must be an object, but is {arguments!r:.60}")
    identity = given.get("id")
    if identity is not None and not isinstance(identity, str):
        raise wrong(f"{where}.id must be a text, but is {identity!r:.60}")
    call = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
    return call if identity is None else {"id": identity, **call}
