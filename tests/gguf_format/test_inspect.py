"""`edgellm inspect FILE.gguf`: what is there, also where it cannot be converted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command_line import data_of, edgellm, failure_of
from edgellm.cli.exits import Exit
from gguf_format.model import MATRICES, METADATA, VOCAB, model_bytes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def inspected(file: Path) -> dict:
    return data_of(edgellm("inspect", file, "--json", cwd=file.parent), "inspect")


def test_a_model_is_described(file: Path) -> None:
    file.write_bytes(model_bytes())
    data = inspected(file)
    assert (data["kind"], data["architecture"], data["not_read"]) == ("gguf", "llama", None)
    assert len(data["spec"]["layers"]) == 1
    assert data["tokenizer"]["n_tokens"] == VOCAB
    assert data["chat_template"] == "{{ messages }}"
    assert data["special_tokens"]["eos_token"] == "</s>"
    types = {tensor["name"].removesuffix(".weight"): tensor["type"] for tensor in data["tensors"]}
    assert types.items() >= {name: kind for name, (kind, _) in MATRICES.items()}.items()
    assert data["metadata"]["tokenizer.ggml.tokens"]["n_values"] == VOCAB
    human = edgellm("inspect", file, cwd=file.parent).stdout
    assert re.search(r"^converts +yes$", human, re.MULTILINE)
    assert "llama.context_length" in human


def test_what_is_not_understood_is_said_and_the_rest_shown(file: Path) -> None:
    novel = METADATA | {"general.architecture": "novel\x1b[2J", "novel.scale": float("nan")}
    file.write_bytes(model_bytes(metadata=novel))
    data = inspected(file)
    assert data["spec"] is None
    assert "novel" in data["not_read"]
    assert data["metadata"]["novel.scale"] == "nan"
    assert len(data["tensors"]) > len(MATRICES)
    human = edgellm("inspect", file, cwd=file.parent).stdout
    assert "no: " in human
    assert "\x1b" not in human


def test_a_damaged_file_is_refused(file: Path) -> None:
    file.write_bytes(model_bytes()[:200])
    run = edgellm("inspect", file, cwd=file.parent)
    assert str(file) in failure_of(run, Exit.BAD_INPUT)
