"""Tool calls that look like Python: `[weather(city="Oslo", days=2), now()]`."""

from __future__ import annotations

import ast
import json
from typing import Any

from .types import JsonObject

# As models write them beside Python's own.
_NAMES = {"true": True, "false": False, "null": None}


def call_rules(rule: str, name: str, schema: JsonObject, style: JsonObject) -> list[str]:
    """Rules of a grammar for one call, whose values are JSON, which Python reads but for three
    names. Required arguments come first, in the order of the schema; each has its own."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    properties: dict[str, Any] = dict(schema.get("properties") or {})
    required = [key for key in schema.get("required") or [] if key in properties]
    optional = [key for key in properties if key not in required]
    order = [key for key in (*required, *optional) if key.isidentifier()]
    lines = []
    for at, key in enumerate(order):
        own = properties[key] if isinstance(properties[key], dict) else {}
        value = json.dumps({"x-guidance": style, **shared, **own})
        lines.append(f"{rule}a{at}: {json.dumps(key + '=')} %json {value}")
    # {rule}m{at}: the arguments from `at` on, after another; {rule}s{at}: as the first ones.
    n = len(order)
    for at in range(n):
        item = f"{rule}a{at} {rule}m{at + 1}"
        is_required = order[at] in required
        lines.append(f'{rule}m{at}: ", " {item}' + ("" if is_required else f" | {rule}m{at + 1}"))
        lines.append(f"{rule}s{at}: {item}" + ("" if is_required else f" | {rule}s{at + 1}"))
    lines += [f'{rule}m{n}: ""', f'{rule}s{n}: ""']
    return [f'{rule}: {json.dumps(name + "(")} {rule}s0 ")"', *lines]


def parse_calls(text: str) -> list[tuple[str, JsonObject]]:
    """Names and arguments of the calls in `text`; ValueError says what is not one."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no list of calls: {error}") from None
    calls = tree.elts if isinstance(tree, ast.List) else [tree]
    return [_call(call) for call in calls]


def _call(call: ast.expr) -> tuple[str, JsonObject]:
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError("a call must be name(argument=value)")
    arguments = {}
    for argument in call.keywords:
        if argument.arg is None:
            raise ValueError("a call must name its arguments")
        arguments[argument.arg] = _value(argument.value)
    return ast.unparse(call.func), arguments


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(k): _value(v) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    raise ValueError(f"{ast.unparse(node):.60} is no plain value")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("keys must be texts")
