"""A Hugging Face checkpoint directory, read without torch and without mapping it.

Reads config.json and safetensors (one file, or shards with an index) lazily: a tensor's rows are
read when asked for and arrive as float32; packed/ says how where they are stored otherwise. All
in the directory is untrusted: headers are validated before any length in them is used, and shard
names cannot leave the directory. Knows nothing of architectures; pickles are refused.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from .packed import Strips, find_packing
from .packed.float8 import FLOAT8_DTYPES, decode_float8
from .source_path import PICKLE_SUFFIXES, existing_directory

F32Array = npt.NDArray[np.float32]

MAX_HEADER_BYTES = 100 << 20
MAX_JSON_BYTES = 64 << 20
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
READABLE_DTYPES = ("F32", "F16", "BF16", *FLOAT8_DTYPES)
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


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


class Checkpoint:
    """An opened directory. read_rows() is thread-safe; close() when done.

    tensors, config: as if nothing were packed; warnings: what unpacking leaves out.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = existing_directory(directory)
        self.config = read_json_object(self.directory / "config.json")
        self.weight_paths = _weight_files(self.directory)
        self.tensors: dict[str, TensorInfo] = {}
        for path in self.weight_paths:
            for info in read_safetensors_header(path):
                if info.name in self.tensors:
                    raise FormatError(
                        f"tensor '{info.name}' stands in {self.tensors[info.name].path.name} and "
                        f"in {path.name}",
                        code="tensor_overlap",
                    )
                self.tensors[info.name] = info
        _check_index(self.directory, self.tensors)
        packing = find_packing(self.config, self.tensors)
        self.config = {k: v for k, v in self.config.items() if k != "quantization_config"}
        self.tensors, self._unpack = dict(packing.tensors), packing.unpack
        self.warnings = packing.warnings
        self._strips, self._strip_format = packing.strips, packing.strip_format
        self._files: dict[Path, BinaryIO] = {}
        self._lock = threading.Lock()

    def optional_json(self, name: str) -> dict[str, Any]:
        """A JSON object of the directory; {} if there is no such file."""
        path = self.directory / name
        return read_json_object(path) if path.exists() else {}

    def optional_text(self, name: str) -> str | None:
        """A UTF-8 text file of the directory; None if there is no such file."""
        path = self.directory / name
        if not path.exists():
            return None
        return _read_text(path)

    def read_rows(self, name: str, row0: int, n_rows: int) -> F32Array:
        """Rows [row0, row0 + n_rows) as float32 [n_rows, n_cols]; a vector is one row."""
        info = self.tensors[name]
        total_rows, _ = matrix_shape(info.shape)
        if row0 < 0 or n_rows < 1 or row0 + n_rows > total_rows:
            raise IndexError(f"rows {row0}+{n_rows} of '{name}', which has {total_rows}")
        if name in self._unpack:
            return self._unpack[name](self, row0, n_rows)
        return self.stored_rows(info, row0, n_rows)

    def strips_in(self, format: str) -> Mapping[str, Strips]:
        """How to read the tensors that are stored in a weight format, as its strips."""
        return self._strips if format == self._strip_format else {}

    def stored_rows(self, info: TensorInfo, row0: int, n_rows: int) -> F32Array:
        """Rows of a tensor of the files as float32 [n_rows, n_cols], packed or not."""
        raw = self.stored_bytes(info, row0, n_rows)
        return to_float32(raw, info).reshape(n_rows, matrix_shape(info.shape)[1])

    def stored_bytes(self, info: TensorInfo, row0: int, n_rows: int) -> npt.NDArray[np.uint8]:
        """The same rows, byte by byte."""
        row_bytes = matrix_shape(info.shape)[1] * DTYPE_BYTES[info.dtype]
        buffer = np.empty(n_rows * row_bytes, dtype=np.uint8)
        with self._lock:
            file = self._files.get(info.path)
            if file is None:
                file = info.path.open("rb", buffering=0)
                self._files[info.path] = file
            file.seek(info.offset_bytes + row0 * row_bytes)
            _read_exactly(file, buffer.data, info.path)
        return buffer

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a matrix; a vector [n] is one row."""
    return (shape[0], shape[1]) if len(shape) == 2 else (1, math.prod(shape))


def to_float32(raw: npt.NDArray[np.uint8], info: TensorInfo) -> F32Array:
    """Little-endian bytes of a tensor as float32, exactly."""
    if info.dtype == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if info.dtype == "F16":
        return raw.view("<f2").astype(np.float32)
    if info.dtype == "BF16":
        bits = np.empty(raw.size // 2, dtype=np.uint32)
        np.left_shift(raw.view("<u2"), 16, out=bits, dtype=np.uint32)
        return bits.view(np.float32)
    if info.dtype in FLOAT8_DTYPES:
        return decode_float8(raw, info.dtype)
    raise UnsupportedError(
        f"tensor '{info.name}' in {info.path.name}: dtype {info.dtype} cannot be converted; "
        f"readable are {', '.join(READABLE_DTYPES)}",
        code="tensor_dtype",
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object."""
    text = _read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}", code="json_syntax") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: must hold a JSON object", code="json_type")
    return value


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


