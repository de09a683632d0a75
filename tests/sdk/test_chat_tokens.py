"""`eos_token` and its like travel with the file, so a template may print them unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgellm.converters import convert

import edgellm
from edgellm import TemplateError
from edgellm.chat_template import stored_tokens
from edgellm.errors import FormatError
from tiny_model import BOS, EOS, write_tiny_checkpoint

TEMPLATE = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
HERE = Path("model.edge")


def _checkpoint(directory: Path, config: object) -> Path:
    source = write_tiny_checkpoint(directory)
    ends = {"eos_token_id": [EOS, EOS + 5], "bos_token_id": BOS}
    (source / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    (source / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    older = {"eos_token": "<s>", "pad_token": "</s>"}
    (source / "special_tokens_map.json").write_text(json.dumps(older), encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return source


def test_a_model_with_several_ends_says_which_one_its_template_means(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": None}
    out = tmp_path / "tiny.edge"
    convert(_checkpoint(tmp_path / "source", config), out)
    with edgellm.load(out) as model:
        assert len(model.info().eos_ids) == 2
        stored = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
        assert stored_tokens(model._native.blob("special_tokens"), out) == stored
        with model.chat() as chat:
            chat.send("x", max_tokens=1)
            ids = chat.turns[0].prompt_ids
            assert (ids[0], ids[-1], len(ids)) == (BOS, EOS, 3)
        with model.chat(variables={"eos_token": "<s>"}) as chat:
            chat.send("x", max_tokens=1)
            assert chat.turns[0].prompt_ids[-1] == BOS


def test_a_file_without_the_names_still_asks(tmp_path: Path) -> None:
    source = _checkpoint(tmp_path / "source", {})
    (source / "special_tokens_map.json").unlink()
    out = tmp_path / "tiny.edge"
    convert(source, out)
    with edgellm.load(out) as model:
        assert model._native.blob("special_tokens") is None
        with pytest.raises(TemplateError, match="eos_token"):
            model.chat()


@pytest.mark.parametrize("value", [3, True, ["</s>"], {"content": 7}, "x" * 513])
def test_a_token_that_is_no_short_text_stops_the_conversion(tmp_path: Path, value: object) -> None:
    source = _checkpoint(tmp_path / "source", {"eos_token": value})
    with pytest.raises(FormatError, match=r"tokenizer_config\.json.*'eos_token'"):
        convert(source, tmp_path / "tiny.edge")
    assert not (tmp_path / "tiny.edge").exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_half_of_a_surrogate_pair_is_a_typed_error(tmp_path: Path, name: str) -> None:
    source = _checkpoint(tmp_path / "source", {})
    (source / name).write_text(json.dumps({"eos_token": "\ud800"}), encoding="utf-8")
    with pytest.raises(FormatError, match=name):
        convert(source, tmp_path / "tiny.edge")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"eos_token": 3}',
        b'{"eos_token": ""}',
        b'{"eos_token": null}',
        b'{"messages": "x"}',
        b'{"eos_token": "a", "eos_token": "b"}',
        b'{"eos_token": "' + b"x" * 513 + b'"}',
        b'{"eos_token": "' + b"x" * 9000 + b'"}',
        b'{"eos_token": "\\ud800"}',
    ],
)
def test_a_broken_blob_is_a_typed_error(blob: bytes) -> None:
    with pytest.raises(FormatError, match=r"model\.edge: special_tokens"):
        stored_tokens(blob, HERE)


def test_no_blob_is_no_names() -> None:
    assert stored_tokens(None, HERE) == {}
