"""Tensors of the file that no tensor of the checkpoint is: parts of fused ones, experts side by
side, transposed, scaled. A view is data; families say which parts, this file reads them.

Knows checkpoints by their tensors, and no architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

F32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """n_rows rows (elements of a vector) of a stored tensor from row0 on.

    stored: None for zeros. shape: of the whole stored tensor; three dimensions are matrices one
    below the other. transposed: it is stored [columns, rows]; of a vector, n_rows / columns values
    after each other for every column that are n_rows / columns rows of the columns' values here.
    """

    stored: str | None
    shape: tuple[int, ...]
    n_rows: int
    row0: int = 0
    transposed: bool = False

    @property
    def is_whole(self) -> bool:
        whole = self.row0 == 0 and self.n_rows == self.shape[0] and len(self.shape) < 3
        return self.stored is not None and whole and not self.transposed


@dataclass(frozen=True)
class View:
    """The parts one below the other, times `scale`, plus `offset`."""

    parts: tuple[Part, ...]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """The stored tensors that it is made of, and their shapes."""
        return {part.stored: part.shape for part in self.parts if part.stored is not None}

    @property
    def is_plain(self) -> bool:
        """Whether it is a stored tensor just as it is."""
        unchanged = self.scale == 1 and self.offset == 0
        return unchanged and len(self.parts) == 1 and self.parts[0].is_whole


def define_view(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], view: View) -> None:
    """Makes the view a tensor `name` of the checkpoint. What it is made of is there and has the
    shapes that the parts say."""
    first = checkpoint.tensors[next(iter(view.stored))]
    # What is computed has no dtype of its own.
    dtype = first.dtype if view.scale == 1 and view.offset == 0 else "F32"
    info = replace(first, name=name, dtype=dtype, shape=shape)
    read = partial(_read_vector if len(shape) == 1 else _read_matrix, view)
    checkpoint.define(info, lambda _reader, row0, n_rows: read(checkpoint, row0, n_rows))


def read_stored(checkpoint: Checkpoint, shape: tuple[int, ...], view: View) -> F32Array:
    """What is stored of a view, neither scaled nor shifted, as float32 of `shape`."""
    view = replace(view, scale=1.0, offset=0.0)
    if len(shape) == 1:
        return _read_vector(view, checkpoint, 0, 1).reshape(shape)
    return _read_matrix(view, checkpoint, 0, shape[0])


def _read_vector(view: View, checkpoint: Checkpoint, _row0: int, _n_rows: int) -> F32Array:
    pieces = [_elements(checkpoint, part) for part in view.parts]
    return _transformed(view, np.concatenate(pieces)).reshape(1, -1)


def _elements(checkpoint: Checkpoint, part: Part) -> F32Array:
    if part.stored is None:
        return np.zeros(part.n_rows, dtype=np.float32)
    if part.transposed:
        flat = checkpoint.read_rows(part.stored, 0, 1).reshape(part.shape[0], -1)
        return np.ascontiguousarray(flat.T).reshape(-1)
    row: F32Array = checkpoint.read_rows(part.stored, 0, 1)[0, part.row0 : part.row0 + part.n_rows]
    return row


def _read_matrix(view: View, checkpoint: Checkpoint, row0: int, n_rows: int) -> F32Array:
    n_cols = next(_n_cols(part) for part in view.parts if part.stored is not None)
    pieces = [
        np.zeros((part.n_rows, n_cols), dtype=np.float32)
        if part.stored is None
        else _rows(checkpoint, part)
        for part in _overlapping(view, row0, n_rows)
    ]
    return _transformed(view, np.ascontiguousarray(np.concatenate(pieces)))


def _n_cols(part: Part) -> int:
    return part.shape[0] if part.transposed else part.shape[-1]


def _overlapping(view: View, row0: int, n_rows: int) -> Iterator[Part]:
    """The parts of rows [row0, row0 + n_rows), cut to them."""
    begin = 0
    for part in view.parts:
        first, end = max(begin, row0), min(begin + part.n_rows, row0 + n_rows)
        if first < end:
            yield replace(part, row0=part.row0 + first - begin, n_rows=end - first)
        begin += part.n_rows


def _rows(checkpoint: Checkpoint, part: Part) -> F32Array:
    assert part.stored is not None
    if part.transposed:
        whole = checkpoint.read_rows(part.stored, 0, part.shape[0])
        return whole[:, part.row0 : part.row0 + part.n_rows].T
    if len(part.shape) == 3:
        return _stacked_rows(checkpoint, part)
    return checkpoint.read_rows(part.stored, part.row0, part.n_rows)


def _stacked_rows(checkpoint: Checkpoint, part: Part) -> F32Array:
    assert part.stored is not None
    info = checkpoint.tensors[part.stored]
    if checkpoint.is_packed(part.stored):
        raise FormatError(
            f"{info.path}: tensor '{part.stored}' holds several matrices and is packed; only "
            "experts one by one can be read packed",
            code="tensor_dtype",
        )
    n_matrices, n_rows, n_cols = info.shape
    flat = replace(info, shape=(n_matrices * n_rows, n_cols))
    return checkpoint.stored_rows(flat, part.row0, part.n_rows)


def _transformed(view: View, rows: F32Array) -> F32Array:
    if view.scale != 1:
        rows = rows * np.float32(view.scale)
    return rows + np.float32(view.offset) if view.offset else rows
