"""Precompiled normalization and the other rewriting normalizers equal HF on hard texts."""

from __future__ import annotations

import base64
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.tokenizer.blob import Section, pack_sections
from edgellm.converters.tokenizer.charsmap import cluster_bits, read_charsmap
from edgellm.converters.tokenizer.executor import BlobTokenizer, read_sections
from edgellm.converters.tokenizer.proof import HARD_STRINGS, random_strings
from tokenizers import Regex, Tokenizer, normalizers

from edgellm import _native
from edgellm.errors import EdgeError, FormatError
from tokenizer.pairs import Pair, compile_pair
from tokenizer.sources import write_charsmap
from tokenizer.test_equal_to_hf import random_unicode

# Rules that show clusters: of a letter, a mark, a consonant, a pictograph, a syllable, a prefix.
RULES = {
    "a": "A",
    "e\u0301": "\u00e9",
    "\u0915": "<ka>",
    "\u00a9": "(c)",
    "\u0600": "#",
    "\u1100": "g",
    "\u1161": "[a]",
    "\u11a8": "[k]",
    "\uac00": "ga",
    "\u0301": "",
    "\u200d": "+",
    "\r": " ",
    "\n": "\\n",
    "\U0001f1e6": "RI",
    "\u0001": "",
    "abc": "never: a shorter rule begins it",
}
# Every kind of character that grapheme clusters tell apart.
POOL = (
    "abe \r\n\x01\u0301\u0300\u0903\u094d\u0915\u0916\u093c\u0d4d\u0d15\u0d4e\u200d\u200c\u0600"
    "\u110bD\u1100\u1161\u11a8\uac00\uac01\ua960\ud7b0\ud7cb\u00a9\u00ae\u2764\ufe0f\U0001f468"
    "\U0001f3fd\U0001f1e6\U0001f1e7\u00ad\u2028\ufeff\u0e33\u1039\u1000\U0001e6e3\U00011f02\u070f"
)


def with_normalizer(pair: Pair, value: Any) -> Pair:
    tokenizer = Tokenizer.from_str(pair.oracle.to_str())
    tokenizer.normalizer = value
    return compile_pair(tokenizer)


def assert_normalizes(pair: Pair, texts: list[str]) -> None:
    """A byte-level vocabulary decodes to just what was normalized."""
    for text in texts:
        expected = pair.oracle.normalizer.normalize_str(text)
        assert pair.native.decode(pair.native.encode(text), True) == expected, ascii(text)


def _mixed(seed: int, n_texts: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(POOL, k=rng.randint(1, 12))) for _ in range(n_texts)]


def test_clusters_of_every_kind_equal_hf(byte_level: Pair) -> None:
    pair = with_normalizer(byte_level, normalizers.Precompiled(write_charsmap(RULES)))
    assert_normalizes(pair, [*_mixed(1, 20_000), *HARD_STRINGS, *random_unicode(2, 2000)])


def test_every_character_beside_others_equals_hf(byte_level: Pair) -> None:
    pair = with_normalizer(byte_level, normalizers.Precompiled(write_charsmap(RULES)))
    codes = [c for c in range(1, 0x20000) if not 0xD800 <= c < 0xE000]
    chunks = [codes[i : i + 60] for i in range(0, len(codes), 60)]
    around = ("a{}\u0301 ", "{}a\u0301 ", "\u0915\u094d{}\u0301 ", "\u00a9\u200d{}\u0301 ")
    for pattern in around:
        assert_normalizes(pair, ["".join(pattern.format(chr(c)) for c in part) for part in chunks])


def test_the_python_executor_agrees(byte_level: Pair) -> None:
    steps = [
        normalizers.Precompiled(write_charsmap(RULES)),
        normalizers.Strip(),
        normalizers.Replace(Regex(" {2,}"), "_"),
    ]
    pair = with_normalizer(byte_level, normalizers.Sequence(steps))
    executor = BlobTokenizer(pair.blob)
    for text in [*_mixed(3, 600), *random_strings(5, 100)]:
        assert executor.encode(text) == pair.native.encode(text), ascii(text)


NORMALIZERS: dict[str, Any] = {
    "strip": normalizers.Strip(),
    "strip the start": normalizers.Strip(right=False),
    "strip the end": normalizers.Strip(left=False),
    "spaces to one": normalizers.Replace(Regex(" {2,}"), " "),
    "spaces at the end": normalizers.Replace(Regex(r" +(?![\s\S])"), ""),
    "general pattern": normalizers.Replace(Regex(r"\p{L}+\d|[aeiou]{2}|\s"), "<\u00e9>"),
    "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "nmt": normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Lowercase()]),
    "prepend after strip": normalizers.Sequence([normalizers.Strip(), normalizers.Prepend("_")]),
}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_rewriting_normalizers_equal_hf(byte_level: Pair, name: str) -> None:
    pair = with_normalizer(byte_level, NORMALIZERS[name])
    spaced = [" " * i + "\t" * (i % 2) + "b1 \u00a0ae" + " " * (i % 5) for i in range(20)]
    texts = ["", " ", "\u3000 \n", *spaced, *HARD_STRINGS, *random_strings(7, 600)]
    assert_normalizes(pair, texts)
    for text in texts:
        assert pair.native.encode(text) == pair.oracle_ids(text), ascii(text)


