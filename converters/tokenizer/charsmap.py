"""SentencePiece's precompiled charsmap -> a table of the blob.

HF applies it by grapheme clusters, and of the rules that begin a cluster it takes the shortest. So
only the shortest rule on each path is kept, up to the five bytes that HF looks at. Which characters
form clusters depends on the Unicode version inside HF: it is probed there, with a charsmap of ours
that turns whatever HF looks up as a whole into one letter.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from edgellm.errors import FormatError

from .blob import distinct_blocks
from .tries import pack_trie
from .unicode_classes import N_CODE_POINTS

_MAX_KEY_BYTES = 5
_MAX_RULES = 1 << 20
_MAX_NODES = 1 << 20
_SURROGATES = range(0xD800, 0xE000)

CONTROL, ATTACH, PREPEND, PICTOGRAPH, CONSONANT, EXTEND, CONJUNCT, LINKER = (
    1 << bit for bit in range(8)
)
_ACUTE = "\u0301"
_ZWJ = "\u200d"
_PICTOGRAPH = "\u00a9"
_CONSONANT = "\u0915"
_LINKER = "\u094d"


def decode_charsmap(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(path, f"is not base64 ({error})") from error


def _invalid(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: the precompiled charsmap {what}", code="tokenizer_invalid")


def read_charsmap(path: Path, data: bytes) -> dict[str, str]:
    """What begins a cluster -> what the cluster becomes; no key begins another one."""
    (n_bytes,) = struct.unpack_from("<I", data) if len(data) >= 4 else (0,)
    if n_bytes == 0 or n_bytes % 4 or n_bytes > len(data) - 4:
        raise _invalid(path, "is cut short")
    units = np.frombuffer(data, "<u4", n_bytes // 4, 4).astype(np.int64)
    texts = data[4 + n_bytes :]
    rules: dict[str, str] = {}
    n_nodes = 0
    stack: list[tuple[int, bytes]] = [(_offset(int(units[0])), b"")]
    while stack:
        base, key = stack.pop()
        n_nodes += 1
        if n_nodes > _MAX_NODES or len(rules) > _MAX_RULES:
            raise _invalid(path, "has too many rules")
        for label, position in _children(units, base):
            unit = int(units[position])
            child, below = key + bytes([label]), position ^ _offset(unit)
            if unit >> 8 & 1:
                rules[_key(path, child)] = _value(path, units, below, texts)
            elif len(child) < _MAX_KEY_BYTES:
                stack.append((below, child))
    return rules


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def _children(units: NDArray[np.int64], base: int) -> list[tuple[int, int]]:
    labels = np.arange(1, 256)
    positions = base ^ labels
    labels, positions = labels[positions < len(units)], positions[positions < len(units)]
    found = (units[positions] & (1 << 31 | 0xFF)) == labels
    return list(zip(labels[found].tolist(), positions[found].tolist(), strict=True))


def _key(path: Path, key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise _invalid(path, f"has a rule for {key!r}, which is not UTF-8") from None


def _value(path: Path, units: NDArray[np.int64], position: int, texts: bytes) -> str:
    at = int(units[position]) & (1 << 31) - 1 if position < len(units) else len(texts)
    end = texts.find(b"\0", at) if at < len(texts) else -1
    try:
        if end < 0:
            raise _invalid(path, "points past its texts")
        return texts[at:end].decode()
    except UnicodeDecodeError:
        raise _invalid(path, f"has a text at {at} that is not UTF-8") from None


def pack_charsmap(rules: dict[str, str]) -> bytes:
    texts = sorted(set(rules.values()))
    number = {text: i for i, text in enumerate(texts)}
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)]).astype("<u4").tobytes()
    joined = b"".join(encoded)
    trie = pack_trie({key.encode(): number[value] for key, value in rules.items()})
    head = struct.pack("<I", len(texts)) + offsets + joined + bytes(-len(joined) % 4)
    blocks, index = distinct_blocks(cluster_bits())
    clusters = struct.pack("<I", len(blocks)) + index.astype("<u2").tobytes()
    return head + trie + clusters + blocks.astype(np.uint8).tobytes()


def _probe_charsmap() -> bytes:
    """Every character but the line break becomes "X": a cluster looked up as a whole is one X."""
    units = [0] * 2048
    # Blocks of 256: the root, after one, two and three more bytes to come, and the values' own.
    one, two, three, value = 1, 2, 3, 4

    def fill(block: int, labels: range, target: int) -> None:
        for label in labels:
            position = block << 8 | label
            leaf = target == value
            units[position] = (position ^ target << 8) << 10 | leaf << 8 | label

    units[0] = 5 << 8 << 10
    fill(5, range(1, 10), value)
    fill(5, range(11, 0x80), value)
    fill(5, range(0xC2, 0xE0), one)
    fill(5, range(0xE0, 0xF0), two)
    fill(5, range(0xF0, 0xF5), three)
    fill(three, range(0x80, 0xC0), two)
    fill(two, range(0x80, 0xC0), one)
    fill(one, range(0x80, 0xC0), value)
    units[value << 8] = 1 << 31
    return struct.pack("<I2048I", 4 * len(units), *units) + b"X\0"


@cache
def _candidates() -> list[int]:
    # Planes 4 to 13 and the last two hold no character that joins another; plane 14 has tags.
    codes = [*range(1, 0x40000), *range(0xE0000, 0xE1000)]
    return [c for c in codes if c not in _SURROGATES and c not in (10, 13)]


def _count(make: Callable[[str], str], codes: list[int]) -> NDArray[np.int64]:
    """How many letters each text becomes."""
    probe = normalizers.Precompiled(_probe_charsmap())
    lines = str(probe.normalize_str("\n".join(make(chr(c)) for c in codes))).split("\n")
    return np.array([len(line) for line in lines])


@cache
def cluster_bits() -> NDArray[np.uint8]:
    """[N_CODE_POINTS]: the bits that native/src/tokenizer/graphemes.cc names."""
    bits = np.zeros(N_CODE_POINTS, dtype=np.uint8)
    codes = _candidates()
    every = np.array(codes)

    def mark(among: NDArray[np.int64], bit: int, make: Callable[[str], str], n: int) -> None:
        counts = _count(make, among.tolist())
        bits[among[counts == n]] |= bit

    mark(every, ATTACH, lambda c: "a" + c, 1)
    attached = every[bits[every] & ATTACH > 0]
    others = every[bits[every] & ATTACH == 0]
    # A control stands alone, so the two accents after it are a cluster of their own.
    long = others[others >= 0x10000]
    mark(others[others < 0x10000], CONTROL, lambda c: c + _ACUTE, 2)
    mark(long, CONTROL, lambda c: c + _ACUTE * 2, 2)
    mark(others, PREPEND, lambda c: c + "a", 1)
    bits[[0, 10, 13]] = CONTROL
    mark(others, PICTOGRAPH, lambda c: _PICTOGRAPH + _ZWJ + c + _ACUTE * 2, 5)
    mark(others, CONSONANT, lambda c: c + _LINKER + _CONSONANT + _ACUTE, 4)
    mark(attached, EXTEND, lambda c: _PICTOGRAPH + c + _ZWJ + _PICTOGRAPH + _ACUTE, 5)
    mark(attached, CONJUNCT, lambda c: _CONSONANT + c + _LINKER + _CONSONANT + _ACUTE, 5)
    mark(attached, LINKER, lambda c: _CONSONANT + c + _CONSONANT + _ACUTE, 4)
    return bits
