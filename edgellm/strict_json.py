"""A strict JSON reader for headers: RFC 8259 with the limits of native/src/format/json.h.

Beyond the standard library: duplicate keys, NaN and infinities, lone surrogates, integers beyond
64 bits, nesting deeper than 32 and documents of more than 2**20 values are errors, each with its
code. Knows nothing of what the document means.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from .errors import FormatError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

MAX_DEPTH = 32
MAX_VALUES = 1 << 20
_MAX_COMMAS = 1 << 23  # before parsing: bounds memory; commas inside strings count too
_NONZERO_MANTISSA = re.compile(r"^[^eE]*[1-9]")


def parse_json(data: bytes | str, where: str) -> Json:
    """The document in `data`; FormatError with `where` in front of what is wrong."""
    text = data if isinstance(data, str) else _decode(data, where)
    if text.count(",") > _MAX_COMMAS:
        raise FormatError(f"{where}: more than {MAX_VALUES} values", "json_too_large")
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique_object,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_int64,
        )
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}", error.code) from None
    except RecursionError:
        raise FormatError(f"{where}: nested deeper than {MAX_DEPTH}", "json_depth") from None
    except ValueError as error:
        raise FormatError(f"{where}: {error}", "json_syntax") from None
    _check_tree(value, where)
    return value


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not UTF-8 at byte {error.start}", "json_syntax") from None


def _unique_object(pairs: list[tuple[str, Json]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FormatError(f"key {key[:80]!r} appears twice", "json_duplicate_key")
            seen.add(key)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not JSON", "json_syntax")


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value) or (value == 0.0 and _NONZERO_MANTISSA.search(text)):
        raise FormatError(f"number {text[:40]} is out of range", "json_syntax")
    return value


def _int64(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise FormatError(f"integer {text[:40]} does not fit 64 bits", "json_syntax")
    return int(text)


def _check_tree(root: Json, where: str) -> None:
    """Depth, number of values, and strings that cannot be UTF-8 (lone surrogates)."""
    n_values = 0
    pending: list[tuple[Json, int]] = [(root, 0)]
    while pending:
        value, depth = pending.pop()
        n_values += 1
        if isinstance(value, str):
            _check_string(value, where)
        elif isinstance(value, list | dict):
            if depth >= MAX_DEPTH:
                raise FormatError(f"{where}: nested deeper than {MAX_DEPTH}", "json_depth")
            if isinstance(value, dict):
                for key in value:
                    _check_string(key, where)
                pending.extend((item, depth + 1) for item in value.values())
            else:
                pending.extend((item, depth + 1) for item in value)
        if n_values + len(pending) > MAX_VALUES:
            raise FormatError(f"{where}: more than {MAX_VALUES} values", "json_too_large")


def _check_string(text: str, where: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise FormatError(f"{where}: lone surrogate in a string", "json_syntax") from None
