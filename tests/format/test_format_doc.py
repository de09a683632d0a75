"""docs/FORMAT.md shows a file as it is written today, and names every code of the container."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgellm.edgefile import read_header
from format.make_hexdump import (
    DOC,
    bytes_strip_bytes,
    document,
    example_file,
    multiples_strip_bytes,
    strip_e2_16,
    strip_e3_32,
)

ERRORS_INC = Path(__file__).parents[2] / "native" / "src" / "base" / "errors.inc"


def test_the_worked_example_is_the_file_of_today():
    text = DOC.read_text(encoding="utf-8")
    assert document(text) == text


def test_the_hand_decoded_weights_are_what_the_native_decoder_gives(tmp_path: Path):
    native = pytest.importorskip("edgellm._native", reason="the native module is not built")
    example_file(tmp_path / "example.edge")
    header = read_header(tmp_path / "example.edge")
    raw = (tmp_path / "example.edge").read_bytes()
    strip = raw[header.data_start : header.data_start + 352]
    stated = re.findall(r"^w = .* = (-?[\d.]+)\.$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    decoded = [
        native.decode_rows(format, data, 2, 32, 0, 2)[1][column]
        for format, data, column in (
            ("E4_16", strip, 21),
            ("L8_32", bytes_strip_bytes(), 21),
            ("K4_32", multiples_strip_bytes(), 21),
            ("E3_32", strip_e3_32(), 25),
            ("E2_16", strip_e2_16(), 21),
        )
    ]
    assert decoded == [float(text) for text in stated]


def test_every_container_code_is_explained():
    listed = ERRORS_INC.read_text(encoding="ascii")
    container = listed[listed.index("// .edge container") : listed.index("// Machine")]
    codes = re.findall(r'"(\w+)"\)', container)
    text = DOC.read_text(encoding="utf-8") + DOC.with_name("SESSIONS.md").read_text("utf-8")
    elsewhere = {"spec_invalid", "spec_unsupported", "tokenizer_invalid", "tokenizer_unsupported"}
    elsewhere |= {"draft_mismatch"}  # of two whole files
    assert [code for code in codes if f"`{code}`" not in text and code not in elsewhere] == []
