"""The tools of a request: checked definitions, and which of them an answer may or must call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..placeholders import plain_data
from ..response_format import schema_text
from .fields import Fields, sound, wrong
from .types import JsonObject

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class Tool:
    """A function: its name, the JSON schema of its arguments as JSON, and whether what cannot be
    enforced of it is refused (`strict`) or left out. `definition`: as templates want it."""

    name: str
    schema: str
    strict: bool
    definition: JsonObject


@dataclass(frozen=True)
class ToolChoice:
    """The tools that a template is to show, those of them that may be called, whether one must be,
    and whether several may be in one answer."""

    shown: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    must: bool
    parallel: bool

    @property
    def definitions(self) -> list[JsonObject]:
        """For the template."""
        return [tool.definition for tool in self.shown]


def take_tools(fields: Fields) -> ToolChoice | None:
    """`tools`, `tool_choice` and `parallel_tool_calls`; None where nothing may be called.
    InvalidArgumentError says which tool is wrong."""
    given = fields.items("tools") or []
    choice = fields.take("tool_choice", (str, Mapping), "'none', 'auto', 'required' or an object")
    parallel = fields.flag("parallel_tool_calls")
    if len(given) > MAX_TOOLS:
        raise wrong(f"tools may hold {MAX_TOOLS} functions, but holds {len(given)}")
    tools = tuple(_tool(value, f"tools[{at}]") for at, value in enumerate(given))
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise wrong(f"tools must have names of their own, but are {', '.join(names):.200}")
    if not tools:
        if choice not in (None, "none", "auto"):
            raise wrong("tool_choice needs tools")
        return None
    mode, name = _choice(choice)
    if mode == "none":
        return None
    if name is not None and name not in names:
        raise wrong(f"tool_choice names {name!r:.80}, but tools are {', '.join(names):.200}")
    callable_ = tools if name is None else tuple(tool for tool in tools if tool.name == name)
    return ToolChoice(tools, callable_, mode == "required", parallel is not False)


def _choice(
    choice: str | Mapping[str, Any] | None,
) -> tuple[Literal["none", "auto", "required"], str | None]:
    if choice is None or choice == "auto":
        return "auto", None
    if choice == "none":
        return "none", None
    if choice == "required":
        return "required", None
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        if choice.get("type") == "function" and isinstance(name, str):
            return "required", name
    raise wrong(
        "tool_choice must be 'none', 'auto', 'required' or "
        f'{{"type": "function", "function": {{"name": ...}}}}, but is {choice!r:.80}'
    )


def _tool(value: Any, where: str) -> Tool:
    if not isinstance(value, Mapping) or value.get("type") != "function":
        raise wrong(f'{where} must be an object of type "function"')
    function = value.get("function")
    if not isinstance(function, Mapping):
        raise wrong(f"{where}.function must be an object")
    fields = Fields(function, f"{where}.function.")
    name = fields.text("name")
    fields.text("description")
    schema = fields.mapping("parameters")
    strict = fields.flag("strict")
    fields.end()
    if name is None or not _NAME.fullmatch(name):
        raise wrong(
            f"{where}.function.name must be 1..64 letters, digits, '_', '-' or '.', but is "
            f"{name!r:.80}"
        )
    text = schema_text({"schema": _NO_ARGUMENTS if schema is None else _of_object(schema, where)})
    told = {key: item for key, item in function.items() if item is not None and key != "strict"}
    shown = plain_data({**told, "parameters": told.get("parameters", _NO_ARGUMENTS)}, where)
    sound(text, where)
    return Tool(name, text, strict is True, {"type": "function", "function": shown})


def _of_object(schema: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    kind = schema.get("type", "object")
    if kind != "object":
        raise wrong(f"{where}.function.parameters must be of type object, but is {kind!r:.60}")
    return {**schema, "type": "object"}
