"""What is a name, what its tag means, and that nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgellm.errors import InvalidArgumentError
from edgellm.store.names import (
    as_hub_name,
    as_reference,
    choose_tag,
    name_from,
    parse_reference,
)


@pytest.mark.parametrize(
    ("wanted", "tags", "chosen"),
    [
        (None, ["main"], "main"),
        ("latest", ["1.9.0", "1.10.0", "2.0.0-rc.1", "main"], "1.10.0"),
        (None, ["v1.0.0", "1.0.1"], "1.0.1"),
        ("1", ["1.2.0", "1.10.3", "2.0.0"], "1.10.3"),
        ("1.2", ["1.2.0", "1.2.9", "1.20.0"], "1.2.9"),
        ("2", ["2.0.0-rc.1"], None),
        ("2.0.0-rc.1", ["2.0.0-rc.1"], "2.0.0-rc.1"),
        ("1.0.0", ["1.0.1"], None),
        ("other", ["main"], None),
        (None, [], None),
    ],
)
def test_what_a_tag_means(wanted, tags, chosen):
    newest = "main" if "main" in tags else None
    assert choose_tag(wanted, tags, newest) == chosen


@pytest.mark.parametrize(
    "text",
    [
        *("", "..", "a/../b", "/etc/passwd", "a/b/c", "-rf", "a:", "a:b/c", "x.edge", "a b"),
        *("a\x1b[2J", "é", "a:" + "1" * 200, ".hidden", "a//b", "x.gguf", "a\n"),
    ],
)
def test_what_is_no_name(text):
    assert as_reference(text) is None
    with pytest.raises(InvalidArgumentError, match="is no name of a model"):
        parse_reference(text)
    assert as_hub_name(text) is None or ":" in text


@settings(max_examples=40)
@given(st.text(max_size=80))
@example("0.SAFETENSORS")
def test_every_file_has_a_name(text):
    assert as_reference(name_from(text)) is not None
    for revision in ("../x", "a//b", "x/..", "/x"):
        assert as_hub_name(f"owner/{name_from(text)}@{revision}") is None
