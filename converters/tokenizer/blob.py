"""Packing of the tokenizer blob; byte layout in docs/TOKENIZER.md. Knows no Hugging Face types."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .normal_forms import FormTables
from .regex_dfa import Dfa, Partition

MAGIC = b"EDGETOKN"
VERSION = 1
NO_ID = 0xFFFFFFFF
MAX_PROBES = 64
_ALIGNMENT = 64
_HEADER = struct.Struct("<8sIIQII")
_ENTRY = struct.Struct("<IIQQ")


class Section(IntEnum):
    MODEL = 1
    TOKEN_OFFSETS = 2
    TOKEN_BYTES = 3
    TOKEN_FLAGS = 4
    VOCAB_TABLE = 5
    MERGE_TABLE = 6
    BYTE_IDS = 7
    CLASS_INDEX = 8
    CLASS_BLOCKS = 9
    DFAS = 10
    NORMALIZER = 11
    PRE_TOKENIZER = 12
    ADDED = 13
    SPACES = 14
    POST_PROCESSOR = 15
    DECODER = 16
    FORMS = 17
    CHARSMAP = 18
    UNIGRAM = 19


class TokenFlag(IntFlag):
    SPECIAL = 1
    WHOLE = 2
    BYTE = 4
    LITERAL = 8
    ABSENT = 16


class OpKind(IntEnum):
    PREPEND = 1
    PREPEND_UNLESS = 2
    REPLACE = 3
    SPLIT = 4
    FORM = 5
    REPLACE_MATCHES = 6
    STRIP = 7
    CHARSMAP = 8


class ModelKind(IntEnum):
    BPE = 1
    UNIGRAM = 2


class DecoderKind(IntEnum):
    JOIN = 0
    BYTES = 1
    PIECES = 2
    METASPACE = 3


ONLY_AT_START = 1  # argument of PREPEND_UNLESS
STRIP_START, STRIP_END = 1, 2  # argument of STRIP
DROP_MATCHES = 0x10000  # with the DFA's number, argument of SPLIT
DROP_GAPS = 0x20000


@dataclass(frozen=True)
class TextOp:
    kind: OpKind
    argument: int = 0
    a: str = ""
    b: str = ""


@dataclass(frozen=True)
class DecoderSpec:
    kind: DecoderKind
    byte_fallback: bool = False
    strip: str = ""
    n_strip: int = 0
    replacements: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class AddedEntry:
    text: str
    id: int
    special: bool
    lstrip: bool
    rstrip: bool


def _padded(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


def pack_sections(sections: Mapping[Section, bytes]) -> bytes:
    position = _HEADER.size + _ENTRY.size * len(sections)
    directory, body = b"", b""
    for section, data in sorted(sections.items()):
        body += bytes(-position % _ALIGNMENT)
        position += -position % _ALIGNMENT
        directory += _ENTRY.pack(section, 0, position, len(data))
        body += data
        position += len(data)
    return _HEADER.pack(MAGIC, VERSION, len(sections), position, 0, 0) + directory + body


def pack_ops(ops: Sequence[TextOp]) -> bytes:
    out = struct.pack("<I", len(ops))
    for op in ops:
        a, b = op.a.encode(), op.b.encode()
        out += struct.pack("<4I", op.kind, op.argument, len(a), len(b)) + _padded(a + b, 4)
    return out


def pack_dfas(dfas: Sequence[Dfa], n_classes: int) -> bytes:
    out = struct.pack("<2I", len(dfas), n_classes if dfas else 0)
    for dfa in dfas:
        table = dfa.transitions.astype("<u2").tobytes()
        out += struct.pack("<I", len(dfa.transitions)) + _padded(table, 4)
    return out


def distinct_blocks(of_code_point: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distinct blocks of 256 values in ascending order, and which one each 256 code points have.

    As `np.unique(axis=0)`, which takes half a second for it: it compares rows value by value.
    """
    keys = [row.tobytes() for row in of_code_point.astype(">u4").reshape(-1, 256)]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    blocks = np.frombuffer(b"".join(numbers), dtype=">u4").reshape(-1, 256)
    return blocks, np.array([numbers[key] for key in keys])


def pack_classes(partition: Partition) -> tuple[bytes, bytes]:
    """Two-stage table: u16 index of 256-code-point blocks, u8 classes of the distinct blocks."""
    blocks, index = distinct_blocks(partition.class_of)
    return index.astype("<u2").tobytes(), blocks.astype(np.uint8).tobytes()


def pack_added(raw: Sequence[AddedEntry], normalized: Sequence[AddedEntry]) -> bytes:
    table, texts = b"", b""
    for entries in (raw, normalized):
        for entry in sorted(entries, key=lambda e: e.text.encode()):
            text = entry.text.encode()
            flags = entry.special | entry.lstrip << 1 | entry.rstrip << 2
            table += struct.pack("<4I", len(texts), len(text), entry.id, flags)
            texts += text
    return struct.pack("<2I", len(raw), len(normalized)) + table + texts


_FORM_QUICK = 1  # flags of a record
_FORM_MAPPED = 2
_FORM_HANGUL = 4
_HANGUL = range(0xAC00, 0xAC00 + 11172)


def pack_forms(forms: Sequence[FormTables]) -> bytes:
    return struct.pack("<I", len(forms)) + b"".join(_pack_form(form) for form in forms)


