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
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from . import archs
from .packed import Packing, Strips, Unpack, find_packing
from .packed.float8 import FLOAT8_DTYPES, decode_float8
from .safetensors_header import DTYPE_BYTES, TensorInfo, read_safetensors_header
from .source_path import PICKLE_SUFFIXES, existing_directory

if TYPE_CHECKING:
    from .tokenizer import Description

F32Array = npt.NDArray[np.float32]

MAX_JSON_BYTES = 64 << 20
COMPARE_WEIGHTS = 4 << 20  # read at a time by same_tensor()
READABLE_DTYPES = ("F32", "F16", "BF16", *FLOAT8_DTYPES)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


class Checkpoint:
    """An opened directory. read_rows() is thread-safe; close() when done.

    tensors, config: as if nothing were packed; warnings: what unpacking leaves out.
    without_weights: a directory without weights, or its config.json itself, will do.
    """

    kind = "huggingface"  # as it stands in the file's source

    def __init__(self, path: Path, *, without_weights: bool = False) -> None:
        alone = without_weights and path.suffix == ".json" and path.is_file()
        directory = existing_directory(path.parent if alone else path)
        config = read_json_object(path if alone else directory / "config.json")
        has_weights = not alone and not (without_weights and _is_bare(directory))
        weight_paths = _weight_files(directory) if has_weights else []
        tensors: dict[str, TensorInfo] = {}
        for path in weight_paths:
            for info in read_safetensors_header(path):
                if info.name in tensors:
                    raise FormatError(
                        f"tensor '{info.name}' stands in {tensors[info.name].path.name} and "
                        f"in {path.name}",
                        code="tensor_overlap",
                    )
                tensors[info.name] = info
        if has_weights:
            _check_index(directory, tensors)
        packing = find_packing(config, tensors) if has_weights else Packing({})
        config = {k: v for k, v in config.items() if k != "quantization_config"}
        self._open(directory, config, weight_paths, packing, has_weights=has_weights)

    def _open(
        self,
        directory: Path,
        config: Mapping[str, Any],
        weight_paths: Iterable[Path],
        packing: Packing,
        *,
        has_weights: bool,
    ) -> None:
        self.directory, self.config = directory, dict(config)
        self.weight_paths, self.has_weights = list(weight_paths), has_weights
        self.tensors, self._unpack = dict(packing.tensors), dict(packing.unpack)
        self.warnings = packing.warnings
        self._strips, self._strip_format = packing.strips, packing.strip_format
        self._files: dict[Path, BinaryIO] = {}
        self._lock = threading.Lock()

    @property
    def arch(self) -> archs.Architecture:
        """The family; UnsupportedError says what is not understood."""
        return archs.find(self.config)

    def tokenizer_description(self) -> Description | None:
        """What a tokenizer is compiled from; None if there is none."""
        if not any((self.directory / name).exists() for name in _TOKENIZER_FILES):
            return None
        from .tokenizer.source import describe

        return describe(self.directory)

    def exact_format(self, names: Collection[str]) -> str | None:
        """The weight format that holds exactly what is stored under one of `names`."""
        return self._strip_format if self._strips.keys() & set(names) else None

    def best_format(self, names: Collection[str], *, whole: bool) -> str | None:
        """The weight format nearest to what is stored under `names`, the parts of one tensor; None:
        none in particular. whole: it is one of them as it stands."""
        return self.exact_format(names) if whole else None

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

    def define(self, info: TensorInfo, read: Unpack) -> None:
        """A tensor made of others, which is then read like them."""
        self.tensors[info.name], self._unpack[info.name] = info, read

    def is_packed(self, name: str) -> bool:
        """Whether a tensor is stored otherwise than it is read."""
        return name in self._unpack

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
        offset = info.offset_bytes + row0 * row_bytes
        return self.file_bytes(info.path, offset, n_rows * row_bytes)

    def file_bytes(self, path: Path, offset: int, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Bytes of one of the weight files."""
        buffer = np.empty(n_bytes, dtype=np.uint8)
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = path.open("rb", buffering=0)
                self._files[path] = file
            file.seek(offset)
            _read_exactly(file, buffer.data, path)
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


def _is_bare(directory: Path) -> bool:
    """Whether a directory holds nothing that could be weights."""
    ends = (".safetensors", ".safetensors.index.json", *PICKLE_SUFFIXES)
    return not any(path.name.endswith(ends) for path in directory.iterdir())


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


def same_tensor(checkpoint: Checkpoint, a: str, b: str) -> bool:
    """Whether two matrices hold the same numbers."""
    first, second = checkpoint.tensors[a], checkpoint.tensors[b]
    if first.shape != second.shape or len(first.shape) != 2:
        return False
    n_rows, n_cols = first.shape
    n_block = max(1, COMPARE_WEIGHTS // max(n_cols, 1))
    for row0 in range(0, n_rows, n_block):
        n = min(n_block, n_rows - row0)
        if not np.array_equal(checkpoint.read_rows(a, row0, n), checkpoint.read_rows(b, row0, n)):
            return False
    return True
