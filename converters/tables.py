"""A table of TOML as a dataclass: its keys are the fields, what is left out has their defaults.

Knows only types: int, float, bool, str, Path, and tuples of one of them, each perhaps None. What
values are good is said by the dataclass, with an InvalidArgumentError.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from edgellm.errors import FormatError, InvalidArgumentError

from .recipe_file import refuse_unknown

T = TypeVar("T")
_MANY = {"Path": "paths", "str": "texts", "bool": "true or false"}


def read_tables(
    value: dict[str, Any],
    cls: type[T],
    path: Path,
    inner: dict[str, type[Any]],
    required: tuple[str, ...] = (),
) -> T:
    """The whole of the file `path`. inner: the fields of `cls` that are tables themselves, of which
    `required` must be there; the field "name" defaults to the file's."""
    tables: dict[str, Any] = {}
    for key, of_table in inner.items():
        if key in value:
            tables[key] = read_table(value[key], of_table, path.parent, f"{path}: [{key}]")
        elif key in required:
            raise FormatError(f"{path}: no [{key}]; add it", code="json_missing_key")
    rest = {key: item for key, item in value.items() if key not in tables}
    rest.setdefault("name", path.stem)
    return read_table(rest, cls, path.parent, str(path), tables)


def read_table(
    value: Any, cls: type[T], base: Path, where: str, tables: dict[str, Any] | None = None
) -> T:
    """base: of relative paths. where: named by errors. tables: fields that are read already.
    FormatError for keys and types; InvalidArgumentError, from `cls`, for values."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: not a table", code="json_type")
    tables = tables or {}
    own = {item.name: item for item in fields(cls) if item.name not in tables}  # type: ignore[arg-type]
    refuse_unknown(value, tuple(own), where)
    for name, item in own.items():
        required = item.default is MISSING and item.default_factory is MISSING
        if required and name not in value:
            raise FormatError(f"{where}: needs '{name}'", code="json_missing_key")
    read = {
        name: _value(item, str(own[name].type), base, f"{where}: '{name}'")
        for name, item in value.items()
    }
    try:
        return cls(**read, **tables)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error}", code=error.code) from error


def _value(value: Any, kind: str, base: Path, where: str) -> Any:
    """A value of TOML as the field's type, which is written as its annotation says."""
    kind = kind.removesuffix(" | None")
    if kind.startswith("tuple["):
        one = kind.removeprefix("tuple[").partition(",")[0]
        if not isinstance(value, list) or not value:
            message = f"{where} must be a list of {_MANY.get(one, 'numbers')}"
            raise FormatError(message, code="json_type")
        return tuple(_value(item, one, base, where) for item in value)
    if kind in ("Path", "str"):
        if not isinstance(value, str) or not value or "\0" in value:
            raise FormatError(f"{where} must be a text", code="json_type")
        return value if kind == "str" else base / value
    if kind == "bool":
        if not isinstance(value, bool):
            raise FormatError(f"{where} must be true or false", code="json_type")
        return value
    wanted = (int, float) if kind == "float" else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise FormatError(f"{where} must be a number", code="json_type")
    return float(value) if kind == "float" else value
