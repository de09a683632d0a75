"""`edgellm inspect` says what kind of tokenizer a file has; damaged tables are typed errors."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from command_line import edgellm
from edgellm.edgefile import read_header, read_tensor
from edgellm.errors import EdgeError, FormatError, UnsupportedError
from edgellm.tokenizer_info import describe_tokenizer
from tiny_model import N_VOCAB


@pytest.fixture
def blob(tiny_edge: Path) -> bytes:
    return bytes(read_tensor(read_header(tiny_edge), "tokenizer"))


def test_inspect_names_the_tokenizer(tiny_edge: Path, tmp_path: Path) -> None:
    run = edgellm("inspect", str(tiny_edge), "--json", cwd=tmp_path)
    found = json.loads(run.stdout)["data"]["tokenizer"]
    assert (found["kind"], found["n_tokens"]) == ("byte-level BPE", N_VOCAB)
    assert found["normalizer"] == found["pre_tokenizer"] == []
    text = edgellm("inspect", str(tiny_edge), cwd=tmp_path).stdout
    assert "byte-level BPE, 258 tokens" in text


def test_it_reads_the_demo_as_it_is_committed(tmp_path: Path) -> None:
    text = edgellm("inspect", "demo", cwd=tmp_path).stdout
    assert re.search(r"byte-level BPE, \d,\d{3} tokens", text)
    assert "split by a pattern" in text


def test_every_truncation_and_many_mutations_are_typed_errors_or_read(blob: bytes) -> None:
    for n_bytes in range(0, 400):
        with pytest.raises(FormatError):
            describe_tokenizer(blob[:n_bytes])
    rng = random.Random(2)
    n_refused = 0
    for _ in range(2000):
        data = bytearray(blob)
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(32 + 24 * 16)] = rng.choice((0, 1, 2, 0x7F, 0xFF))
        try:
            describe_tokenizer(bytes(data))
        except EdgeError:
            n_refused += 1
    assert 200 < n_refused < 2000


def test_a_newer_blob_is_refused_by_name(blob: bytes) -> None:
    with pytest.raises(UnsupportedError, match="blob version 9"):
        describe_tokenizer(blob[:8] + b"\x09" + blob[9:])
