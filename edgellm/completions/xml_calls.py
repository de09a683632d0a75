"""Tool calls as Qwen3-Coder writes them: a tag for the function, and one for each argument.

    <function=weather>
    <parameter=city>
    Oslo
    </parameter>
    </function>

Arguments that the schema calls texts stand there as they are, over several lines, too; others as
JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedError
from .types import JsonObject

_FUNCTION, _FUNCTION_END = re.compile(r"<function=([^>\n]+)>\s*"), "</function>"
_PARAMETER, _PARAMETER_END = re.compile(r"<parameter=([^>\n]+)>\n?"), "</parameter>"
_SPACE = re.compile(r"\s*")
_BETWEEN = re.compile(r"(?:\s|</?tool_call>)*")
# What a grammar of plain text can keep of a schema of texts, and what says nothing about the text.
_KEPT = {"type", "enum", "const", "minLength", "maxLength"}
_REMARKS = {"title", "description", "default", "examples", "deprecated", "$comment"}
_MAX_REFS = 16  # of which one leads to the next


def call_rules(
    rule: str, name: str, schema: JsonObject, style: JsonObject, *, strict: bool
) -> list[str]:
    """Rules of a grammar for one call: required arguments first, in the order of the schema.
    UnsupportedError: a schema that cannot be kept, where `strict`, or a name that no tag holds."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    properties = _object(schema.get("properties"))
    names = schema.get("required")
    names = [key for key in names if isinstance(key, str)] if isinstance(names, list) else []
    required = [key for key in names if key in properties]
    optional = [key for key in properties if key not in required]
    lines, arguments = [], []
    for at, key in enumerate((*required, *optional)):
        if not _PARAMETER.fullmatch(f"<parameter={key}>"):
            raise _refused(f"an argument {key!r:.60} fits in no tag")
        begin, end = json.dumps(f"<parameter={key}>\n"), json.dumps(f"\n{_PARAMETER_END}")
        text = text_schema(properties[key], schema)
        if text is None:
            value = json.dumps({"x-guidance": style, **shared, **_object(properties[key])})
            lines.append(f'{rule}a{at}: {begin} %json {value} {end} "\\n"')
        else:
            lines.append(f'{rule}a{at}: {begin} {rule}t{at} "\\n"')
            lines += _text_rules(f"{rule}t{at}", text, end, key if strict else None)
        arguments.append(f"{rule}a{at}" + ("" if key in required else "?"))
    head, tail = json.dumps(f"<function={name}>\n"), json.dumps(_FUNCTION_END)
    return [" ".join((f"{rule}:", head, *arguments, tail)), *lines]


def _text_rules(rule: str, schema: JsonObject, end: str, strict_key: str | None) -> list[str]:
    """A text up to `end`, which it cannot hold. strict_key: the argument, if all of the schema must
    be kept."""
    unkept = schema.keys() - _KEPT - _REMARKS
    if unkept and strict_key is not None:
        names = ", ".join(sorted(unkept))
        raise _refused(f"{names} of the argument {strict_key!r:.60} cannot be enforced in a text")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        if any(_PARAMETER_END in value for value in values):
            raise _refused(f"a value holds {_PARAMETER_END}, which ends every argument")
        return [f"{rule}: ({' | '.join(map(json.dumps, values))}) {end}"]
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if not all(isinstance(n, int) and n >= 0 for n in (least, most or 0)):
        raise _refused("minLength and maxLength of an argument must be whole numbers")
    name = rule.upper()
    return [f"{rule}[lazy]: {name} {end}", f"{name}: /(.|\\n){{{least},{most}}}/"]


def text_schema(schema: Any, root: Mapping[str, Any]) -> JsonObject | None:
    """The schema of an argument that is a text and nothing else, None if it may be more."""
    found = _object(schema)
    for _ in range(_MAX_REFS):
        reference = found.get("$ref")
        if not isinstance(reference, str):
            break
        place, _, name = reference.removeprefix("#/").partition("/")
        rest = {key: value for key, value in found.items() if key != "$ref"}
        found = {**_object(_object(root.get(place)).get(name)), **rest}
    values = [found["const"]] if "const" in found else found.get("enum")
    if values:
        return found if all(isinstance(value, str) for value in values) else None
    return found if found.get("type") == "string" else None


def parse_calls(text: str, schemas: Mapping[str, JsonObject]) -> list[tuple[str, JsonObject]]:
    """Names and arguments of the calls in `text`, `schemas` being those of the functions;
    ValueError says what is not one."""
    calls: list[tuple[str, JsonObject]] = []
    at = _after(_BETWEEN, text, 0)
    while at < len(text):
        head = _FUNCTION.match(text, at)
        if head is None:
            raise ValueError(f"{text[at : at + 20]!r} is no <function=...>")
        arguments, at = _arguments(text, head.end(), schemas.get(head[1], {}))
        calls.append((head[1], arguments))
        at = _after(_BETWEEN, text, at)
    return calls


def _arguments(text: str, at: int, schema: JsonObject) -> tuple[JsonObject, int]:
    properties = _object(schema.get("properties"))
    arguments: JsonObject = {}
    while not text.startswith(_FUNCTION_END, at):
        head = _PARAMETER.match(text, at)
        if head is None:
            raise ValueError(f"{text[at : at + 20]!r} is no <parameter=...>")
        n_break = len(head[0]) - len(head[0].rstrip("\n"))  # a value on lines of its own ends so
        mark = "\n" * n_break + _PARAMETER_END
        end = text.find(mark, head.end() - n_break)
        if end < 0:
            raise ValueError(f"the argument {head[1]!r:.60} has no end")
        key, value = head[1], text[head.end() : end]
        if key in arguments:
            raise ValueError(f"the argument {key!r:.60} is there twice")
        is_text = text_schema(properties.get(key), schema) is not None
        arguments[key] = value if is_text else _json(value, is_known=key in properties)
        at = _after(_SPACE, text, end + len(mark))
    return arguments, at + len(_FUNCTION_END)


def _json(value: str, *, is_known: bool) -> Any:
    """Of an argument that the schema does not name, text that is no JSON is a text."""
    try:
        return json.loads(value)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError:
        if is_known:
            raise ValueError(f"{value!r:.60} is no JSON") from None
        return value


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _refused(message: str) -> UnsupportedError:
    return UnsupportedError(f"tool calls of this model: {message}", code="feature_unsupported")
