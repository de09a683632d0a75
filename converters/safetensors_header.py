"""The header of a safetensors file, untrusted: every range is checked before it is used."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError

MAX_HEADER_BYTES = 100 << 20
MAX_TENSORS = 1 << 20
# Bytes per element of every dtype a safetensors header may name; only some can be read.
DTYPE_BYTES = {
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. Shapes and offsets are validated against the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset_bytes: int  # from the start of the file
    n_bytes: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


def read_safetensors_header(path: Path) -> list[TensorInfo]:
    """All tensors of one safetensors file, in file order, with every range checked."""
    try:
        n_file_bytes = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            n_header_bytes = int.from_bytes(prefix, "little") if len(prefix) == 8 else -1
            if n_header_bytes < 0:
                raise FormatError(
                    f"{path}: {n_file_bytes} bytes, too small for a safetensors file",
                    code="file_too_small",
                )
            if n_header_bytes > MAX_HEADER_BYTES:
                raise FormatError(
                    f"{path}: header says it has {n_header_bytes} bytes, at most "
                    f"{MAX_HEADER_BYTES} are read (is this a git-lfs pointer?)",
                    code="header_too_large",
                )
            header = file.read(n_header_bytes)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    if len(header) != n_header_bytes:
        raise FormatError(f"{path}: ends inside its header", code="header_truncated")
    entries = _parse_header(header, path)
    tensors = [
        _tensor_info(name, entry, path, 8 + n_header_bytes) for name, entry in entries.items()
    ]
    tensors.sort(key=lambda info: (info.offset_bytes, info.n_bytes))
    _check_ranges(tensors, path, 8 + n_header_bytes, n_file_bytes)
    return tensors


def _parse_header(header: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise FormatError(f"{path}: a header key stands twice", code="json_duplicate_key")
        return result

    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: header is not JSON: {error}", code="json_syntax") from error
    if not isinstance(entries, dict):
        raise FormatError(f"{path}: header must be an object", code="json_type")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise FormatError(f"{path}: {len(entries)} tensors", code="too_many_tensors")
    return entries


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _tensor_info(name: str, entry: object, path: Path, data_start: int) -> TensorInfo:
    where = f"{path}: tensor {name[:200]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: needs dtype, shape and data_offsets", code="json_type")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise FormatError(f"{where}: unknown dtype {str(dtype)[:40]!r}", code="tensor_dtype")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_size, shape)):
        raise FormatError(f"{where}: shape {str(shape)[:80]} is not valid", code="tensor_shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise FormatError(f"{where}: bad data_offsets", code="tensor_offsets")
    begin, end = offsets
    n_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != n_bytes:
        raise FormatError(
            f"{where}: {end - begin} bytes, its shape and dtype need {n_bytes}",
            code="tensor_offsets",
        )
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, n_bytes)


def _check_ranges(
    tensors: list[TensorInfo], path: Path, data_start: int, n_file_bytes: int
) -> None:
    """Tensors must tile the data section: no overlap, no hole, nothing past the end."""
    position = data_start
    for info in tensors:
        if info.offset_bytes != position:
            kind = "overlap" if info.offset_bytes < position else "hole"
            raise FormatError(f"{path}: {kind} before tensor '{info.name}'", code=f"tensor_{kind}")
        position += info.n_bytes
    if position > n_file_bytes:
        raise FormatError(
            f"{path}: {n_file_bytes} bytes, its header needs {position}: the download is not "
            "complete",
            code="tensor_past_end",
        )
    if position < n_file_bytes:
        raise FormatError(
            f"{path}: {n_file_bytes - position} bytes after the last tensor", code="trailing_bytes"
        )