def _read_exactly(file: BinaryIO, view: memoryview, path: Path) -> None:
    done = 0
    while done < len(view):
        n = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not n:
            raise FormatError(f"{path}: shrank while it was read", code="tensor_past_end")
        done += n


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    if len(data) > MAX_JSON_BYTES:
        raise FormatError(f"{path}: more than {MAX_JSON_BYTES} bytes", code="header_too_large")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8: {error}", code="json_syntax") from error


def _weight_files(directory: Path) -> list[Path]:
    index_path = directory / "model.safetensors.index.json"
    if index_path.exists():
        names = sorted(set(_weight_map(index_path).values()))
        return [_inside(directory, name) for name in names]
    if (directory / "model.safetensors").exists():
        return [_inside(directory, "model.safetensors")]
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnsupportedError(
            f"{directory}: only pickled weights ({pickles[0]}), which can run code when read; "
            "convert to safetensors first: AutoModelForCausalLM.from_pretrained(SRC)"
            ".save_pretrained(DST) of transformers writes it",
            code="file_unreadable",
        )
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    found = f"; it holds {', '.join(others[:4])}" if others else ""
    raise FormatError(
        f"{directory}: neither model.safetensors nor model.safetensors.index.json{found}",
        code="file_not_found",
    )


def _weight_map(index_path: Path) -> dict[str, str]:
    weight_map = read_json_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{index_path}: no 'weight_map' object", code="json_missing_key")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not _SHARD_NAME.fullmatch(file_name):
            raise FormatError(
                f"{index_path}: tensor {name[:200]!r} names the file {str(file_name)[:200]!r}; "
                "only plain *.safetensors names are allowed",
                code="file_unreadable",
            )
    return weight_map


def _inside(directory: Path, name: str) -> Path:
    """The file, unless it is a link out of the directory (or out of its hub cache entry)."""
    path = directory / name
    if not path.exists():
        raise FormatError(
            f"{path}: named by the index but missing: the download is not complete",
            code="file_not_found",
        )
    root = directory.resolve()
    # The hub cache links snapshots/<revision>/<file> to blobs/<digest> beside snapshots.
    allowed = [root] + ([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])
    target = path.resolve()
    if not any(target.is_relative_to(base) for base in allowed):
        raise FormatError(f"{path}: is a link out of {directory}", code="file_unreadable")
    return path


def _check_index(directory: Path, tensors: dict[str, TensorInfo]) -> None:
    index_path = directory / "model.safetensors.index.json"
    if not index_path.exists():
        return
    for name, file_name in _weight_map(index_path).items():
        info = tensors.get(name)
        if info is None or info.path.name != file_name:
            raise FormatError(
                f"{index_path}: tensor '{name}' is not in {file_name}", code="tensor_missing"
            )


def check_names(
    tensors: Iterable[str], expected: Iterable[str], ignorable: Iterable[str], where: Path
) -> None:
    """Every expected tensor must be there and nothing else may be, except the ignorable."""
    have, want, skip = set(tensors), set(expected), set(ignorable)
    missing = sorted(want - have)
    if missing:
        raise FormatError(
            f"{where}: {len(missing)} tensors are missing: {', '.join(missing[:5])}",
            code="tensor_missing",
        )
    extra = sorted(have - want - skip)
    if extra:
        raise UnsupportedError(
            f"{where}: {len(extra)} tensors are not understood: {', '.join(extra[:5])}",
            code="tensor_unexpected",
        )