def _pack_form(form: FormTables) -> bytes:
    records: dict[tuple[str, int, int], int] = {("", 0, _FORM_QUICK): 0}
    of_code_point = np.zeros(0x110000, dtype=np.uint16)
    # Every code point that is not "keeps itself, class 0, quick".
    codes = {*np.flatnonzero(form.unstable).tolist(), *form.mapped, *form.combining_class}
    for code in [*codes, *(_HANGUL if form.hangul else ())]:
        flags = 0 if form.unstable[code] else _FORM_QUICK
        flags |= _FORM_MAPPED if code in form.mapped else 0
        flags |= _FORM_HANGUL if form.hangul and code in _HANGUL else 0
        record = (form.mapped.get(code, ""), form.combining_class.get(code, 0), flags)
        of_code_point[code] = records.setdefault(record, len(records))
    rows, index = distinct_blocks(of_code_point)
    table, texts = b"", b""
    for text, combining_class, flags in records:
        data = text.encode()
        table += struct.pack("<I4B", len(texts), len(data), combining_class, flags, 0)
        texts += data
    pairs = b"".join(struct.pack("<3I", *pair, c) for pair, c in sorted(form.pairs.items()))
    head = struct.pack("<5I", form.composes, len(rows), len(records), len(form.pairs), len(texts))
    blocks = rows.astype("<u2").tobytes()
    body = index.astype("<u2").tobytes() + blocks + table + pairs
    return head + body + _padded(texts, 4)


def pack_affixes(prefix: Sequence[int], suffix: Sequence[int]) -> bytes:
    ids = [*prefix, *suffix]
    return struct.pack(f"<2I{len(ids)}I", len(prefix), len(suffix), *ids)


def pack_decoder(spec: DecoderSpec) -> bytes:
    out = struct.pack(
        "<5I",
        spec.kind,
        spec.byte_fallback,
        ord(spec.strip) if spec.strip else 0,
        spec.n_strip,
        len(spec.replacements),
    )
    for source, target in spec.replacements:
        a, b = source.encode(), target.encode()
        out += struct.pack("<2I", len(a), len(b)) + _padded(a + b, 4)
    return out


def pack_ranges(members: NDArray[np.bool_]) -> bytes:
    """(first, last) of each run of members."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], members, [False]]).astype(np.int8)))
    ranges = edges.reshape(-1, 2) - [0, 1]
    return ranges.astype("<u4").tobytes()


def hash_texts(texts: Sequence[bytes]) -> NDArray[np.uint64]:
    """FNV-1a, 64 bits, high half folded in; must agree with native/src/tokenizer/vocab.cc."""
    hashes = np.full(len(texts), 0xCBF29CE484222325, dtype=np.uint64)
    lengths = np.array([len(text) for text in texts])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        matrix = np.frombuffer(b"".join(texts[i] for i in rows.tolist()), dtype=np.uint8)
        matrix = matrix.reshape(len(rows), length)
        values = hashes[rows]
        for column in range(length):
            values = (values ^ matrix[:, column]) * np.uint64(0x100000001B3)
        hashes[rows] = values
    return hashes ^ hashes >> np.uint64(32)


def _place(starts: NDArray[np.uint64], n_slots: int) -> tuple[list[int], int]:
    """Linear probing: the slot of every entry, and the longest probe plus one."""
    taken = bytearray(n_slots)
    slots = []
    longest = 1
    for start in (starts & np.uint64(n_slots - 1)).tolist():
        slot = start
        while taken[slot]:
            slot = (slot + 1) & (n_slots - 1)
        taken[slot] = 1
        slots.append(slot)
        longest = max(longest, ((slot - start) & (n_slots - 1)) + 1)
    return slots, longest


def pack_vocab_table(texts: Sequence[bytes], ids: Sequence[int]) -> tuple[bytes, int]:
    """Open addressing by text, and the number of probes that finds every entry."""
    hashes = hash_texts(texts)
    n_slots = 2
    while n_slots < 2 * len(texts):
        n_slots *= 2
    while True:
        slots, longest = _place(hashes, n_slots)
        if longest <= MAX_PROBES:
            break
        n_slots *= 2
    table = np.full(n_slots, NO_ID, dtype="<u4")
    table[slots] = ids
    return table.tobytes(), longest


def pack_merge_table(merges: Mapping[tuple[int, int], tuple[int, int]]) -> tuple[bytes, int]:
    """Slots of (left, right, rank, merged id), and the number of probes that finds every entry."""
    rows = np.array(
        [(left, right, rank, id_) for (left, right), (rank, id_) in merges.items()], dtype=np.uint32
    ).reshape(-1, 4)
    keys = rows[:, 0].astype(np.uint64) << np.uint64(32) | rows[:, 1].astype(np.uint64)
    hashes = keys * np.uint64(0x9E3779B97F4A7C15)
    n_bits = 1
    while 1 << n_bits < 1.5 * len(merges) + 1:
        n_bits += 1
    while True:
        slots, longest = _place(hashes >> np.uint64(64 - n_bits), 1 << n_bits)
        if longest <= MAX_PROBES:
            break
        n_bits += 1
    table = np.zeros((1 << n_bits, 4), dtype="<u4")
    table[:, 0] = NO_ID
    table[slots] = rows
    return table.tobytes(), longest
