"""Reads, checks and writes `.edge` files in pure Python: the twin of the native reader.

Knows the container and nothing of models: the spec is a dict, roles are strings, tensors are bytes.
Standard library only. Memory stays bounded: the writer streams, the reader maps.

Writing. What is known ahead is planned, in file order, then streamed; the rest is appended:

    with EdgeWriter(path, spec=spec) as writer:
        writer.plan("token_embd", "token_embd", format="E4_16", shape=(4096, 256), act="a8")
        writer.plan("output_norm", "output_norm", format="F32", shape=(256,))
        writer.add("token_embd", chunks)          # bytes, memoryview or an iterable of them
        writer.add("output_norm", norm.tobytes())
        writer.append("report", "report", json_bytes)   # size unknown until now
        writer.set_source(digests)                      # likewise

The target appears, whole and hashed, when the block ends without an exception; otherwise it is
untouched and the temporary file beside it is removed.

Reading: `read_header(path)` checks everything but the data; `read_tensor(header, name)` maps one
tensor; `verify(path)` hashes all data. Failures are edgellm.errors with the codes of the native
reader.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .durable import fsync_directory
from .edgeheader import (
    BLOB_ALIGNMENT,
    COPY_AGAIN,
    DATA_ALIGNMENT,
    FORMATS,
    HASHES_NAME,
    LEAF_BYTES,
    MAX_HEADER_BYTES,
    MAX_SIZE,
    MAX_TENSORS,
    VERSION,
    EdgeHeader,
    TensorInfo,
    hash_root,
    header_text,
    parse_header,
    round_up,
    seal_header,
    tensor_bytes,
    tensor_defect,
)
from .errors import EdgeError, FormatError, IntegrityError, InvalidArgumentError
from .leaf_hasher import LeafHasher

__all__ = [
    "DATA_ALIGNMENT",
    "FORMATS",
    "LEAF_BYTES",
    "VERSION",
    "EdgeHeader",
    "EdgeWriter",
    "TensorInfo",
    "read_header",
    "read_tensor",
    "tensor_bytes",
    "verify",
]

Buffer = bytes | bytearray | memoryview
_ZEROS = bytes(BLOB_ALIGNMENT)


def read_header(path: Path | str) -> EdgeHeader:
    """The checked header of a file: structure, header hash and hash root, but not the data."""
    with _open(Path(path)) as file:
        return header_of(file, Path(path))


def header_of(file: BinaryIO, path: Path) -> EdgeHeader:
    """The same, of an open file at its begin; `path` is what it is called."""
    file_bytes = os.fstat(file.fileno()).st_size
    if file_bytes < 8:
        raise FormatError(f"{path}: {file_bytes} bytes; {COPY_AGAIN}", "file_too_small")
    prefix = file.read(8)
    header_len = int.from_bytes(prefix, "little")
    if header_len > MAX_HEADER_BYTES:
        raise FormatError(
            f"{path}: header of {header_len} bytes is over the cap of {MAX_HEADER_BYTES}",
            "header_too_large",
        )
    if 8 + header_len > file_bytes:
        raise FormatError(
            f"{path}: {file_bytes} bytes, header of {header_len}; {COPY_AGAIN}",
            "header_truncated",
        )
    raw = file.read(header_len)
    if len(raw) != header_len:
        raise FormatError(f"{path}: shrank while being read", "header_truncated")
    header = parse_header(path, prefix, raw, file_bytes)
    hashes = header.tensors[HASHES_NAME]
    file.seek(header.data_start + hashes.offset)
    stored = file.read(hashes.stored_bytes)
    if hash_root(stored, hashes.offset) != header.root:
        raise IntegrityError(f"{path}: the stored leaf hashes do not match the root", "root_hash")
    return header


def read_tensor(source: Path | str | EdgeHeader, name: str) -> memoryview:
    """The bytes of one tensor, without its padding: a read-only view of a mapping of the file."""
    header = source if isinstance(source, EdgeHeader) else read_header(source)
    info = header.tensors.get(name)
    if info is None:
        raise FormatError(f"{header.path}: no tensor {name!r}", "tensor_missing")
    with _open(header.path) as file:
        if os.fstat(file.fileno()).st_size != header.file_bytes:
            raise FormatError(f"{header.path}: changed size since it was opened", "tensor_past_end")
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = header.data_start + info.offset
    return view[start : start + info.n_bytes]


def verify(path: Path | str) -> EdgeHeader:
    """Checks the header, the hash of every leaf and the zero padding of every tensor."""
    header = read_header(path)
    hashes = bytes(read_tensor(header, HASHES_NAME))
    n_hashed = header.tensors[HASHES_NAME].offset
    with _open(header.path) as file:
        file.seek(header.data_start)
        for i in range(0, n_hashed, LEAF_BYTES):
            leaf = file.read(min(LEAF_BYTES, n_hashed - i))
            want = hashes[i // LEAF_BYTES * 32 : i // LEAF_BYTES * 32 + 32]
            if hashlib.sha256(leaf).digest() != want:
                names = [
                    t.name
                    for t in header.tensors.values()
                    if t.offset < i + len(leaf) and t.offset + t.stored_bytes > i
                ]
                raise IntegrityError(
                    f"{path}: damaged in the {len(leaf)} bytes at {header.data_start + i}"
                    f" (tensors {names[0]!r} to {names[-1]!r}); get the file again",
                    "leaf_hash",
                )
        for info in header.tensors.values():
            file.seek(header.data_start + info.offset + info.n_bytes)
            if any(file.read(info.stored_bytes - info.n_bytes)):
                raise FormatError(
                    f"{path}: padding of tensor {info.name!r} is not zero", "tensor_padding"
                )
    return header


class EdgeWriter:
    """Writes one file; see the module docstring. Not thread-safe.

    spec: the model spec, stored as compact JSON. requires: features an older reader must refuse.
    metadata: more string -> string pairs, ignored by the reader. reserve_bytes: header space kept
    for what is appended or set after the first add(). header_bytes: exact data start instead
    (a multiple of 16384), to write a copy of an existing file.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        spec: Mapping[str, object],
        requires: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        reserve_bytes: int = 8192,
        header_bytes: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._temp = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.tmp")
        self._spec = json.dumps(spec, separators=(",", ":"), allow_nan=False)
        self._requires = list(requires)
        self._metadata = dict(metadata or {})
        if reserved := sorted(key for key in self._metadata if key.startswith("edgellm.")):
            raise InvalidArgumentError(f"metadata keys of the format itself: {reserved}")
        self._source: Mapping[str, object] | None = None
        self._reserve_bytes = reserve_bytes
        self._data_start = header_bytes or 0
        if self._data_start % DATA_ALIGNMENT or self._data_start < 0:
            raise InvalidArgumentError(f"header_bytes must be a multiple of {DATA_ALIGNMENT}")
        self._tensors: dict[str, TensorInfo] = {}
        self._planned: list[str] = []
        self._n_added = 0
        self._cursor = 0  # of planned tensors; after them, of the data section
        self._file: BinaryIO | None = None
        self._leaves = LeafHasher()

    @classmethod
    def like(cls, header: EdgeHeader, path: Path | str) -> EdgeWriter:
        """For another file of the same spec, with the metadata that are not the format's own."""
        return cls(
            path,
            spec=json.loads(header.metadata["edgellm.spec"]),
            requires=header.requires,
            metadata={k: v for k, v in header.metadata.items() if not k.startswith("edgellm.")},
            reserve_bytes=8192 + len(json.dumps(header.source or {})),
        )

    def __enter__(self) -> EdgeWriter:
        try:
            fd = os.open(
                self._temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise FormatError(
                f"{self._path}: cannot write here: {error.strerror}", "file_write_failed"
            ) from error
        self._file = os.fdopen(fd, "wb", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise self._write_failed(failure) from failure
        finally:
            if self._file is not None:
                try:
                    self._file.close()
                finally:
                    self._file = None
                    self._temp.unlink(missing_ok=True)

    def plan(
        self, name: str, role: str, *, format: str, shape: Sequence[int], act: str | None = None
    ) -> TensorInfo:
        """Declares the next tensor. All plans come before the first add()."""
        if self._leaves.n_bytes or self._n_added:
            raise InvalidArgumentError(f"tensor {name!r} planned after data was added")
        info = self._place(name, role, format, shape, act)
        self._planned.append(name)
        return info

    def add(self, name: str, data: Buffer | Iterable[Buffer]) -> None:
        """Streams the bytes of the next planned tensor, exactly as many as its format says."""
        if self._n_added == len(self._planned) or self._planned[self._n_added] != name:
            raise InvalidArgumentError(f"tensor {name!r} is not the next planned one")
        if self._data_start == 0:
            self._data_start = self._header_space()
        self._n_added += 1
        self._stream(self._tensors[name], data)

    def append(
        self,
        name: str,
        role: str,
        data: Buffer,
        *,
        format: str = "U8",
        shape: Sequence[int] | None = None,
        act: str | None = None,
    ) -> None:
        """Adds a tensor that was not planned, after all planned ones; by default a U8 blob."""
        if self._n_added != len(self._planned):
            raise InvalidArgumentError(f"append({name!r}) before {self._planned[self._n_added]!r}")
        if self._data_start == 0:
            self._data_start = self._header_space()
        size = (memoryview(data).nbytes,) if shape is None else shape
        self._stream(self._place(name, role, format, size, act), data)

    def set_source(self, source: Mapping[str, object]) -> None:
        """Digests of the inputs, stored as JSON under edgellm.source."""
        self._source = source

    def _place(
        self, name: str, role: str, format: str, shape: Sequence[int], act: str | None
    ) -> TensorInfo:
        info = TensorInfo(name, role, format, tuple(shape), act, self._cursor)
        if defect := tensor_defect(info):
            raise InvalidArgumentError(f"tensor {name!r}: {defect.message}")
        if name in self._tensors or name == HASHES_NAME:
            raise InvalidArgumentError(f"tensor {name!r} is there already")
        if len(self._tensors) + 1 >= MAX_TENSORS:
            raise InvalidArgumentError(f"more than {MAX_TENSORS} tensors")
        self._tensors[name] = info
        self._cursor += info.stored_bytes
        return info

    def _stream(self, info: TensorInfo, data: Buffer | Iterable[Buffer]) -> None:
        chunks = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
        n_bytes = 0
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            n_bytes += len(view)
            if n_bytes > info.n_bytes:
                break
            self._write(view)
        if n_bytes != info.n_bytes:
            more = "more than " if n_bytes > info.n_bytes else f"{n_bytes} bytes instead of "
            raise InvalidArgumentError(f"tensor {info.name!r}: {more}{info.n_bytes} bytes")
        self._write(memoryview(_ZEROS)[: info.stored_bytes - info.n_bytes])

    def _write(self, view: memoryview) -> None:
        if self._file is None:
            raise InvalidArgumentError("the writer is not open; use it in a with statement")
        try:
            if self._leaves.n_bytes == 0:
                self._file.seek(self._data_start)
            self._leaves.update(view)
            _write_all(self._file, view)
        except OSError as error:
            raise self._write_failed(error) from error

    def _header_space(self) -> int:
        """Data start for what is known now, plus the reserve."""
        text = self._header_text(self._tensors | {HASHES_NAME: _hashes_info(MAX_SIZE)}, "0" * 64)
        return round_up(8 + len(text) + max(self._reserve_bytes, 0), DATA_ALIGNMENT)

    def _header_text(self, tensors: Mapping[str, TensorInfo], root: str) -> bytes:
        source = self._source
        return header_text(
            tensors,
            spec=self._spec,
            requires=self._requires,
            source=None if source is None else json.dumps(source, separators=(",", ":")),
            metadata=self._metadata,
            root=root,
        )

    def readable(self) -> Path:
        """The temporary file, made a whole one of what was added. Close it before adding more,
        which overwrites its hashes."""
        self._seal()
        assert self._file is not None
        self._file.seek(self._data_start + self._cursor)
        return self._temp

    def _seal(self) -> None:
        """Hashes and header of what was added."""
        if self._n_added != len(self._planned):
            raise InvalidArgumentError(f"tensor {self._planned[self._n_added]!r} was never added")
        if not self._tensors:
            raise InvalidArgumentError("a file needs at least one tensor")
        n_hashed = self._cursor
        digests = self._leaves.digests()
        stored = digests + bytes(round_up(len(digests), BLOB_ALIGNMENT) - len(digests))
        info = _hashes_info(n_hashed)
        tensors = self._tensors | {HASHES_NAME: info}
        text = self._header_text(tensors, hash_root(stored, n_hashed))
        header = seal_header(text, self._data_start)
        assert self._file is not None
        _write_all(self._file, memoryview(stored))
        self._file.seek(0)
        _write_all(self._file, memoryview(header))

    def _finish(self) -> None:
        self._seal()
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temp, self._path)
        fsync_directory(self._path.parent)

    def _write_failed(self, error: OSError) -> EdgeError:
        return FormatError(f"{self._path}: write failed: {error.strerror}", "file_write_failed")


def _hashes_info(n_hashed: int) -> TensorInfo:
    n_leaves = -(-n_hashed // LEAF_BYTES)
    return TensorInfo(HASHES_NAME, "hashes", "U8", (32 * n_leaves,), None, n_hashed)


def _write_all(file: BinaryIO, view: memoryview) -> None:
    while len(view):  # an unbuffered write may be short
        view = view[file.write(view) :]


def _open(path: Path) -> BinaryIO:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            # Opening a pipe would wait for a writer.
            raise FormatError(f"{path}: is not a regular file", "file_unreadable")
        return path.open("rb")
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", "file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}", "file_unreadable") from None
