"""SentencePiece models trained here: ids equal the library that defines the format, and HF's own.

Known differences to the library are HF's and are left out of the texts: a short grapheme cluster is
normalized as a whole, sums of scores are f64, and U+2581 in a text is a space (docs/TOKENIZER.md).
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgellm.converters.tokenizer import build_blob
from edgellm.converters.tokenizer.charsmap import ATTACH, PREPEND, cluster_bits
from edgellm.converters.tokenizer.proof import HARD_STRINGS, random_strings
from edgellm.converters.tokenizer.source import describe
from tokenizers import Tokenizer

from edgellm import _native
from edgellm.errors import UnsupportedError
from tokenizer.pairs import TRAINING_TEXT
from tokenizer.sources import write_json
from tokenizer.test_equal_to_hf import random_unicode

spm = pytest.importorskip("sentencepiece", reason="the library that defines the format")
USER_SYMBOL = "<|user|>"
CASES: dict[str, dict[str, Any]] = {
    "unigram nmt_nfkc": {},
    "unigram nmt_nfkc_cf bytes": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
    "unigram identity bytes": {"normalization_rule_name": "identity", "byte_fallback": True},
    "unigram identity all spaces": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "unigram digits": {"split_digits": True, "add_dummy_prefix": False}
    | {"remove_extra_whitespaces": False},
    "bpe nmt_nfkc bytes": {"model_type": "bpe", "byte_fallback": True},
    "bpe identity": {"model_type": "bpe", "normalization_rule_name": "identity"},
}


@dataclass(frozen=True)
class Trained:
    content: bytes
    native: _native.Tokenizer
    library: Any


@cache
def _lines() -> tuple[str, ...]:
    rng = random.Random(1)
    words = " ".join(TRAINING_TEXT[:3]).split()
    return tuple(" ".join(rng.choices(words, k=9)) for _ in range(400))


def train(**options: Any) -> bytes:
    out = io.BytesIO()
    size = 480 if options.get("byte_fallback") else 220
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(_lines()),
        model_writer=out,
        user_defined_symbols=[USER_SYMBOL],
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": size, "model_type": "unigram", **options},
    )
    return out.getvalue()


def compiled(directory: Path) -> _native.Tokenizer:
    """Not proven: that is what the tests do."""
    source = describe(directory)
    oracle = Tokenizer.from_str(json.dumps(source.data))
    return _native.Tokenizer.from_blob(build_blob(source.path, source.data, oracle))


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    content = train(**CASES[request.param])
    directory = tmp_path_factory.mktemp("spm")
    (directory / "tokenizer.model").write_bytes(content)
    native = compiled(directory)
    return Trained(content, native, spm.SentencePieceProcessor(model_proto=content))


def comparable(texts: list[str]) -> list[str]:
    """Texts in which every character is a cluster, and nothing is a user-defined symbol."""
    joins = (cluster_bits() & (ATTACH | PREPEND)).tolist()
    return [
        text
        for text in texts
        if not any(joins[ord(c)] or 0x1100 <= ord(c) < 0x1200 or c in "\0\u2581" for c in text)
        and "\r\n" not in text
        and USER_SYMBOL not in text
    ]


def assert_equal_ids(trained: Trained, texts: list[str]) -> None:
    library = trained.library
    for text in texts:
        ids, expected = trained.native.encode(text, False, False), library.encode(text)
        if ids == expected or not library.normalize(text).strip("\u2581"):
            continue
        # Paths of one score in f32 may differ in f64, in which HF adds.
        scores = [sum(library.get_score(id_) for id_ in path) for path in (ids, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4), ascii(text)
        assert "".join(map(library.id_to_piece, ids)) == "".join(
            map(library.id_to_piece, expected)
        ), ascii(text)


def test_ids_equal_the_library(trained: Trained) -> None:
    texts = comparable([*HARD_STRINGS, *random_strings(8, 1000), *random_unicode(40, 1000)])
    assert len(texts) > 1000
    assert_equal_ids(trained, texts)


def test_plain_text_is_segmented_identically(trained: Trained) -> None:
    for text in _lines():
        assert trained.native.encode(text, False, False) == trained.library.encode(text), text


def test_texts_come_back(trained: Trained) -> None:
    for text in _lines()[:100]:
        expected = trained.library.decode(trained.library.encode(text))
        assert trained.native.decode(trained.native.encode(text, False, False)) == expected


def test_user_symbols_are_one_token(trained: Trained) -> None:
    id_ = trained.library.piece_to_id(USER_SYMBOL)
    assert trained.native.encode(f"the{USER_SYMBOL}fox", False, False).count(id_) == 1


@pytest.mark.slow
def test_random_unicode_equals_the_library(trained: Trained) -> None:
    assert_equal_ids(trained, comparable(random_unicode(41, 100_000)))


@pytest.mark.slow
def test_shared_texts_equal_the_library(trained: Trained, shared_data: Path) -> None:
    texts = json.loads((shared_data / "text" / "blns.json").read_text(encoding="utf-8"))
    for name in ("tinyshakespeare.txt", "wikitext-2/valid.txt"):
        text = (shared_data / "text" / name).read_text(encoding="utf-8")
        texts += text.split("\n")
    assert_equal_ids(trained, comparable(texts))


def test_ids_equal_transformers_own_conversion(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf", reason="transformers reads the file with it")
    from transformers.convert_slow_tokenizer import SpmConverter

    path = tmp_path / "tokenizer.model"
    path.write_bytes(train())
    slow = SimpleNamespace(vocab_file=str(path), add_prefix_space=True, legacy=True)
    oracle = SpmConverter(slow).converted()
    native = compiled(tmp_path)
    n_compared = 0
    for text in [*_lines(), *HARD_STRINGS, *random_strings(9, 1500), *random_unicode(42, 500)]:
        normalized = oracle.normalizer.normalize_str(text)
        # There "</s>" in a text is the token, and all spaces leave one; neither is SentencePiece.
        if any(name in normalized for name in ("<s>", "</s>", "<unk>", "<|")) or not normalized:
            continue
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert native.encode(text, False, False) == ids, ascii(text)
        n_compared += 1
    assert n_compared > 1500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
        ({"add_dummy_prefix": False}, "remove_extra_whitespaces"),
        ({"model_type": "word", "vocab_size": 20}, "'Word'"),
        ({"model_type": "char", "vocab_size": 40}, "'Char'"),
    ],
)
def test_other_options_are_refused_by_name(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train(**options))
    with pytest.raises(UnsupportedError, match=message):
        describe(tmp_path)


@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_the_class_without_legacy_cuts_like_hf(tmp_path: Path, rule: str) -> None:
    content = train(
        normalization_rule_name=rule, byte_fallback=True, remove_extra_whitespaces=False
    )
    (tmp_path / "tokenizer.model").write_bytes(content)
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    write_json(tmp_path / "tokenizer_config.json", config)
    native = compiled(tmp_path)
    library = spm.SentencePieceProcessor(model_proto=content)
    for text in _lines()[:50]:
        assert native.encode(text, False, False) == library.encode(text)


def test_the_class_without_legacy_and_squeezed_spaces_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train())
    write_json(tmp_path / "tokenizer_config.json", {"legacy": False})
    with pytest.raises(UnsupportedError, match="'legacy': false"):
        describe(tmp_path)
