"""Schemas as a grammar can enforce them, and those of other people, on the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgellm
from edgellm.schema_rules import enforceable

PROMPT = "Once upon a time there was a child. About the child: "


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def json_of(schema: dict) -> dict:
    return {"type": "json_schema", "schema": schema}


REWRITTEN = {
    "one of two kinds": {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ]
    },
    "one of two properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "without a property": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "not": {"required": ["b"]},
    },
    "condition": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}},
        "if": {"properties": {"a": {"const": True}}},
        "then": {"required": ["b"]},
    },
    "dependency": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
        "dependentRequired": {"a": ["b"], "b": ["c"]},
    },
    "names": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-c]{2}$"},
        "additionalProperties": {"type": "integer"},
    },
    "listed names": {
        "type": "object",
        "propertyNames": {"enum": ["aa", "bb"]},
        "additionalProperties": {"type": "integer"},
    },
    "unknown format": {"type": "string", "format": "shoe-size", "maxLength": 6},
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_a_rewritten_schema_gives_satisfies_the_original(demo, name):
    schema = REWRITTEN[name]
    before = json.dumps(schema)
    for seed in range(6):
        answer = demo.generate(
            PROMPT, max_tokens=40, temperature=2, seed=seed, response_format=json_of(schema)
        )
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), schema)
    assert json.dumps(schema) == before


def small_schemas() -> st.SearchStrategy[dict]:
    values = st.sampled_from([0, 1, "a", "b", None, True])
    leaf = st.one_of(
        st.builds(lambda t: {"type": t}, st.sampled_from(["integer", "string", "null", "object"])),
        st.builds(lambda v: {"const": v}, values),
        st.builds(lambda v: {"enum": v}, st.lists(values, min_size=1, max_size=3)),
    )

    def objects(inner: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
        names = st.sampled_from(["p", "q"])
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.just("object"),
                "properties": st.dictionaries(names, inner, max_size=2),
                "required": st.lists(names, unique=True, max_size=2),
                "additionalProperties": st.booleans(),
                "oneOf": st.lists(inner, min_size=1, max_size=3),
                "not": inner,
                "if": inner,
                "then": inner,
                "else": inner,
                "propertyNames": st.sampled_from([{"enum": ["p"]}, {"pattern": "^q$"}]),
                "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1)),
            },
        )

    return st.recursive(leaf, objects, max_leaves=6)


DOCUMENTS = [
    *(0, 1, "a", "b", None, True, {}),
    *({"p": v} for v in (0, "a", None, {}, {"p": 1})),
    *({"q": v} for v in (1, "b", True, {}, {"q": "a"})),
    *({"p": v, "q": w} for v in (0, "a", {}) for w in (1, "b", {})),
]


@settings(max_examples=80, deadline=None)
@given(small_schemas())
def test_rewriting_allows_no_document_that_was_not_allowed(schema):
    before = jsonschema.Draft202012Validator(schema)
    try:
        after = jsonschema.Draft202012Validator(enforceable(schema))
    except edgellm.UnsupportedError:
        return
    for document in DOCUMENTS:
        assert before.is_valid(document) or not after.is_valid(document), document


# --- schemas of other people ----------------------------------------------------------------------


def accepted(model: edgellm.Model, schema: dict) -> bool:
    try:
        model.stream(PROMPT, max_tokens=1, response_format=json_of(schema)).close()
    except edgellm.UnsupportedError:
        return False
    return True


def check_generations(model: edgellm.Model, paths: list[Path]) -> None:
    """Nine in ten at least are accepted; 19 in 20 answers end, and all that do validate."""
    schemas = [json.loads(path.read_text()) for path in paths]
    taken = [schema for schema in schemas if accepted(model, schema)]
    assert len(taken) >= 0.9 * len(schemas)
    n_ended = 0
    for schema in taken:
        # All that the context of the demo model has room for.
        answer = model.generate(PROMPT, max_tokens=490, response_format=json_of(schema))
        if answer.finish_reason == "stop":
            n_ended += 1
            validator = jsonschema.validators.validator_for(schema)
            validator(schema).validate(json.loads(answer.text))
    assert n_ended >= 0.95 * len(taken)


def test_some_schemas_of_other_people(demo, shared_data):
    paths = sorted((shared_data / "json_schemas").glob("*/*.json"))
    assert len(paths) >= 100
    check_generations(demo, paths[::12])


@pytest.mark.slow
def test_all_schemas_of_other_people(demo, shared_data):
    check_generations(demo, sorted((shared_data / "json_schemas").glob("*/*.json")))
