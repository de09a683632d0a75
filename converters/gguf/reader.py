"""The header of GGUF files, version 2 and 3, untrusted: counts, lengths, ranges and overlaps are
checked before anything is allocated for them.

Reads one file or all parts of a split one ("-00001-of-00003"). Knows no architecture and no
tokenizer. Layout: docs/gguf.md of ggml.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError, UnsupportedError

from ..safetensors_header import TensorInfo
from .types import GgmlType, ggml_type

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 1 << 16  # of a key
MAX_TENSOR_NAME_BYTES = 255
MAX_STRING_BYTES = 16 << 20
MAX_VALUES = 1 << 24  # of all arrays together
MAX_DEPTH = 4
MAX_DIMS = 4
MAX_SIZE = 1 << 48
MAX_PARTS = 1000
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_NUMBERS: Mapping[int, struct.Struct] = {
    number: struct.Struct(f"<{code}")
    for number, code in (
        (0, "B"),
        (1, "b"),
        (2, "H"),
        (3, "h"),
        (4, "I"),
        (5, "i"),
        (6, "f"),
        (10, "Q"),
        (11, "q"),
        (12, "d"),
    )
}
_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
_FLOAT = _NUMBERS[_FLOAT32]
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class GgufFile:
    """metadata: of the first part. tensors: of all parts, by name; a shape has its rows first, as
    numpy writes it, and dtype is ggml's name of the type."""

    path: Path
    paths: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]


def read_gguf(path: Path) -> GgufFile:
    """FormatError, UnsupportedError: what is wrong, where, and what to do."""
    first = _read_part(path)
    n_parts = first.metadata.get("split.count", 1)
    if n_parts in (0, 1):
        return first
    if not _is_count(n_parts) or n_parts > MAX_PARTS:
        raise _invalid(path, f"split.count is {str(n_parts)[:40]}, at most {MAX_PARTS} parts")
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != n_parts:
        raise _invalid(
            path,
            f"one of {n_parts} parts, whose name must end in -00001-of-{n_parts:05d}.gguf; give "
            "the parts the names that they were published under",
        )
    paths = [
        path.with_name(f"{match[1]}-{number:05d}-of-{n_parts:05d}.gguf")
        for number in range(1, n_parts + 1)
    ]
    missing = [item.name for item in paths if not item.exists()]
    if missing:
        raise FormatError(
            f"{path}: one of {n_parts} parts, but {', '.join(missing[:3])} is not beside it: the "
            "download is not complete",
            code="file_not_found",
        )
    return _joined(path, [_read_part(item) for item in paths])


def _joined(path: Path, parts: list[GgufFile]) -> GgufFile:
    tensors: dict[str, TensorInfo] = {}
    for index, part in enumerate(parts):
        number, count = (part.metadata.get(key) for key in ("split.no", "split.count"))
        if (number, count) != (index, len(parts)):
            raise _invalid(part.path, f"says it is part {number} of {count}, its name says {index}")
        for name, info in part.tensors.items():
            if name in tensors:
                raise FormatError(
                    f"tensor '{name}' stands in {tensors[name].path.name} and in {part.path.name}",
                    code="tensor_overlap",
                )
            tensors[name] = info
    n_told = parts[0].metadata.get("split.tensors.count", len(tensors))
    if n_told != len(tensors):
        raise FormatError(
            f"{path}: its parts hold {len(tensors)} tensors, split.tensors.count is {n_told}",
            code="tensor_missing",
        )
    return GgufFile(path, tuple(part.path for part in parts), parts[0].metadata, tensors)


