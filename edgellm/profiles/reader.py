"""TOML -> `HardwareProfile`. Every key is checked, unknown ones are refused."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import PurePath
from typing import Any, TypeVar

from ..errors import FormatError
from .schema import (
    ACCELERATOR_BACKENDS,
    BASES,
    KINDS,
    Accelerator,
    Calibration,
    Cpu,
    Defaults,
    Figure,
    HardwareProfile,
    Memory,
    Storage,
    checked_text,
)

Part = TypeVar("Part")
_PARTS: dict[str, type[Any]] = {
    "cpu": Cpu,
    "memory": Memory,
    "storage": Storage,
    "calibration": Calibration,
    "defaults": Defaults,
}
_KEYS = ("name", "title", "kind", "accelerators", *_PARTS)
_MAX_ACCELERATORS = 16
_NEEDED = ("name", "title", "kind")


def parse_profile(data: bytes, where: str) -> HardwareProfile:
    """The profile in a TOML text; FormatError with `where`, the key and what is wrong with it."""
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not TOML: {error}", code="json_syntax") from None
    try:
        return _profile(table, where)
    except ValueError:  # Python writes no integer of more than 4300 digits
        raise FormatError(f"{where}: a number is too long", code="json_type") from None


def _profile(table: Mapping[str, Any], where: str) -> HardwareProfile:
    _refuse_unknown(table, _KEYS, where)
    for key in _NEEDED:
        if key not in table:
            raise FormatError(f"{where}: {key} is missing", code="json_missing_key")
    kind = _one_of(table["kind"], KINDS, f"{where}: kind")
    parts = {
        name: _part(cls, table[name], f"{where}: {name}")
        for name, cls in _PARTS.items()
        if name in table
    }
    return HardwareProfile(
        checked_text(table["name"], f"{where}: name"),
        checked_text(table["title"], f"{where}: title"),
        kind,
        accelerators=_accelerators(table.get("accelerators", []), where),
        **parts,
    )


def _accelerators(value: object, where: str) -> tuple[Accelerator, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ACCELERATORS:
        message = f"{where}: accelerators must be up to {_MAX_ACCELERATORS} tables"
        raise FormatError(message, code="json_type")
    return tuple(
        _part(Accelerator, one, f"{where}: accelerators[{at}]") for at, one in enumerate(value)
    )


def _part(cls: type[Part], table: object, where: str) -> Part:
    if not isinstance(table, dict):
        raise FormatError(f"{where} must be a table", code="json_type")
    known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(table, tuple(known), where)
    for name, one in known.items():
        if one.default is MISSING and name not in table:
            raise FormatError(f"{where}.{name} is missing", code="json_missing_key")
    return cls(**{name: _value(known[name], table[name], f"{where}.{name}") for name in table})


def _value(known: Field[Any], value: object, where: str) -> Any:
    if "figure" in known.metadata:
        return _figure(known.metadata, value, where)
    if "choices" in known.metadata:
        return _one_of(value, known.metadata["choices"], where)
    if "range" in known.metadata:
        return _in_range(value, int, known.metadata["range"], where)
    if known.name == "static_shapes":
        if not isinstance(value, bool):
            raise FormatError(f"{where} must be true or false", code="json_type")
        return value
    if known.name == "backends":
        return _backends(value, where)
    return checked_text(value, where)


def _backends(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or len(value) != len(set(map(str, value))):
        raise FormatError(f"{where} must be a list of different names", code="json_type")
    return tuple(_one_of(one, ("cpu", *ACCELERATOR_BACKENDS), where) for one in value)


def _figure(known: Mapping[str, Any], value: object, where: str) -> Figure[Any]:
    if not isinstance(value, dict):
        message = f"{where} must be {{ value = ..., basis = ..., source = ... }}"
        raise FormatError(message, code="json_type")
    _refuse_unknown(value, ("value", "basis", "source", "report"), where)
    for key in ("value", "basis", "source"):
        if key not in value:
            raise FormatError(f"{where}.{key} is missing", code="json_missing_key")
    basis: Any = _one_of(value["basis"], BASES, f"{where}.basis")
    source = checked_text(value["source"], f"{where}.source")
    if "choices" in known:
        figure: Any = _one_of(value["value"], known["choices"], f"{where}.value")
    else:
        figure = _in_range(value["value"], known["figure"], known["range"], f"{where}.value")
    return Figure(figure, basis, source, _report(value, basis, where))


def _report(value: Mapping[str, object], basis: str, where: str) -> str | None:
    if basis != "measured":
        if "report" in value:
            message = f"{where}.report is for what is measured, but basis is {basis!r}"
            raise FormatError(message, code="json_type")
        return None
    if "report" not in value:
        message = f"{where}.report is missing: what is measured names the report of edgellm bench"
        raise FormatError(message, code="json_missing_key")
    report = checked_text(value["report"], f"{where}.report")
    if report != PurePath(report).name or "\\" in report or not report.endswith(".json"):
        message = f"{where}.report must be the name of a .json file beside the profile"
        raise FormatError(message, code="json_type")
    return report


def _one_of(value: object, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        message = f"{where} is {str(value)!r:.60}; it must be one of {', '.join(known)}"
        raise FormatError(message, code="json_type")
    return str(value)


def _in_range(value: object, kind: type, limits: tuple[Any, Any], where: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or (kind is int and not isinstance(value, int)):
        wanted = "a whole number" if kind is int else "a number"
        raise FormatError(f"{where} must be {wanted}", code="json_type")
    low, high = limits
    if not (low <= value <= high) or math.isnan(value):  # type: ignore[arg-type]
        raise FormatError(f"{where} must be in {low}..{high}, but is {value}", code="json_type")
    return kind(value)


def _refuse_unknown(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            message = f"{where}: unknown key {key!r:.60}; {hint}known: {', '.join(known)}"
            raise FormatError(message, code="json_unknown_key")
