from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.sanitize import visible, visible_line


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred", "\u241b[31mred"),
        ("a\x00b\x07c", "a\u2400b\u2407c"),
        ("back\x08", "back\u2408"),
        ("cr\rlf\n", "cr\u240dlf\n"),
        ("\x7f", "\u2421"),
        ("\x9b31m", "\ufffd31m"),
        ("user\u202etxt.exe", "user\ufffdtxt.exe"),
        ("\u2066x\u2069", "\ufffdx\ufffd"),
        ("\ud800", "\ufffd"),
        ("tab\tstays", "tab\tstays"),
        ("\u00e9\u4e2d\U0001f600", "\u00e9\u4e2d\U0001f600"),
    ],
)
def test_control_and_direction_characters_become_glyphs(raw, shown):
    assert visible(raw) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_steers_a_terminal_gets_through(text):
    shown = visible(text)
    assert len(shown) == len(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in shown)
    bidi = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    assert not any(unicodedata.bidirectional(c) in bidi for c in shown)
    assert visible(shown) == shown


def test_one_line_places_get_one_line():
    assert visible_line("a\nb\tc") == "a\u240ab\u2409c"
