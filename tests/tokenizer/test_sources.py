"""Loaders of tokenizers without a `tokenizer.json`: small files made here, and broken ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from edgellm.converters.tokenizer import compile_tokenizer
from edgellm.converters.tokenizer.source import describe

from edgellm.errors import EdgeError, FormatError, UnsupportedError
from tokenizer.sources import (
    END,
    proto_bytes,
    proto_int,
    proto_normalizer,
    proto_piece,
    proto_pieces,
    proto_trainer,
    some_ranks,
    write_bpe_files,
    write_json,
    write_ranks,
    write_sentencepiece,
)


@pytest.mark.parametrize(
    ("tokenizer_class", "normalizer"), [(None, None), ("Qwen2Tokenizer", "NFC")]
)
def test_vocab_and_merges_compile(
    tmp_path: Path, tokenizer_class: str | None, normalizer: str | None
) -> None:
    write_bpe_files(tmp_path, tokenizer_class)
    data = describe(tmp_path).data
    assert (data["normalizer"] or {}).get("type") == normalizer
    compiled = compile_tokenizer(tmp_path)
    assert list(compiled.special_ids) == [END]
    assert not compiled.add_bos


def test_ranks_merge_like_tiktoken(tmp_path: Path) -> None:
    ranks = some_ranks()
    write_ranks(tmp_path / "tokenizer.model", ranks)
    vectors = compile_tokenizer(tmp_path).vectors
    words = {v.text: v.ids for v in vectors}
    assert words[" "] == (ranks[b" "],)
    data = describe(tmp_path).data
    assert data["model"]["ignore_merges"]
    assert ["t", "h"] in data["model"]["merges"]


def test_added_tokens_come_from_the_configuration(tmp_path: Path) -> None:
    write_ranks(tmp_path / "tokenizer.model", some_ranks())
    decoder = {"266": {"content": "<|begin|>", "special": True}, "267": {"content": "<tool>"}}
    config = {"added_tokens_decoder": decoder, "bos_token": "<|begin|>"}
    write_json(tmp_path / "tokenizer_config.json", config)
    compiled = compile_tokenizer(tmp_path)
    assert (compiled.n_vocab, compiled.bos_id, compiled.add_bos) == (268, 266, True)
    write_json(tmp_path / "tokenizer_config.json", {**config, "add_bos_token": False})
    assert not compile_tokenizer(tmp_path).add_bos


def test_a_gap_in_the_ids_is_refused(tmp_path: Path) -> None:
    write_ranks(tmp_path / "tokenizer.model", some_ranks())
    config = {"added_tokens_decoder": {"300": {"content": "<far>", "special": True}}}
    write_json(tmp_path / "tokenizer_config.json", config)
    with pytest.raises(FormatError, match="'<far>' has id 300"):
        compile_tokenizer(tmp_path)


def test_sentencepiece_bpe_compiles(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model")
    compiled = compile_tokenizer(tmp_path)
    assert (compiled.bos_id, compiled.add_bos, compiled.unk_id) == (1, True, 0)
    assert list(compiled.special_ids) == ["<unk>", "<s>", "</s>"]
    added = describe(tmp_path).data["added_tokens"]
    assert [(t["content"], t["special"]) for t in added][-1] == ("<user>", False)


def test_sentencepiece_unigram_compiles(tmp_path: Path) -> None:
    tail = proto_trainer(1) + proto_normalizer(squeeze=True)
    write_sentencepiece(tmp_path / "tokenizer.model", tail)
    compiled = compile_tokenizer(tmp_path)
    assert (compiled.bos_id, compiled.add_bos, compiled.unk_id) == (1, True, 0)
    ids = {v.text: v.ids for v in compiled.vectors}
    assert ids[" "] == ()  # what is squeezed away at the end is nothing, not a mark


TAIL = proto_trainer() + proto_normalizer()
REFUSED = {
    "remove_extra_whitespaces": proto_trainer() + proto_normalizer(prefix=False, squeeze=True),
    "'Word'": proto_trainer(3) + proto_normalizer(),
    "UNUSED": TAIL + proto_piece("never", -99.0, 5),
}
BROKEN = {
    "no pieces": b"",
    "wire type 3": TAIL + b"\x0b",
    "cut short": TAIL + b"\x0a\x7f",
    "longer than 64 bits": TAIL + b"\x08" + b"\xff" * 11,
    "not UTF-8": TAIL + proto_bytes(1, proto_bytes(1, b"\xff")),
    "not one": TAIL + proto_piece("<other>", 0.0, 2),
    "repeated": TAIL + proto_piece("qu", -1.0),
    "field 1 has the wire type 0": TAIL + proto_int(1, 4),
    "with score nan": TAIL + proto_piece("nan", float("nan")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sentencepiece_options_are_refused_by_name(tmp_path: Path, name: str) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model", REFUSED[name])
    with pytest.raises(UnsupportedError, match=name) as caught:
        describe(tmp_path)
    assert caught.value.code == "tokenizer_unsupported"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sentencepiece_file_is_a_typed_error(tmp_path: Path, name: str) -> None:
    content = (proto_pieces() if BROKEN[name] else b"") + BROKEN[name]
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(FormatError, match=name) as caught:
        describe(tmp_path)
    assert caught.value.code == "tokenizer_invalid"


def test_mutated_sentencepiece_files_give_a_typed_error_or_work(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    write_sentencepiece(path)
    good = path.read_bytes()
    rng = random.Random(5)
    n_refused = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
        try:
            describe(tmp_path)
        except EdgeError:
            n_refused += 1
    assert n_refused > 200


def _no_merges(directory: Path) -> None:
    (directory / "merges.txt").unlink()


def _bad_merge(directory: Path) -> None:
    (directory / "merges.txt").write_text("a b\nabc\n", encoding="utf-8")


def _string_id(directory: Path) -> None:
    write_json(directory / "vocab.json", {"a": "1"})


def _lost_special(directory: Path) -> None:
    write_json(directory / "special_tokens_map.json", {"eos_token": "<gone>"})


def _two_ids(directory: Path) -> None:
    write_json(directory / "added_tokens.json", {"a": 9000})


def _bad_added(directory: Path) -> None:
    write_json(directory / "tokenizer_config.json", {"added_tokens_decoder": {"x": {}}})


def _giant_id(directory: Path) -> None:
    decoder = {"9" * 5000: {"content": "<x>"}}
    write_json(directory / "tokenizer_config.json", {"added_tokens_decoder": decoder})


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no such file": _no_merges,
    "line 2": _bad_merge,
    "whole number": _string_id,
    "'<gone>' has no id": _lost_special,
    "two ids": _two_ids,
    "id of 'x'": _bad_added,
    "id of '9999": _giant_id,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_broken_bpe_files_are_typed_errors(tmp_path: Path, message: str) -> None:
    write_bpe_files(tmp_path, None)
    DAMAGE[message](tmp_path)
    with pytest.raises(FormatError, match=message):
        describe(tmp_path)


def test_a_class_that_cuts_differently_is_refused_by_name(tmp_path: Path) -> None:
    write_bpe_files(tmp_path, "CLIPTokenizer")
    with pytest.raises(UnsupportedError, match="CLIPTokenizer"):
        describe(tmp_path)


@pytest.mark.parametrize("line", ["AA==", "AA== x", "?? 3", "AA== 1", "YWI= 999999999"])
def test_broken_ranks_are_typed_errors(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokenizer.model"
    write_ranks(path, some_ranks())
    path.write_text(path.read_text(encoding="ascii") + line + "\n", encoding="ascii")
    with pytest.raises(FormatError, match="line 267"):
        describe(tmp_path)


def test_ranks_need_every_byte(tmp_path: Path) -> None:
    ranks = {token: rank for token, rank in some_ranks().items() if token != b"\x80"}
    write_ranks(tmp_path / "tokenizer.model", ranks)
    with pytest.raises(FormatError, match="1 of the 256 bytes"):
        describe(tmp_path)


def test_tokenizer_json_wins_over_other_files(tmp_path: Path) -> None:
    write_bpe_files(tmp_path, None)
    data = describe(tmp_path).data
    data["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert describe(tmp_path).data["model"]["ignore_merges"]
