"""What can be proved of JSON schemas: that no document satisfies two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TYPES = frozenset(["null", "boolean", "object", "array", "number", "integer", "string"])
_MAX_DEPTH = 6  # of references and properties that a proof follows
_MAX_BRANCHES = 32


class Facts:
    """About schemas within `root`, to which their references go."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def resolved(self, schema: Any) -> Any:
        """`schema`, or what its `$ref` names; as it is where that is not in the document."""
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            target = _at(self._root, reference[1:])
            if target is None:
                return schema
            schema = target
        return schema

    def are_apart(self, a: Any, b: Any, depth: int = 0) -> bool:
        """No document satisfies both. False: not proved."""
        if a is False or b is False:
            return True
        a, b = self.resolved(a), self.resolved(b)
        if depth > _MAX_DEPTH or not isinstance(a, Mapping) or not isinstance(b, Mapping):
            return False
        for one, other in ((a, b), (b, a)):
            for keyword in ("anyOf", "oneOf"):
                parts = one.get(keyword)
                if not isinstance(parts, list) or not 0 < len(parts) <= _MAX_BRANCHES:
                    continue
                if all(self.are_apart(part, other, depth + 1) for part in parts):
                    return True
        if not _types(a) & _types(b):
            return True
        return self._no_value(a, b) or self._no_object(a, b, depth)

    def _no_value(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        values = _values(a)
        if values is None:
            values, a, b = _values(b), b, a
        if values is None:
            return False
        return not any(_may_be(value, b) for value in values)

    def _no_object(self, a: Mapping[str, Any], b: Mapping[str, Any], depth: int) -> bool:
        """Both are objects only, and one requires a property that the other cannot have so."""
        if _types(a) & _types(b) != {"object"}:
            return False
        return any(
            self.are_apart(_property(a, name), _property(b, name), depth + 1)
            for name in {*_required(a), *_required(b)}
        )


def excluding(schema: Any, other: Any) -> dict[str, Any] | None:
    """Of the documents of `schema` the objects that lack a property which `other` requires and
    `schema` does not, so that none satisfies `other`. None: there is no such property."""
    if not isinstance(schema, Mapping) or not isinstance(other, Mapping) or "$ref" in schema:
        return None
    name = next((name for name in _required(other) if name not in _required(schema)), None)
    if name is None or "object" not in _types(schema):
        return None
    properties = {**schema.get("properties", {}), name: False}
    return {**schema, "type": "object", "properties": properties}


def _at(root: Any, pointer: str) -> Any:
    value = root
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """That its documents may have, "number" for whole ones too."""
    named = schema.get("type")
    values = _values(schema)
    if isinstance(named, str):
        found = frozenset([named])
    elif isinstance(named, list):
        found = frozenset(one for one in named if isinstance(one, str))
    elif values is not None:
        found = frozenset(_type_of(value) for value in values)
    else:
        found = _TYPES
    return found | {"integer"} if "number" in found else found


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    """All that it allows at most, where it lists them."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None


def _may_be(value: Any, schema: Mapping[str, Any]) -> bool:
    listed = _values(schema)
    if listed is not None:
        return any(_type_of(value) == _type_of(one) and value == one for one in listed)
    kind = _type_of(value)
    if kind not in _types(schema) and not (kind == "number" and "integer" in _types(schema)):
        return False
    pattern = schema.get("pattern")
    if not isinstance(value, str) or not isinstance(pattern, str) or not _is_plain(pattern):
        return True
    return re.search(pattern, value) is not None


def _is_plain(pattern: str) -> bool:
    """A regular expression that cannot take long: characters and sets with one repeat at most."""
    return len(pattern) < 200 and re.fullmatch(r"[\w^$\[\]\-\\.: /]*[*+]?\$?", pattern) is not None


def _required(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _property(schema: Mapping[str, Any], name: str) -> Any:
    """What it says of a property; False where it cannot be there."""
    known = schema.get("properties")
    if isinstance(known, Mapping) and name in known:
        return known[name]
    if "patternProperties" in schema:
        return True
    return schema.get("additionalProperties", True)
