"""A `.edge` file in pieces that other files may have, too: what an update need not fetch.

A piece is at most 1 MiB of one tensor, counted from the tensor's start, so that a tensor that did
not change has the same pieces wherever it stands in another file. The header is no piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .edgeheader import EdgeHeader
from .errors import FormatError

CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Chunk:
    """offset: in the file."""

    offset: int
    n_bytes: int


def chunks_of(header: EdgeHeader) -> Iterator[Chunk]:
    """All pieces, in file order; padding counts as its tensor's."""
    for tensor in header.tensors.values():
        begin = header.data_start + tensor.offset
        end = begin + tensor.stored_bytes
        for offset in range(begin, end, CHUNK_BYTES):
            yield Chunk(offset, min(CHUNK_BYTES, end - offset))


def chunk_digests(header: EdgeHeader, path: Path) -> bytes:
    """SHA-256 of every piece of the file at `path`, 32 bytes each, in file order. FormatError where
    it cannot be read, or ends early."""
    digests = bytearray()
    try:
        with path.open("rb") as file:
            for chunk in chunks_of(header):
                file.seek(chunk.offset)
                data = file.read(chunk.n_bytes)
                if len(data) != chunk.n_bytes:
                    raise FormatError(f"{path}: ends within its tensors", code="tensor_past_end")
                digests += hashlib.sha256(data).digest()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    return bytes(digests)
