"""The Hadamard rotation of a head's channels, and where it is folded into the weights.

Values are rotated by R: the rows of `attn_v` (and its bias) of every kv head, and the columns of
`attn_o` of every head that reads them by its inverse, so that the model stays the same function
while no channel of what the KV cache stores sticks out (QuaRot, Ashkboos et al. 2024,
arXiv:2404.00456). R is symmetric and its own inverse. Lies between the checkpoint and what was
folded by scales (fold.py). numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .quant.tiles import F32Array
from .spec import ModelSpec

ROTATED_MATRICES = ("attn_v", "attn_o")


def block_length(head_dim: int) -> int:
    """The largest power of two that divides it: what one Hadamard matrix mixes."""
    return head_dim & -head_dim


def rotated(x: F32Array, head_dim: int) -> F32Array:
    """R applied to the last axis, which holds whole heads: blocks of block_length() channels, each
    times the Hadamard matrix over the root of that. Sums of float32 in float64, rounded once."""
    n = block_length(head_dim)
    y = x.reshape(-1, n).astype(np.float64)
    stride = 1
    while stride < n:
        pairs = y.reshape(-1, n // (2 * stride), 2, stride)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        y = np.stack([first + second, first - second], axis=2).reshape(-1, n)
        stride *= 2
    return (y / math.sqrt(n)).astype(np.float32).reshape(x.shape)


class ValueRotation:
    """Of the values of some layers of a model."""

    def __init__(self, spec: ModelSpec, layers: Iterable[int] = ()) -> None:
        self._spec = spec
        self.layers = tuple(sorted(layers))

    def rows_to_read(self, name: str, row0: int, n_rows: int) -> tuple[int, int]:
        """What rows [row0, row0 + n_rows) of tensor `name` are made of: first row and number."""
        index = self._layer(name)
        if index is None or not name.endswith(".attn_v"):
            return row0, n_rows
        head_dim = self._spec.layers[index].head_dim
        first = row0 // head_dim * head_dim
        return first, -(-(row0 + n_rows) // head_dim) * head_dim - first

    def apply(self, name: str, rows: F32Array) -> F32Array:
        """Rows of tensor `name`, those of `attn_v` being whole heads; a vector is one row."""
        index = self._layer(name)
        if index is None:
            return rows
        head_dim = self._spec.layers[index].head_dim
        if not name.endswith(".attn_v"):
            return rotated(rows, head_dim)
        return np.ascontiguousarray(rotated(np.ascontiguousarray(rows.T), head_dim).T)

    def _layer(self, name: str) -> int | None:
        """The layer of a tensor that is rotated."""
        parts = name.split(".")
        is_rotated = len(parts) == 3 and parts[2].removesuffix("_bias") in ROTATED_MATRICES
        if not is_rotated or parts[2] == "attn_o_bias" or int(parts[1]) not in self.layers:
            return None
        return int(parts[1])
