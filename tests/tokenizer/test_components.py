"""Every supported component alone and combined equals HF; every other one is refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.tokenizer import compile_tokenizer
from edgellm.converters.tokenizer.normal_forms import form_tables
from edgellm.converters.tokenizer.proof import HARD_STRINGS, random_strings
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)

from edgellm.errors import EdgeError, FormatError, UnsupportedError
from tokenizer.pairs import (
    Pair,
    compile_pair,
    train_byte_level,
    train_sentencepiece,
)

TEXTS = [*HARD_STRINGS, *random_strings(8, 600)]


def assert_equal(pair: Pair, texts: list[str] = TEXTS) -> None:
    for special in (False, True):
        for text in texts:
            ids = pair.oracle_ids(text, special)
            assert pair.native.encode(text, special, True) == ids, repr(text)
            expected = pair.oracle.decode(ids, skip_special_tokens=not special)
            assert pair.native.decode(ids, special) == expected, repr(text)


def change(pair: Pair, edit: Callable[[Tokenizer], None], **options: Any) -> Pair:
    tokenizer = Tokenizer.from_str(pair.oracle.to_str())
    edit(tokenizer)
    return compile_pair(tokenizer, **options)


def set_pre(*steps: Any) -> Callable[[Tokenizer], None]:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))

    return edit


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PRE_TOKENIZERS = {
    "digits one by one": set_pre(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL),
    "digits in runs": set_pre(pre_tokenizers.Digits(individual_digits=False), BYTE_LEVEL),
    "prefix space": set_pre(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "prefix space on every piece": set_pre(
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ),
    "matches removed": set_pre(pre_tokenizers.Split(Regex(r"\s+"), "removed"), BYTE_LEVEL),
    "gaps removed": set_pre(
        pre_tokenizers.Split(Regex(r"\w+"), "removed", invert=True), BYTE_LEVEL
    ),
    "literal split": set_pre(pre_tokenizers.Split("e", "isolated"), BYTE_LEVEL),
    "two regexes": set_pre(
        pre_tokenizers.Split(Regex(r"[aeiou]+"), "isolated"),
        pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated"),
        BYTE_LEVEL,
    ),
}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pre_tokenizers_equal_hf(byte_level: Pair, name: str) -> None:
    assert_equal(change(byte_level, PRE_TOKENIZERS[name]))


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("split", [True, False])
def test_metaspace_equals_hf(sentencepiece: Pair, scheme: str, split: bool) -> None:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)

    assert_equal(change(sentencepiece, edit))


@pytest.mark.parametrize("fuse_unk", [True, False])
@pytest.mark.parametrize("byte_tokens", [True, False])
def test_unknown_characters_equal_hf(fuse_unk: bool, byte_tokens: bool) -> None:
    assert_equal(train_sentencepiece(byte_tokens, fuse_unk=fuse_unk))


def test_a_partial_set_of_byte_tokens_equals_hf(sentencepiece: Pair) -> None:
    data = json.loads(sentencepiece.oracle.to_str())
    for byte in (0xE4, 0xF0, 0xCC):
        del data["model"]["vocab"][f"<0x{byte:02X}>"]
    # Ids must be dense for HF's own added tokens; the holes stay and decode to nothing.
    assert_equal(compile_pair(Tokenizer.from_str(json.dumps(data))))


def test_ignore_merges_equals_hf() -> None:
    assert_equal(train_byte_level(ignore_merges=True))


@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_equal_hf(tiny_pair: Pair, normalized: bool) -> None:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.add_tokens(
            [
                AddedToken("quick", normalized=normalized),
                AddedToken("quick brown", normalized=normalized),
                AddedToken("s>h", normalized=False),
                AddedToken("STRIP", lstrip=True, rstrip=True, normalized=normalized),
                AddedToken("\u00e9\u4e16", normalized=normalized),
            ]
        )
        tokenizer.add_special_tokens(
            [AddedToken("<|left|>", lstrip=True), AddedToken("<|right|>", rstrip=True)]
        )

    pieces = ("quick", " brown", "STRIP", " ", "\u2003", "<|left|>", "<|right|>", "\u00e9\u4e16")
    texts = [*random_strings(3, 400, pieces), "the quick brown quick", "<s>hello", "a  STRIP  <s>b"]
    assert_equal(change(tiny_pair, edit), texts)


def test_templates_put_ids_before_and_after(byte_level: Pair) -> None:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(),
                processors.TemplateProcessing(
                    single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
                ),
            ]
        )

    pair = change(byte_level, edit)
    assert_equal(pair)
    assert pair.native.encode("", False, True) == [1, 2]
    assert pair.native.encode("", False, False) == []


def _normalizer(value: Any) -> Callable[[Tokenizer], None]:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = value

    return edit


NORMAL_FORMS = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "NFKD": normalizers.NFKD(),
    "Lowercase": normalizers.Lowercase(),
    "StripAccents": normalizers.StripAccents(),
    "Nmt": normalizers.Nmt(),
    "two forms": normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]),
}


@pytest.mark.parametrize("name", NORMAL_FORMS)
def test_normal_forms_equal_hf_on_every_character(byte_level: Pair, name: str) -> None:
    pair = change(byte_level, _normalizer(NORMAL_FORMS[name]))
    assert_equal(pair)
    # A letter before and a mark after each character: it composes, moves and blocks.
    codes = [c for c in range(0x30000) if not 0xD800 <= c < 0xE000 and (c < 0x3000 or c % 7 == 0)]
    chunks = [codes[i : i + 40] for i in range(0, len(codes), 40)]
    for chunk in chunks:
        text = "".join(f"e{chr(c)}\u0301\u0323 " for c in chunk)
        expected = pair.oracle.normalizer.normalize_str(text)
        assert pair.native.decode(pair.native.encode(text), True) == expected, ascii(text)


def test_random_marks_and_jamo_are_ordered_and_composed_as_hf_does(byte_level: Pair) -> None:
    rng = random.Random(12)
    tables = form_tables("NFC")
    pairs = [code for pair in tables.pairs for code in pair]
    jamo = [*range(0x1100, 0x1200), *range(0xAC00, 0xAC40)]
    pool = [*tables.mapped, *pairs, *jamo, *(list(tables.combining_class) * 3)]
    for name in ("NFC", "NFKC", "NFD"):
        pair = change(byte_level, _normalizer(NORMAL_FORMS[name]))
        for _ in range(4000):
            text = "".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 12)))
            expected = pair.oracle.normalizer.normalize_str(text)
            assert pair.native.decode(pair.native.encode(text), True) == expected, ascii(text)


def _decoder(value: Any) -> Callable[[Tokenizer], None]:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.decoder = value

    return edit


def _post(value: Any) -> Callable[[Tokenizer], None]:
    def edit(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = value

    return edit


REFUSED = {
    "BertNormalizer": _normalizer(normalizers.BertNormalizer()),
    "matches the empty string": _normalizer(normalizers.Replace(Regex(r"\s*"), " ")),
    "Punctuation": set_pre(pre_tokenizers.Punctuation(), BYTE_LEVEL),
    "MergedWithPrevious": set_pre(
        pre_tokenizers.Split(Regex(r"\s"), "merged_with_previous"), BYTE_LEVEL
    ),
    "after 'ByteLevel'": set_pre(BYTE_LEVEL, pre_tokenizers.Digits()),
    "WordPiece": _decoder(decoders.WordPiece()),
    "BertProcessing": _post(processors.BertProcessing(("</s>", 2), ("<s>", 1))),
    "single_word": lambda tokenizer: tokenizer.add_tokens(  # type: ignore[dict-item]
        [AddedToken("alone", single_word=True)]
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_components_are_refused_by_name(byte_level: Pair, name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"test/tokenizer\.json|regex") as caught:
        change(byte_level, REFUSED[name])
    assert name in str(caught.value)
    assert caught.value.code == "tokenizer_unsupported"


def test_another_model_is_refused_by_name(tmp_path: Path, byte_level: Pair) -> None:
    data = json.loads(byte_level.oracle.to_str())
    data["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    data["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="WordLevel"):
        compile_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model": 3}'])
def test_a_broken_file_is_a_typed_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError):
        compile_tokenizer(tmp_path)


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        compile_tokenizer(tmp_path)
    assert caught.value.code == "file_not_found"


def test_compiling_a_directory_reports_what_the_model_file_needs(
    tmp_path: Path, sentencepiece: Pair
) -> None:
    (tmp_path / "tokenizer.json").write_text(sentencepiece.oracle.to_str(), encoding="utf-8")
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 1]}', encoding="utf-8")
    compiled = compile_tokenizer(tmp_path)
    assert (compiled.bos_id, compiled.add_bos, compiled.unk_id) == (1, False, 0)
    assert compiled.eos_ids == (2, 1)
    assert compiled.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert compiled.n_vocab == sentencepiece.native.n_vocab


def test_a_difference_from_hf_stops_the_conversion(
    tmp_path: Path, byte_level: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def encode(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
            ids = byte_level.native.encode(text, special, bos)
            return ids[:-1] if "world" in text else ids

        def decode(self, ids: list[int], special: bool = False) -> str:
            return byte_level.native.decode(ids, special)

    (tmp_path / "tokenizer.json").write_text(byte_level.oracle.to_str(), encoding="utf-8")
    monkeypatch.setattr("edgellm.converters.tokenizer.compile.load_native", lambda blob: Wrong())
    with pytest.raises(EdgeError, match="Hello, world!") as caught:
        compile_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer_mismatch"
