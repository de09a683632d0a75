"""safetensors files written in any order: shapes first, rows when they come, in bounded memory.

The layout is decided before a byte is written. Within a file wide types stand first, so that every
tensor is aligned to its type. Knows nothing of what tensors mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..safetensors_header import DTYPE_BYTES

MAX_SHARD_BYTES = 5_000_000_000  # what transformers writes
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class StoredTensor:
    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class ShardWriter:
    """Use as a context manager. Files are named as transformers names them: one file
    `model.safetensors`, or several with an index. Every byte of every tensor must be written."""

    def __init__(
        self,
        directory: Path,
        tensors: Iterable[StoredTensor],
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self._directory = directory
        self._shards = _split(list(tensors), max_shard_bytes)
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        self._files: list[BinaryIO] = []

    def __enter__(self) -> ShardWriter:
        n = len(self._shards)
        names = [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
        if n == 1:
            names = ["model.safetensors"]
        for name, shard in zip(names, self._shards, strict=True):
            self._start(self._directory / name, shard)
        if n > 1:
            pairs = zip(names, self._shards, strict=True)
            self._write_index({tensor.name: name for name, shard in pairs for tensor in shard})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()

    def write(self, name: str, offset_bytes: int, data: npt.NDArray[Any]) -> None:
        """The bytes of `data`, offset_bytes into tensor `name`."""
        file, begin = self._places[name]
        file.seek(begin + offset_bytes)
        file.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)

    def _start(self, path: Path, shard: Sequence[StoredTensor]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for tensor in shard:
            end = position + tensor.n_bytes
            header[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [position, end],
            }
            position = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _HEADER_ALIGNMENT)
        file = path.open("wb")
        self._files.append(file)
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
        for tensor in shard:
            begin = 8 + len(text) + header[tensor.name]["data_offsets"][0]
            self._places[tensor.name] = (file, begin)

    def _write_index(self, weight_map: dict[str, str]) -> None:
        total = sum(tensor.n_bytes for shard in self._shards for tensor in shard)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        path = self._directory / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _split(tensors: list[StoredTensor], max_shard_bytes: int) -> list[list[StoredTensor]]:
    shards: list[list[StoredTensor]] = [[]]
    n_bytes = 0
    for tensor in tensors:
        if shards[-1] and n_bytes + tensor.n_bytes > max_shard_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(tensor)
        n_bytes += tensor.n_bytes
    for shard in shards:
        shard.sort(key=lambda tensor: -DTYPE_BYTES[tensor.dtype])
    return shards