def _read_part(path: Path) -> GgufFile:
    try:
        with path.open("rb") as file:
            n_bytes = file.seek(0, 2)
            if n_bytes < 24:
                raise FormatError(
                    f"{path}: {n_bytes} bytes, too small for a GGUF file", code="file_too_small"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Header(path, data).read()
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error


class _Header:
    """A cursor over one file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._at = 0
        self._n_values = 0

    def read(self) -> GgufFile:
        self._check_beginning()
        n_tensors, n_keys = self._u64(), self._u64()
        if n_tensors > MAX_TENSORS:
            raise FormatError(
                f"{self._path}: {n_tensors} tensors, at most {MAX_TENSORS} are read",
                code="too_many_tensors",
            )
        if n_keys > MAX_KEYS:
            raise _invalid(self._path, f"{n_keys} keys, at most {MAX_KEYS} are read")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self._string(MAX_NAME_BYTES, "a key")
            if key in metadata:
                raise FormatError(
                    f"{self._path}: key '{key[:200]}' stands twice", code="json_duplicate_key"
                )
            metadata[key] = self._value(self._u32(), key, 0)
        alignment = self._alignment(metadata)
        entries = [self._tensor() for _ in range(n_tensors)]
        data_start = -(-self._at // alignment) * alignment
        tensors = [self._placed(*entry, data_start, alignment) for entry in entries]
        _check_overlaps(self._path, tensors)
        return GgufFile(self._path, (self._path,), metadata, {info.name: info for info in tensors})

    def _check_beginning(self) -> None:
        magic = self._take(4)
        if magic != MAGIC:
            raise FormatError(
                f"{self._path}: does not begin with GGUF: not a GGUF file (is this a git-lfs "
                "pointer?)",
                code="file_unreadable",
            )
        version = self._u32()
        if version in VERSIONS:
            return
        if version & 0xFFFF == 0:
            raise UnsupportedError(
                f"{self._path}: a big-endian GGUF file cannot be read; convert it with llama.cpp's "
                "gguf_convert_endian.py, or take the little-endian file",
                code="version_unsupported",
            )
        raise UnsupportedError(
            f"{self._path}: GGUF version {version} cannot be read (readable are 2 and 3); convert "
            "the original model again with a present-day llama.cpp",
            code="version_unsupported",
        )

    def _take(self, n_bytes: int) -> bytes:
        end = self._at + n_bytes
        if end > len(self._data):
            raise FormatError(
                f"{self._path}: ends inside its header, at byte {self._at}: the download is not "
                "complete",
                code="header_truncated",
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _string(self, limit: int, what: str) -> str:
        n_bytes = self._u64()
        if n_bytes > limit:
            raise _invalid(
                self._path,
                f"{what} of {n_bytes} bytes at byte {self._at}, at most {limit} are read",
            )
        raw = self._take(n_bytes)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _invalid(
                self._path, f"{what} at byte {self._at - n_bytes} is not UTF-8: {error.reason}"
            ) from error

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _NUMBERS:
            value = self._numbers(kind, 1)[0]
            return _shortest(value) if kind == _FLOAT32 else value
        if kind == _BOOL:
            return self._flag(key)
        if kind == _STRING:
            return self._string(MAX_STRING_BYTES, f"the text of '{key[:200]}'")
        if kind == _ARRAY:
            return self._array(key, depth)
        raise _invalid(self._path, f"key '{key[:200]}' has a value of unknown type {kind}")

    def _flag(self, key: str) -> bool:
        value = self._take(1)[0]
        if value > 1:
            raise _invalid(self._path, f"key '{key[:200]}': {value} is neither true nor false")
        return bool(value)

    def _numbers(self, kind: int, n: int) -> list[Any]:
        unit = _NUMBERS[kind]
        raw = self._take(n * unit.size)
        return [value for (value,) in unit.iter_unpack(raw)]

    def _array(self, key: str, depth: int) -> list[Any]:
        kind, n = self._u32(), self._u64()
        self._n_values += n
        if self._n_values > MAX_VALUES:
            raise _invalid(
                self._path, f"key '{key[:200]}': arrays of more than {MAX_VALUES} values in all"
            )
        if depth == MAX_DEPTH:
            raise _invalid(self._path, f"key '{key[:200]}': arrays in arrays, deeper than {depth}")
        if kind in _NUMBERS:
            return self._numbers(kind, n)
        return [self._value(kind, key, depth + 1) for _ in range(n)]

    def _alignment(self, metadata: Mapping[str, Any]) -> int:
        value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not _is_count(value) or value > MAX_ALIGNMENT or value < 8 or value & (value - 1):
            raise FormatError(
                f"{self._path}: general.alignment is {str(value)[:40]}, it must be a power of two "
                f"from 8 to {MAX_ALIGNMENT}",
                code="data_misaligned",
            )
        return int(value)

    def _tensor(self) -> tuple[str, tuple[int, ...], GgmlType, int]:
        name = self._string(MAX_TENSOR_NAME_BYTES, "a tensor name")
        where = f"{self._path}: tensor '{name}'"
        n_dims = self._u32()
        if not 1 <= n_dims <= MAX_DIMS:
            raise FormatError(f"{where}: {n_dims} dimensions", code="tensor_shape")
        shape = tuple(self._u64() for _ in range(n_dims))[::-1]
        if 0 in shape or math.prod(shape) > MAX_SIZE:
            raise FormatError(f"{where}: shape {list(shape)} is not valid", code="tensor_shape")
        kind = ggml_type(self._u32(), where)
        if shape[-1] % kind.n_weights:
            raise FormatError(
                f"{where}: rows of {shape[-1]} weights are not whole {kind.name} blocks of "
                f"{kind.n_weights}",
                code="tensor_shape",
            )
        return name, shape, kind, self._u64()

    def _placed(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: GgmlType,
        offset: int,
        data_start: int,
        alignment: int,
    ) -> TensorInfo:
        where = f"{self._path}: tensor '{name}'"
        if offset % alignment:
            raise FormatError(
                f"{where}: offset {offset} is not a multiple of {alignment}", code="tensor_offsets"
            )
        n_bytes = math.prod(shape) // kind.n_weights * kind.n_bytes
        begin = data_start + offset
        if begin + n_bytes > len(self._data):
            raise FormatError(
                f"{where}: ends at byte {begin + n_bytes}, the file has {len(self._data)}: the "
                "download is not complete",
                code="tensor_past_end",
            )
        return TensorInfo(name, kind.name, shape, self._path, begin, n_bytes)


def _check_overlaps(path: Path, tensors: list[TensorInfo]) -> None:
    names = {info.name for info in tensors}
    if len(names) != len(tensors):
        raise FormatError(f"{path}: a tensor name stands twice", code="tensor_name")
    ordered = sorted(tensors, key=lambda info: info.offset_bytes)
    for one, other in pairwise(ordered):
        if one.offset_bytes + one.n_bytes > other.offset_bytes:
            raise FormatError(
                f"{path}: tensors '{one.name}' and '{other.name}' overlap", code="tensor_overlap"
            )


def _shortest(value: float) -> float:
    """The decimal with the fewest digits that is the same float32: 1e-06, where the exact value of
    those 32 bits is 9.99999997e-07. What was converted wrote the former."""
    for n_digits in range(6, 9):
        text = f"{value:.{n_digits}g}"
        if _FLOAT.unpack(_FLOAT.pack(float(text)))[0] == value:
            return float(text)
    return float(f"{value:.9g}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _invalid(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: {what}", code="gguf_invalid")