def _bad_charsmaps() -> dict[str, bytes]:
    good = write_charsmap({"a": "b"})
    n_bytes = struct.unpack_from("<I", good)[0]
    texts = good[4 + n_bytes :]
    return {
        "is cut short": good[:3],
        "is cut short ": struct.pack("<I", n_bytes + 4) + good[4:],
        "points past its texts": good[: -len(texts)] + b"b",
        "that is not UTF-8": good[: -len(texts)] + b"\xff\0",
        "which is not UTF-8": _rule_for_a_stray_byte(),
    }


def _rule_for_a_stray_byte() -> bytes:
    units = [0] * 1024
    units[0] = 256 << 10
    units[256 | 0x80] = (256 | 0x80 ^ 512) << 10 | 1 << 8 | 0x80
    return struct.pack("<I1024I", 4096, *units) + b"\0"


@pytest.mark.parametrize("message", list(_bad_charsmaps()))
def test_a_broken_charsmap_is_a_typed_error(message: str) -> None:
    with pytest.raises(FormatError, match=message.strip()) as caught:
        read_charsmap(Path("x.json"), _bad_charsmaps()[message])
    assert caught.value.code == "tokenizer_invalid"


def test_mutated_charsmaps_are_read_or_refused() -> None:
    good = write_charsmap(RULES)
    rng = random.Random(4)
    used = [at for at in range(0, len(good)) if good[at]]
    n_refused = 0
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(rng.choice((1, 3, 9))):
            data[rng.choice(used)] = rng.randrange(256)
        try:
            read_charsmap(Path("x.json"), bytes(data))
        except FormatError:
            n_refused += 1
    assert 100 < n_refused < 1500


def test_only_the_shortest_rule_of_a_beginning_is_kept() -> None:
    rules = read_charsmap(Path("x.json"), write_charsmap(RULES))
    assert "abc" not in rules
    assert rules["a"] == "A"
    assert len(rules) == len(RULES) - 1


def test_mutated_tables_give_a_typed_error_or_work(byte_level: Pair) -> None:
    pair = with_normalizer(byte_level, normalizers.Precompiled(write_charsmap(RULES)))
    sections = {Section(k): v for k, v in read_sections(pair.blob).items()}
    good = sections[Section.CHARSMAP]
    text = "".join(_mixed(9, 40))
    rng = random.Random(10)
    n_refused = 0
    for i in range(1500):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3, 8))):
            at = rng.randrange(rng.choice((16, 400, len(good))))
            data[at] = rng.choice((0, 1, 0x61, 0x7F, 0x80, 0xFF))
        if i % 10 == 0:
            del data[rng.randrange(len(data)) :]
        try:
            tokenizer = _native.Tokenizer.from_blob(
                pack_sections({**sections, Section.CHARSMAP: bytes(data)})
            )
            tokenizer.decode(tokenizer.encode(text, True, True), True)
        except (EdgeError, ValueError):
            n_refused += 1
    assert 300 < n_refused < 1500


def test_the_charsmap_needs_its_section(byte_level: Pair) -> None:
    pair = with_normalizer(byte_level, normalizers.Precompiled(write_charsmap(RULES)))
    sections = {Section(k): v for k, v in read_sections(pair.blob).items()}
    del sections[Section.CHARSMAP]
    with pytest.raises(EdgeError, match="unknown charsmap"):
        _native.Tokenizer.from_blob(pack_sections(sections))


def test_a_charsmap_that_is_not_base64_is_a_typed_error(byte_level: Pair) -> None:
    data = json.loads(byte_level.oracle.to_str())
    text = base64.b64encode(write_charsmap(RULES)).decode()
    data["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": text}
    assert compile_pair(Tokenizer.from_str(json.dumps(data))).native.encode("a")
    from edgellm.converters.tokenizer.charsmap import decode_charsmap

    with pytest.raises(FormatError, match="not base64"):
        decode_charsmap(Path("x.json"), "!" + text)


def test_clusters_know_the_stable_characters() -> None:
    bits = cluster_bits()
    assert bits[ord("a")] == 0
    assert bits[0x0A] == bits[0x0D] == bits[0x00] == 1
    for code, bit in ((0x0301, 2), (0x0600, 4), (0x00A9, 8), (0x0915, 16), (0x094D, 128)):
        assert bits[code] & bit
