"""Strictness of the JSON reader; native/tests/format/json_test.cc checks the same rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.errors import FormatError
from edgellm.strict_json import parse_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def code_of(text: str | bytes) -> str:
    with pytest.raises(FormatError, match=r"^here: ") as caught:
        parse_json(text, "here")
    return caught.value.code


@given(value=values, ascii_only=st.booleans())
def test_what_json_writes_is_read_back(value: object, ascii_only: bool):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text, "here") == value
    assert parse_json(text.encode("utf-8"), "here") == value


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "01", "NaN", "-Infinity", "1e999", "1e-999", "9223372036854775808",
     '"\\ud800"', '"\n"', "'a'", "1 2", "\ufeff[]", "9" * 5000, b'"\x80"', b"\xed\xa0\x80"],
)  # fmt: skip
def test_texts_that_are_not_strict_json_are_syntax_errors(text: str | bytes):
    assert code_of(text) == "json_syntax"


def test_limits_have_their_codes():
    assert code_of('{"a":1,"\\u0061":2}') == "json_duplicate_key"
    assert code_of("[" * 33 + "]" * 33) == "json_depth"
    assert code_of("[" * 100_000) == "json_depth"
    assert code_of("[" + "0," * (1 << 20) + "0]") == "json_too_large"
    assert parse_json("[" * 32 + "]" * 32, "here")
    assert parse_json("1e-5", "here") == 1e-5
    assert parse_json("0e-999", "here") == 0.0
