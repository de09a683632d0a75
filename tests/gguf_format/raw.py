"""GGUF files byte by byte, so that they can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value_of(value: Any) -> tuple[int, bytes]:
    if isinstance(value, tuple):  # (type, bytes) as they are
        return value
    if isinstance(value, bool):
        return BOOL, bytes([value])
    if isinstance(value, int):
        return (U32, struct.pack("<I", value)) if value >= 0 else (I32, struct.pack("<i", value))
    if isinstance(value, float):
        return F32, struct.pack("<f", value)
    if isinstance(value, str):
        return STRING, text(value)
    kinds = [value_of(item) for item in value]
    kind = kinds[0][0] if kinds else U32
    return ARRAY, struct.pack("<IQ", kind, len(kinds)) + b"".join(raw for _, raw in kinds)


def keys_of(metadata: Mapping[str, Any]) -> bytes:
    out = b""
    for key, value in metadata.items():
        kind, raw = value_of(value)
        out += text(key) + struct.pack("<I", kind) + raw
    return out


def tensor(name: str, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """dims: as stored, columns first."""
    shape = struct.pack(f"<{len(dims)}Q", *dims)
    return text(name) + struct.pack("<I", len(dims)) + shape + struct.pack("<IQ", kind, offset)


def gguf_file(
    metadata: Mapping[str, Any] | bytes,
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    n_keys: int | None = None,
    version: int = 3,
    magic: bytes = b"GGUF",
    alignment: int = 32,
) -> bytes:
    keys = metadata if isinstance(metadata, bytes) else keys_of(metadata)
    n_keys = (0 if isinstance(metadata, bytes) else len(metadata)) if n_keys is None else n_keys
    head = magic + struct.pack("<IQQ", version, len(tensors), n_keys) + keys + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
