"""Published tokenizers without a `tokenizer.json`: ids and texts equal transformers' own loaders.

The oracles are built by transformers (or SentencePiece's published vectors), not from our
description, so a loader that misreads a file shows here.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.tokenizer import build_blob
from edgellm.converters.tokenizer.source import describe
from tokenizers import Tokenizer

from edgellm import _native
from tokenizer.pairs import Pair
from tokenizer.sources import shared_copy
from tokenizer.test_equal_to_hf import (
    N_ADVERSARIAL,
    assert_adversarial,
    assert_same_ids,
    random_unicode,
)

VECTORS = {"gpt2": "gpt-2", "qwen2.5": "qwen2", "llama3": "llama-bpe", "llama2": "llama-spm"}
NAMES = ["gpt2", "llama2", "qwen2.5", "llama3"]
TEXTS = ("tinyshakespeare.txt", "wikitext-2/valid.txt", "tinystories_hw_train.txt")
CHUNK = 4096


def _gpt2(directory: Path) -> Tokenizer:
    from transformers import GPT2Tokenizer

    return GPT2Tokenizer.from_pretrained(directory).backend_tokenizer


def _qwen2(directory: Path) -> Tokenizer:
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(directory).backend_tokenizer


def _llama3(directory: Path) -> Tokenizer:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            rows = (line.split() for line in Path(tiktoken_url).read_text().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in rows}

    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = config["added_tokens_decoder"]
    names = [added[key]["content"] for key in sorted(added, key=int)]
    model = str(directory / "tokenizer.model")
    return Converter(vocab_file=model, extra_special_tokens=names).converted()


def _llama2(directory: Path) -> Tokenizer:
    """Llama-2's published tokenizer.json: its model from the file, and what stands around it."""
    data = describe(directory).data
    return Tokenizer.from_str(json.dumps(data))


ORACLES: dict[str, Callable[[Path], Tokenizer]] = {
    "gpt2": _gpt2,
    "qwen2.5": _qwen2,
    "llama3": _llama3,
    "llama2": _llama2,
}
_DIRECTORIES: dict[str, Path] = {}


@cache
def load(name: str) -> Pair:
    source = describe(_DIRECTORIES[name])
    compiler = Tokenizer.from_str(json.dumps(source.data))
    blob = build_blob(source.path, source.data, compiler)
    oracle = ORACLES[name](_DIRECTORIES[name])
    return Pair(oracle, blob, _native.Tokenizer.from_blob(blob))


def _pair(name: str, shared_data: Path, factory: pytest.TempPathFactory) -> Pair:
    if name not in _DIRECTORIES:
        _DIRECTORIES[name] = shared_copy(shared_data, name, factory.mktemp("tokenizer"))
    return load(name)


@pytest.fixture(params=[*NAMES[:3], pytest.param("llama3", marks=pytest.mark.slow)])
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    return _pair(request.param, shared_data, tmp_path_factory)


def _check(pair: Pair, texts: list[str], *, special: bool) -> None:
    for ids in assert_same_ids(pair, texts, special, bos=False):
        expected = pair.oracle.decode(ids, skip_special_tokens=not special)
        assert pair.native.decode(ids, special) == expected, ids


def _read_vectors(path: Path) -> list[tuple[str, list[int]]]:
    texts = (
        path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    )
    lines = path.with_suffix(".gguf.out").read_text(encoding="utf-8").split("\n")
    return [(t, [int(i) for i in line.split()]) for t, line in zip(texts, lines, strict=False)]


def test_published_vectors_of_another_implementation(
    pair: Pair, shared_data: Path, request: pytest.FixtureRequest
) -> None:
    name = VECTORS[request.node.callspec.params["pair"]]
    vectors = _read_vectors(shared_data / "vocab_vectors" / f"ggml-vocab-{name}.gguf")
    assert len(vectors) >= 46
    for text, ids in vectors:
        assert pair.native.encode(text, False, False) == ids, repr(text)


def test_naughty_strings_equal_transformers(pair: Pair, shared_data: Path) -> None:
    texts = json.loads((shared_data / "text" / "blns.json").read_text(encoding="utf-8"))
    for special in (False, True):
        _check(pair, texts, special=special)


def test_adversarial_strings_equal_transformers(pair: Pair) -> None:
    assert_adversarial(pair, 30_000, 400, bos=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_000_adversarial_strings_equal_transformers(pair: Pair) -> None:
    assert_adversarial(pair, 0, N_ADVERSARIAL, bos=False)


@pytest.mark.slow
def test_real_texts_equal_transformers(pair: Pair, shared_data: Path) -> None:
    for name in TEXTS:
        text = (shared_data / "text" / name).read_text(encoding="utf-8")
        _check(pair, [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)], special=False)


def test_random_ids_decode_and_stream_as_transformers_do(pair: Pair) -> None:
    rng = random.Random(33)
    for _ in range(800):
        ids = [rng.randrange(pair.native.n_vocab) for _ in range(rng.randint(0, 12))]
        expected = pair.oracle.decode(ids, skip_special_tokens=True)
        decoder = _native.StreamDecoder(pair.native, False)
        assert "".join([*map(decoder.push, ids), decoder.flush()]) == expected, ids


def test_llama2_without_legacy_equals_transformers(shared_data: Path, tmp_path: Path) -> None:
    from transformers import LlamaTokenizer

    directory = shared_copy(shared_data, "llama2", tmp_path)
    config: dict[str, Any] = {"legacy": False, "tokenizer_class": "LlamaTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    source = describe(directory)
    oracle = Tokenizer.from_str(json.dumps(source.data))
    blob = build_blob(source.path, source.data, oracle)
    # Not from_pretrained: it orders merges by id, which is not the order of scores in this file.
    model = source.data["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    theirs = LlamaTokenizer(vocab=model["vocab"], merges=merges, legacy=False).backend_tokenizer
    pair = Pair(theirs, blob, _native.Tokenizer.from_blob(blob))
    _check(pair, random_unicode(34, 3000), special=False)
    _check(pair, ["<s>hello</s> world", "a<unk>b", "  two  spaces "], special=True)


@pytest.mark.slow
def test_llama2_equals_sentencepiece_itself(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = pytest.importorskip("sentencepiece", reason="the library that defines the format")
    pair = _pair("llama2", shared_data, tmp_path_factory)
    model = str(_DIRECTORIES["llama2"] / "tokenizer.model")
    processor = library.SentencePieceProcessor(model_file=model)
    for text in random_unicode(35, 100_000):
        if "\u2581" not in text and "\0" not in text:
            assert pair.native.encode(text, False, False) == processor.encode(text), repr(text)
