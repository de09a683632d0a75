"""Recipes written by people: TOML -> Recipe. Every key is checked, unknown ones are refused.

name = "mixed"
[calibration]
n_windows = 128
window_tokens = 512
[[rules]]
pattern = "ffn_down"
format = "E6_16"
method = "gptq"
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edgellm.durable import write_whole
from edgellm.errors import EdgeError, FormatError
from edgellm.small_files import read_small

from .quant import quant_format
from .quant.methods import METHODS, STARTS, Method, parameter_names
from .recipe import AUTO_ACT, RTN, CalibrationOptions, Recipe, Rule, matrix_rule, vector_rules

MAX_RECIPE_BYTES = 1 << 20
_RULE_TEXTS = ("pattern", "format", "act", "method", "start", "scale")
_METHOD_NUMBERS = {field.name for field in fields(Method)} - {"name", "start"}
_KV_CHOICES = ("rotate_values", "rotate_keys", "balance_keys")
_REAL_NUMBERS = ("damping", "drift", "reach", "act_kl")


def read_recipe(path: Path) -> Recipe:
    """FormatError with the file and what is wrong in it; the name defaults to the file's."""
    value = read_toml(path)
    refuse_unknown(value, ("name", "calibration", "rules", *_KV_CHOICES), str(path))
    name = _text(value, "name", str(path)) or path.stem
    rules = value.get("rules")
    if not isinstance(rules, list) or not rules:
        raise FormatError(f"{path}: no [[rules]]; add at least one", code="json_missing_key")
    calibration = _calibration(value.get("calibration", {}), f"{path}: calibration")
    matrix_rules = [
        _rule(entry, f"{path}: rule {index}") for index, entry in enumerate(rules, start=1)
    ]
    choices = {key: _boolean(value, key, str(path)) for key in _KV_CHOICES if key in value}
    return Recipe(name, (*vector_rules(), *matrix_rules), calibration, **choices)


def recipe_toml(recipe: Recipe) -> str:
    """What read_recipe() reads as this recipe. Rules for vectors are left out: all have them."""
    lines = [f"name = {_quoted(recipe.name)}"]
    if recipe.rotate_values:
        lines.append("rotate_values = true")
    for key, choice in (
        ("rotate_keys", recipe.rotate_keys),
        ("balance_keys", recipe.balance_keys),
    ):
        if choice is not None:
            lines.append(f"{key} = {json.dumps(choice)}")
    lines += ["", "[calibration]"]
    lines += [f"{key} = {value}" for key, value in asdict(recipe.calibration).items()]
    for rule in recipe.rules:
        if rule in vector_rules():
            continue
        lines += ["", "[[rules]]", f"pattern = {_quoted(rule.pattern)}"]
        lines.append(f"format = {_quoted(rule.format)}")
        assert rule.act is not None  # only vectors have none
        if rule.act != quant_format(rule.format).default_act:
            lines.append(f"act = {_quoted(rule.act)}")
        if rule.act == AUTO_ACT:
            lines.append(f"act_kl = {rule.act_kl}")
        if rule.scale is not None:
            lines.append(f"scale = {_quoted(rule.scale)}")
        if rule.method != RTN:
            lines.append(f"method = {_quoted(rule.method.name)}")
            default = Method(rule.method.name)
            for key, value in rule.method.parameters.items():
                if value != getattr(default, key):
                    text = _quoted(value) if isinstance(value, str) else value
                    lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Whole or not at all. FormatError where it cannot be written."""
    write_whole(path, recipe_toml(recipe))


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """A file of at most MAX_RECIPE_BYTES. FormatError says what is wrong with it."""
    data = read_small(path, MAX_RECIPE_BYTES)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: not TOML: {error}", code="json_syntax") from error


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: not a table", code="json_type")
    refuse_unknown(entry, (*_RULE_TEXTS, "act_kl", *sorted(_METHOD_NUMBERS)), where)
    texts = {key: _text(entry, key, where) for key in _RULE_TEXTS}
    pattern, format = texts["pattern"], texts["format"]
    if pattern is None or format is None:
        raise FormatError(f"{where}: needs 'pattern' and 'format'", code="json_missing_key")
    try:
        method = _method(entry, texts, where)
        act_kl = _number(entry, "act_kl", where) if "act_kl" in entry else None
        return matrix_rule(pattern, format, texts["act"], method, texts["scale"], act_kl)
    except EdgeError as error:
        raise type(error)(f"{where}: {error}", code=error.code) from error


def _method(entry: dict[str, Any], texts: dict[str, str | None], where: str) -> Method:
    name, start = texts["method"] or "rtn", texts["start"] or Method.start
    parameters = {key: _number(entry, key, where) for key in _METHOD_NUMBERS if key in entry}
    if texts["start"] is not None:
        parameters["start"] = start
    if name in METHODS and start in STARTS:
        foreign = sorted(set(parameters) - set(parameter_names(name, start)))
        if foreign:
            raise FormatError(
                f"{where}: method '{name}' takes no {', '.join(foreign)}", code="json_unknown_key"
            )
    return Method(name=name, **parameters)


def _calibration(value: Any, where: str) -> CalibrationOptions:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: not a table", code="json_type")
    refuse_unknown(value, ("n_windows", "window_tokens"), where)
    numbers = {key: _number(value, key, where) for key in value}
    try:
        return CalibrationOptions(**numbers)
    except EdgeError as error:
        raise type(error)(f"{where}: {error}", code=error.code) from error


def refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """FormatError that names the keys that are not known, and those that are."""
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise FormatError(
            f"{where}: {', '.join(map(repr, unknown))} not known (known: {', '.join(known)})",
            code="json_unknown_key",
        )


def _text(table: dict[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise FormatError(f"{where}: '{key}' must be a text", code="json_type")
    return value


def _boolean(table: dict[str, Any], key: str, where: str) -> bool:
    value = table[key]
    if not isinstance(value, bool):
        raise FormatError(f"{where}: '{key}' must be true or false", code="json_type")
    return value


def _number(table: dict[str, Any], key: str, where: str) -> Any:
    value = table[key]
    wanted = (int, float) if key in _REAL_NUMBERS else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise FormatError(f"{where}: '{key}' must be a number", code="json_type")
    return value
