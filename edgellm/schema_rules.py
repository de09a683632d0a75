"""JSON schemas rewritten so that a grammar can enforce them: what comes out allows the same
documents or fewer, never another one.

A grammar cannot look back. Where a keyword compares parts of a document (`oneOf`, `not`, `if`,
`dependencies`, `propertyNames`, `uniqueItems`), the schema is narrowed to documents that satisfy
it whatever the other parts are. What cannot be said like that stays, and llguidance refuses it by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .constraint import grammar_error
from .schema_facts import Facts, excluding

Schema = dict[str, Any]
# Formats that llguidance knows; others only describe, as JSON Schema has it.
_FORMATS = frozenset(
    [
        "date",
        "time",
        "date-time",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
        "uri",
        "unknown",
    ]
)
_NAME_KEYWORDS = frozenset(["type", "enum", "pattern", "title", "description", "$comment"])
# Where fewer documents within mean fewer in all; so not oneOf, not, if, propertyNames, contains.
_ONE_SCHEMA = frozenset(
    [
        "items",
        "additionalItems",
        "additionalProperties",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_LIST_OF_SCHEMAS = frozenset(["anyOf", "allOf", "prefixItems", "items"])
_NAMED_SCHEMAS = frozenset(["properties", "patternProperties", "$defs", "definitions"])


def enforceable(schema: Any) -> Any:
    """`schema`, which stays as it is, rewritten."""
    return _Rewriter(schema).of(schema)


class _Rewriter:
    def __init__(self, root: Any) -> None:
        self._facts = Facts(root)

    def of(self, schema: Any) -> Any:
        """The keywords of this schema first: they compare inner schemas as they were."""
        if not isinstance(schema, Mapping):
            return schema
        done = dict(schema)
        for rule in _RULES:
            rule(done, self._facts)
        return {name: self._member(name, value) for name, value in done.items()}

    def _member(self, name: str, value: Any) -> Any:
        if name in _NAMED_SCHEMAS and isinstance(value, Mapping):
            return {key: self.of(item) for key, item in value.items()}
        if name in _LIST_OF_SCHEMAS and isinstance(value, list):
            return [self.of(item) for item in value]
        return self.of(value) if name in _ONE_SCHEMA else value


def _format(schema: Schema, _: Facts) -> None:
    """Exact: an unknown format asserts nothing."""
    if isinstance(schema.get("format"), str) and schema["format"] not in _FORMATS:
        del schema["format"]


def _one_of(schema: Schema, facts: Facts) -> None:
    """Narrower: those branches that no other one can be true beside."""
    branches = schema.get("oneOf")
    if not isinstance(branches, list) or not branches:
        return
    if "anyOf" in schema:
        schema["allOf"] = [*schema.get("allOf", ()), {"anyOf": schema["anyOf"]}]
    apart = []
    for at, branch in enumerate(branches):
        others = branches[:at] + branches[at + 1 :]
        alone = _apart_from(branch, others, facts)
        if alone is not None:
            apart.append(alone)
    if not apart:
        message = "oneOf constraints are not supported where no branch excludes all others"
        raise grammar_error(message, "as json schema")
    del schema["oneOf"]
    schema["anyOf"] = apart


def _apart_from(branch: Any, others: list[Any], facts: Facts) -> Any | None:
    """`branch` or a part of it that none of the others holds for."""
    for other in others:
        if facts.are_apart(branch, other):
            continue
        narrower = excluding(branch, facts.resolved(other))
        if narrower is None:
            return None
        branch = narrower
    return branch


def _not(schema: Schema, facts: Facts) -> None:
    """Exact where what is not allowed is apart anyway, or is that a property is there."""
    banned = schema.get("not")
    if not isinstance(banned, Mapping):
        return
    rest = {name: value for name, value in schema.items() if name != "not"}
    narrower = rest if facts.are_apart(rest, banned) else excluding(rest, banned)
    if narrower is not None:
        schema.clear()
        schema.update(narrower)


def _if(schema: Schema, _: Facts) -> None:
    """Narrower: what follows from the condition holds always, and where nothing does but something
    follows from its opposite, that."""
    if "if" not in schema:
        return
    wanted = [schema[name] for name in ("then", "else") if name in schema]
    for name in ("if", "then", "else"):
        schema.pop(name, None)
    if wanted:
        schema["allOf"] = [*schema.get("allOf", ()), *wanted]


def _dependencies(schema: Schema, _: Facts) -> None:
    """Narrower: properties with dependencies that a document need not have are left out; others'
    dependencies are required."""
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        dependencies = schema.get(keyword)
        if not isinstance(dependencies, Mapping):
            continue
        del schema[keyword]
        for name, needed in dependencies.items():
            required = schema.get("required", [])
            if name not in required:
                schema["properties"] = {**schema.get("properties", {}), name: False}
            elif isinstance(needed, list):
                schema["required"] = [*required, *(one for one in needed if one not in required)]
            else:
                schema["allOf"] = [*schema.get("allOf", ()), needed]


def _property_names(schema: Schema, facts: Facts) -> None:
    """Narrower: with a pattern, further properties have names of it; with a list, only those."""
    names = schema.get("propertyNames")
    if names is None or "patternProperties" in schema:
        return
    rule = facts.resolved(names)
    if not isinstance(rule, Mapping):
        return
    branches = rule.get("anyOf", [rule])
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    for branch in branches if set(rule) <= {"anyOf", *_NAME_KEYWORDS} else ():
        inner = facts.resolved(branch)
        if not isinstance(inner, Mapping) or not _NAME_KEYWORDS.issuperset(inner):
            continue
        if {"enum", "pattern"} <= inner.keys():
            continue
        if isinstance(inner.get("enum"), list):
            listed = [name for name in inner["enum"] if isinstance(name, str)]
            schema["properties"] = {
                **{name: value for name, value in known.items() if name in listed},
                **{name: more for name in listed if name not in known and more is not False},
            }
        elif isinstance(inner.get("pattern"), str) and not known:
            schema["patternProperties"] = {inner["pattern"]: more}
        else:
            continue
        schema["additionalProperties"] = False
        del schema["propertyNames"]
        return


def _unique_items(schema: Schema, _: Facts) -> None:
    """Exact: nothing to compare. A list of more could only be refused or cut to one item."""
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is False or (isinstance(most, int) and most <= 1):
        schema.pop("uniqueItems", None)


_RULES: tuple[Callable[[Schema, Facts], None], ...] = (
    _format,
    _one_of,
    _not,
    _if,
    _dependencies,
    _property_names,
    _unique_items,
)
