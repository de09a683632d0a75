"""What shape an answer must have: `response_format=` of a text, checked before any work.

Knows no tokens and no model; `grammar.py` makes a constraint of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from .errors import InvalidArgumentError

Kind = Literal["json_schema", "regex", "grammar"]
# What a caller of a server may send: deeper or longer schemas are refused before they are read.
MAX_BYTES = 1 << 18
MAX_DEPTH = 64
_MAX_GRAMMAR_BYTES = 1 << 15
_MAX_PATTERN_BYTES = 1 << 12
_MAX_PATTERN_PROPERTIES = 32  # of one object: they are compared with each other
_FIELDS: dict[str, tuple[str, ...]] = {
    "text": (),
    "json_object": ("finish",),
    "json_schema": ("json_schema", "schema", "strict", "finish"),
    "regex": ("regex", "finish"),
    "grammar": ("grammar", "finish"),
}


@dataclass(frozen=True)
class ResponseFormat:
    """`text`: a JSON schema as JSON, a regular expression, or a Lark grammar.

    `strict`: refuse what no grammar can enforce; else leave it out, and an answer may break it.
    `finish`: bring the answer to an end within max_tokens (docs/STRUCTURED.md).
    """

    kind: Kind
    text: str
    strict: bool = True
    finish: bool = True

    @classmethod
    def of(cls, value: Mapping[str, Any] | ResponseFormat | None) -> ResponseFormat | None:
        """From the mapping that OpenAI's API takes; None for plain text.

        {"type": "json_schema", "json_schema": {"schema": {...}, "strict": True}}, or "schema" and
        "strict" beside "type"; {"type": "json_object"}; {"type": "regex", "regex": "..."};
        {"type": "grammar", "grammar": "..."}, in Lark; {"type": "text"}. InvalidArgumentError.
        """
        if value is None or isinstance(value, ResponseFormat):
            return value
        if not isinstance(value, Mapping):
            raise _fail(f"must be a mapping with a type, but is {type(value).__name__}")
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _FIELDS:
            raise _fail(f"has type {kind!r}; known are {', '.join(_FIELDS)}")
        unknown = [str(name) for name in value if name not in ("type", *_FIELDS[kind])]
        if unknown:
            raise _fail(f"of type {kind} holds {unknown[0]!r}; it may hold {_FIELDS[kind]}")
        finish = _flag(value, "finish")
        if kind == "text":
            return None
        if kind == "json_object":
            return cls("json_schema", '{"type": "object"}', finish=finish)
        if kind == "json_schema":
            inner = value.get("json_schema", value)
            if not isinstance(inner, Mapping):
                raise _fail(f"json_schema must be a mapping, but is {type(inner).__name__}")
            return cls("json_schema", schema_text(inner), _flag(inner, "strict"), finish)
        most = _MAX_PATTERN_BYTES if kind == "regex" else _MAX_GRAMMAR_BYTES
        return cls(cast("Kind", kind), _checked(value.get(kind), kind, most), finish=finish)


def schema_text(inner: Mapping[str, Any]) -> str:
    """The schema in `inner`, as JSON."""
    schema = inner.get("schema")
    if not isinstance(schema, Mapping | bool):
        raise _fail(f"schema must be a JSON schema, an object, but is {type(schema).__name__}")
    _check_parts(schema)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _fail(f"schema is no JSON: {error}") from None
    return _checked(text, "schema")


def parse_schema(text: str, where: str) -> dict[str, Any]:
    """The JSON schema in a file's text. InvalidArgumentError, with `where` in front."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidArgumentError(f"{where}: no JSON: {what}", code="invalid_argument") from None
    if not isinstance(schema, dict):
        message = f"{where}: a JSON schema is an object, not {type(schema).__name__}"
        raise InvalidArgumentError(message, code="invalid_argument")
    return schema


def _check_parts(schema: object) -> None:
    """Depth and patterns, without recursion of its own."""
    level: list[tuple[object, str]] = [(schema, "#")]
    for _ in range(MAX_DEPTH + 1):
        for value, where in level:
            _check_patterns(value, where)
        level = [
            (item, f"{where}/{name}")
            for value, where in level
            for name, item in _members(value)
            if isinstance(item, Mapping | list | tuple)
        ]
        if not level:
            return
    where = level[0][1]
    raise _fail(f"schema is nested deeper than {MAX_DEPTH} levels at {where[:60]}...")


def _check_patterns(value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        return
    pattern = value.get("pattern")
    if isinstance(pattern, str):
        _checked(pattern or ".", f"pattern at {where[:60]}", _MAX_PATTERN_BYTES)
    patterns = value.get("patternProperties")
    if isinstance(patterns, Mapping) and len(patterns) > _MAX_PATTERN_PROPERTIES:
        raise _fail(
            f"schema has {len(patterns)} patternProperties at {where[:60]}; there may be "
            f"{_MAX_PATTERN_PROPERTIES}"
        )


def _members(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _checked(text: object, name: str, most: int = MAX_BYTES) -> str:
    if not isinstance(text, str) or not text:
        raise _fail(f"{name} must be a text that is not empty, but is {text!r:.60}")
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise _fail(f"{name} holds half of a surrogate pair at character {error.start}") from None
    if n_bytes > most:
        raise _fail(f"{name} may have {most} bytes, but has {n_bytes}")
    return text


def _flag(value: Mapping[str, Any], name: str) -> bool:
    flag = value.get(name, True)
    if flag is None:  # as OpenAI's clients send what was not said
        return True
    if not isinstance(flag, bool):
        raise _fail(f"{name} must be true or false, but is {flag!r:.60}")
    return flag


def _fail(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"response_format {message}", code="invalid_argument")
