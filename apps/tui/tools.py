"""What a model may call when the user turns tools on: nothing that changes anything or leaves this
machine, and each call only after the user has said yes."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .messages import Call

_MAX_BYTES = 32 << 10
_MAX_NAMES = 200
_MAX_DIGITS = 4000
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Tool:
    """A function of text arguments. `run` raises ValueError or OSError with the reason."""

    name: str
    description: str
    arguments: Mapping[str, str]
    run: Callable[..., str]

    @property
    def definition(self) -> dict[str, Any]:
        """As chat templates want it."""
        properties = {
            name: {"type": "string", "description": text} for name, text in self.arguments.items()
        }
        parameters = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def toolbox(folder: Path) -> dict[str, Tool]:
    """By name. Files are those in `folder` and below, whatever links say."""
    root = folder.resolve()

    def inside(path: str) -> Path:
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise ValueError(f"{path} is not in {root}")
        return found

    def read_file(path: str) -> str:
        found = inside(path)
        if not found.is_file():  # a pipe would wait for a writer
            raise ValueError(f"{path} is no file")
        with found.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data[:_MAX_BYTES].decode("utf-8", "replace")
        return text + ("\n[cut after 32 KiB]" if len(data) > _MAX_BYTES else "")

    def list_files(path: str) -> str:
        entries = sorted(inside(path or ".").iterdir())
        names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:_MAX_NAMES]]
        more = len(entries) - len(names)
        return "\n".join([*names, *([f"[{more} more]"] if more else [])]) or "[empty]"

    path = {"path": f"A path in {root.name or root}, relative."}
    tools = (
        Tool("current_time", "The local date and time.", {}, lambda: _now()),
        Tool("calculate", "Arithmetic.", {"expression": "As 2 * (3 + 4) / 5."}, calculate),
        Tool("read_file", "The text of a file.", path, read_file),
        Tool("list_files", "The names in a folder.", path, list_files),
    )
    return {tool.name: tool for tool in tools}


def run(call: Call, tools: Mapping[str, Tool]) -> str:
    """What the model is told: the result, or why there is none."""
    tool = tools.get(call.name)
    if tool is None:
        return f"error: there is no function {call.name!r:.80}"
    if call.arguments.keys() != tool.arguments.keys():
        return f"error: {tool.name} takes {', '.join(tool.arguments) or 'no arguments'}"
    if not all(isinstance(value, str) for value in call.arguments.values()):
        return f"error: arguments of {tool.name} are texts"
    try:
        return tool.run(**call.arguments)
    except (ValueError, OSError) as error:
        return f"error: {error}"


def described(call: Call) -> str:
    """The call as it will be run, for the user who is asked."""
    return f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)[1:-1]})"


def calculate(expression: str) -> str:
    """The value of + - * / // % and brackets over numbers. ValueError: anything else."""
    if len(expression) > 500:
        raise ValueError("an expression has at most 500 characters")
    try:
        return str(_value(ast.parse(expression, mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r:.80} is no arithmetic") from None
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _value(node: ast.AST) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left), _value(right)))
    raise ValueError("only numbers, + - * / // % and brackets")


def _bounded(number: int | float) -> int | float:
    if isinstance(number, int) and number.bit_length() > 3 * _MAX_DIGITS:
        raise ValueError("the number is too large")
    return number


def _now() -> str:
    return datetime.now().astimezone().strftime("%A, %Y-%m-%d %H:%M:%S %Z")
