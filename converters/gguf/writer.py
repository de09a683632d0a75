"""Writes GGUF version 3: keys, tensor infos, then the tensors' bytes as a stream.

Sizes follow from shapes and types, so the header is written first and nothing is kept in memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .reader import DEFAULT_ALIGNMENT, MAGIC
from .types import BY_NAME, NUMBERS

_VERSION = 3
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True)
class OutTensor:
    """shape: rows first. type_name: whole blocks of it make a row."""

    name: str
    shape: tuple[int, ...]
    type_name: str

    @property
    def n_bytes(self) -> int:
        kind = BY_NAME[self.type_name]
        return math.prod(self.shape) // kind.n_weights * kind.n_bytes


class GgufWriter:
    """Tensors are added in the order in which they were announced."""

    def __init__(
        self, file: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[OutTensor]
    ) -> None:
        self._file, self._left = file, list(tensors)
        header = MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))
        header += b"".join(_text(key) + _value(value) for key, value in metadata.items())
        offset = 0
        for tensor in tensors:
            dims = tensor.shape[::-1]
            header += _text(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            header += struct.pack("<IQ", NUMBERS[tensor.type_name], offset)
            offset += _padded(tensor.n_bytes)
        file.write(header + bytes(_padded(len(header)) - len(header)))
        self.n_bytes = _padded(len(header)) + offset  # of the whole file

    def add(self, tensor: OutTensor, pieces: Iterable[npt.NDArray[np.uint8]]) -> None:
        """The bytes of the next tensor, in pieces."""
        announced = self._left.pop(0)
        n_bytes = 0
        for piece in pieces:
            self._file.write(np.ascontiguousarray(piece).data)
            n_bytes += piece.nbytes
        assert (announced, n_bytes) == (tensor, tensor.n_bytes)
        self._file.write(bytes(_padded(n_bytes) - n_bytes))


def total_bytes(tensors: Iterable[OutTensor]) -> int:
    """Of all tensors in a file, the header left out."""
    return sum(_padded(tensor.n_bytes) for tensor in tensors)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, raw = _items(value)
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + raw
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<Ii", _I32, value) if value < 0 else struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    assert isinstance(value, str)
    return struct.pack("<I", _STRING) + _text(value)


def _items(values: list[Any]) -> tuple[int, bytes]:
    """Of one type each, as the vocabulary's arrays have them."""
    if all(isinstance(value, str) for value in values):
        return _STRING, b"".join(map(_text, values))
    if all(isinstance(value, bool) for value in values):
        return _BOOL, bytes(values)
    if all(isinstance(value, int) for value in values):
        return _I32, struct.pack(f"<{len(values)}i", *values)
    return _F32, struct.pack(f"<{len(values)}f", *values)
