"""Gets a file by its pieces: those that files of this machine have are copied, the others fetched.

What was written is judged by its hash and not by a journal: after `kill -9` the same call takes
what is right of the unfinished file, whatever became of the rest. A first download is the same with
no file to copy from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..edgechunks import DIGEST_BYTES, Chunk, chunks_of
from ..edgefile import read_header
from ..edgeheader import DATA_ALIGNMENT, MAX_HEADER_BYTES, EdgeHeader, parse_header
from ..errors import EdgeError, FormatError, IntegrityError
from .index import FileRef, Variant
from .source import Artefacts

MAX_TABLE_BYTES = 64 << 20
_GAP_BYTES = 4096  # fetched along rather than asked around
OnBytes = Callable[[int, int], None]  # bytes of the file that are there, of all


@dataclass(frozen=True)
class Fetched:
    """Bytes of the file by where they came from; of other files besides (the table of pieces)."""

    fetched_bytes: int
    copied_bytes: int
    kept_bytes: int
    table_bytes: int


def fetch_file(
    artefacts: Artefacts,
    variant: Variant,
    part: Path,
    others: Iterable[Path],
    on_bytes: OnBytes = lambda *_: None,
) -> Fetched:
    """Makes `part` the file of `variant`, whole, synced, and with the SHA-256 that the index says.

    others: files that may have pieces of it; what of them cannot be read counts for nothing.
    IntegrityError where something is not what the index says: `part` is deleted. DeviceError where
    a server stops to answer, FormatError where nothing can be written: `part` goes on later.
    """
    try:
        with part.open("r+b" if part.exists() else "x+b") as out:
            fetch = _Fetch(artefacts, variant, out, on_bytes)
            try:
                found = fetch.run(others)
            except IntegrityError:
                part.unlink()
                raise
            out.flush()
            os.fsync(out.fileno())
            return found
    except OSError as error:
        message = f"{part}: cannot be written: {error.strerror}; what came is kept"
        raise FormatError(message, code="file_write_failed") from error


class _Fetch:
    def __init__(
        self, artefacts: Artefacts, variant: Variant, out: BinaryIO, on_bytes: OnBytes
    ) -> None:
        self._artefacts, self._variant, self._out = artefacts, variant, out
        self._ref: FileRef = variant.file
        self._on_bytes = on_bytes
        self._n_here = self._n_fetched = self._n_copied = self._n_kept = 0

    def run(self, others: Iterable[Path]) -> Fetched:
        table = self._artefacts.small(self._variant.chunks, MAX_TABLE_BYTES)
        header = self._header()
        pieces = list(chunks_of(header))
        if len(table) != len(pieces) * DIGEST_BYTES:
            raise self._wrong("its pieces are not those of the table")
        wanted = [
            (piece, table[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES])
            for at, piece in enumerate(pieces)
        ]
        self._out.truncate(self._ref.n_bytes)
        missing = self._copied([one for one in wanted if not self._is_kept(*one)], others)
        for run in _runs(missing):
            self._get(run)
        self._check_whole()
        return Fetched(self._n_fetched, self._n_copied, self._n_kept, len(table))

    def _header(self) -> EdgeHeader:
        """Fetched each time: it is small, and says where everything is."""
        first = self._range(0, min(DATA_ALIGNMENT, self._ref.n_bytes))
        n_bytes = 8 + int.from_bytes(first[:8], "little")
        if len(first) < 8 or n_bytes > min(MAX_HEADER_BYTES, self._ref.n_bytes):
            raise self._wrong("its first bytes are not those of a .edge file")
        raw = first[:n_bytes]
        if n_bytes > len(first):
            raw += self._range(len(first), n_bytes - len(first))
        name = Path(self._ref.name)
        header = parse_header(name, raw[:8], raw[8:], self._ref.n_bytes)
        if header.metadata["edgellm.header_sha256"] != self._variant.header_sha256:
            raise self._wrong("its header is not the one of the index")
        self._out.seek(0)
        self._out.write(raw)
        self._told(len(raw))
        return header

    def _is_kept(self, piece: Chunk, digest: bytes) -> bool:
        self._out.seek(piece.offset)
        if hashlib.sha256(self._out.read(piece.n_bytes)).digest() != digest:
            return False
        self._n_kept += piece.n_bytes
        self._told(piece.n_bytes)
        return True

    def _copied(
        self, wanted: list[tuple[Chunk, bytes]], others: Iterable[Path]
    ) -> list[tuple[Chunk, bytes]]:
        """Copies what is in other files; what is not."""
        for path in others:
            if not wanted:
                return wanted
            missing = {digest for _, digest in wanted}
            found = dict(_pieces_of(path, missing))
            left = []
            for piece, digest in wanted:
                data = found.get(digest)
                if data is None:
                    left.append((piece, digest))
                    continue
                self._write(piece.offset, _read_at(path, data))
                self._n_copied += piece.n_bytes
            wanted = left
        return wanted

    def _get(self, run: list[tuple[Chunk, bytes]]) -> None:
        begin, last = run[0][0].offset, run[-1][0]
        blocks = self._artefacts.stream(self._ref, begin, last.offset + last.n_bytes - begin)
        buffer, at = bytearray(), begin
        for piece, digest in run:
            end = piece.offset + piece.n_bytes
            while at + len(buffer) < end:
                block = next(blocks, b"")
                if not block:
                    raise self._wrong("it ends early")
                self._n_fetched += len(block)
                buffer += block
            data = bytes(buffer[piece.offset - at : end - at])
            del buffer[: end - at]
            at = end
            if hashlib.sha256(data).digest() != digest:
                raise self._wrong(f"the {len(data)} bytes at {piece.offset} are others")
            self._write(piece.offset, data)
        assert next(blocks, b"") == b""  # lets the connection go on to the next range

    def _range(self, offset: int, n_bytes: int) -> bytes:
        data = b"".join(self._artefacts.stream(self._ref, offset, n_bytes))
        self._n_fetched += len(data)
        return data

    def _write(self, offset: int, data: bytes) -> None:
        self._out.seek(offset)
        self._out.write(data)
        self._told(len(data))

    def _told(self, n_bytes: int) -> None:
        self._n_here += n_bytes
        self._on_bytes(self._n_here, self._ref.n_bytes)

    def _check_whole(self) -> None:
        self._out.seek(0)
        digest = hashlib.file_digest(self._out, "sha256").hexdigest()  # type: ignore[arg-type]
        if digest != self._ref.sha256:
            raise self._wrong("its SHA-256 differs")

    def _wrong(self, what: str) -> IntegrityError:
        message = f"{self._artefacts.location}: {self._ref.name} is not what the index says: {what}"
        return IntegrityError(message, code="fleet_digest")


def _runs(missing: list[tuple[Chunk, bytes]]) -> Iterator[list[tuple[Chunk, bytes]]]:
    """Pieces that are fetched by one request each."""
    run: list[tuple[Chunk, bytes]] = []
    for piece, digest in missing:
        if run and piece.offset - (run[-1][0].offset + run[-1][0].n_bytes) > _GAP_BYTES:
            yield run
            run = []
        run.append((piece, digest))
    if run:
        yield run


def _pieces_of(path: Path, wanted: set[bytes]) -> Iterator[tuple[bytes, Chunk]]:
    """Where pieces of a file of this machine are."""
    try:
        header = read_header(path)
        with path.open("rb") as file:
            for piece in chunks_of(header):
                file.seek(piece.offset)
                digest = hashlib.sha256(file.read(piece.n_bytes)).digest()
                if digest in wanted:
                    yield digest, piece
    except (EdgeError, OSError):
        return


def _read_at(path: Path, piece: Chunk) -> bytes:
    with path.open("rb") as file:
        file.seek(piece.offset)
        return file.read(piece.n_bytes)
