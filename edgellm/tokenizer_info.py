"""What kind of tokenizer a file has, read from its tables without loading them.

Knows the head of each section (docs/TOKENIZER.md), not how to encode. The tables are hostile.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from .errors import FormatError, UnsupportedError

_HEADER_BYTES, _ENTRY_BYTES = 32, 24
_MAX_SECTIONS, _MAX_OPS, _MAX_TEXT_BYTES = 64, 32, 256
_MODEL, _NORMALIZER, _PRE_TOKENIZER, _ADDED = 1, 11, 12, 13
_KINDS = {1: "BPE", 2: "Unigram"}
_OPERATIONS = {
    1: "prepend {a!r}",
    2: "prepend {a!r} unless there",
    3: "replace {a!r} by {b!r}",
    4: "split by a pattern",
    5: "normal form",
    6: "replace a pattern by {a!r}",
    7: "strip white space",
    8: "precompiled charsmap",
}


@dataclass(frozen=True)
class TokenizerInfo:
    kind: str  # "byte-level BPE", "BPE", "Unigram", with what happens to unknown characters
    n_tokens: int
    n_added: int
    normalizer: tuple[str, ...]
    pre_tokenizer: tuple[str, ...]


def describe_tokenizer(blob: bytes | memoryview) -> TokenizerInfo:
    """FormatError or UnsupportedError where the tables are damaged or newer than this program."""
    sections = _sections(bytes(blob))
    model = _unpack("<8I", sections.get(_MODEL, b""), 0, "model")
    kind, alphabet, n_tokens, _, flags = model[:5]
    if kind not in _KINDS:
        raise UnsupportedError(
            f"tokenizer: model kind {kind}; update edgellm", code="tokenizer_unsupported"
        )
    name = ("byte-level " if alphabet else "") + _KINDS[kind]
    n_raw, n_normalized = _unpack("<2I", sections.get(_ADDED, b""), 0, "added tokens")
    return TokenizerInfo(
        kind=name + (" with byte fallback" if flags & 2 else ""),
        n_tokens=n_tokens,
        n_added=n_raw + n_normalized,
        normalizer=_operations(sections.get(_NORMALIZER, b""), "normalizer"),
        pre_tokenizer=_operations(sections.get(_PRE_TOKENIZER, b""), "pre-tokenizer"),
    )


def _invalid(what: str) -> FormatError:
    return FormatError(f"tokenizer: {what}; convert the model again", code="tokenizer_invalid")


def _unpack(layout: str, data: bytes, position: int, name: str) -> tuple[Any, ...]:
    if position + struct.calcsize(layout) > len(data):
        raise _invalid(f"{name} is cut short")
    return struct.unpack_from(layout, data, position)


def _sections(blob: bytes) -> dict[int, bytes]:
    magic, version, n_sections, n_bytes = _unpack("<8sIIQ", blob, 0, "header")
    if magic != b"EDGETOKN" or n_bytes > len(blob) or n_sections > _MAX_SECTIONS:
        raise _invalid("bad header")
    if version != 1:
        raise UnsupportedError(
            f"tokenizer: blob version {version}; update edgellm", code="tokenizer_unsupported"
        )
    sections = {}
    for i in range(n_sections):
        entry = _unpack("<IIQQ", blob, _HEADER_BYTES + _ENTRY_BYTES * i, "directory")
        section, _, offset, size = entry
        if offset + size > n_bytes:
            raise _invalid(f"section {section} ends past the blob")
        sections[section] = blob[offset : offset + size]
    return sections


def _operations(data: bytes, name: str) -> tuple[str, ...]:
    (n_ops,) = _unpack("<I", data, 0, name)
    if n_ops > _MAX_OPS:
        raise _invalid(f"{name}: too many operations")
    found, position = [], 4
    for _ in range(n_ops):
        kind, _, n_a, n_b = _unpack("<4I", data, position, name)
        if n_a > _MAX_TEXT_BYTES or n_b > _MAX_TEXT_BYTES:
            raise _invalid(f"{name}: a text is too long")
        position += 16
        text = _unpack(f"<{n_a + n_b}s", data, position, name)[0]
        a, b = (part.decode("utf-8", "replace") for part in (text[:n_a], text[n_a:]))
        found.append(_OPERATIONS.get(kind, "unknown operation").format(a=a, b=b))
        position += (n_a + n_b + 3) // 4 * 4
    return tuple(found)
