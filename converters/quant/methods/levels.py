"""What the E formats can say, for searches in torch: levels, nearest level, odd 7-bit scales.

w = d_row * scale * level, scale odd in -127..127, one per row and group of columns. A second table
of levels exists for E4 and is chosen with the scale. Knows no byte order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import UnsupportedError

from .. import e4, e6, e8
from ..tiles import U8Array

MAX_SCALE = 127
_N_POSITIONS = 256  # half units of the E4 table: midpoints of its levels are whole numbers of them


@dataclass(frozen=True)
class Levels:
    format: str
    group: int  # columns that share a scale
    n_luts: int
    zero: int = 0  # linear formats: levels are -zero .. zero - 1
    table: Tensor | None = None  # E4: [2 * 256] level of every position, table after table

    def nearest(self, x: Tensor, lut: Tensor | int) -> Tensor:
        """The level next to x (a weight over its scale). lut: 0 or 1, broadcast to x."""
        if self.table is None:
            return x.round().clamp_(-self.zero, self.zero - 1)
        half_units = (x * 2 + 128).floor_().clamp_(0, _N_POSITIONS - 1).long()
        return torch.take(self.table, half_units + lut * _N_POSITIONS)

    def codes(self, levels: Tensor, luts: Tensor) -> U8Array:
        """levels [n_rows, n_cols] and luts [n_rows, n_groups] -> the stored codes."""
        values = levels.numpy()
        if self.table is None:
            return (values + self.zero).astype(np.uint8)
        shift = np.repeat(luts.numpy(), self.group, axis=1) * e4.LUT_SHIFT
        return np.searchsorted(e4.LUT, values - shift + e4.LUT_ZERO).astype(np.uint8)


@cache
def levels_of(format: str) -> Levels:
    """UnsupportedError for formats without scales to choose."""
    if format in ("E4_16", "E4_32"):
        group = 16 if format == "E4_16" else 32
        return Levels(format, group, 2, table=_e4_table())
    if format in ("E6_16", "E8_32"):
        zero, group = (int(e6.ZERO), 16) if format == "E6_16" else (int(e8.ZERO), 32)
        return Levels(format, group, 1, zero)
    raise UnsupportedError(
        f"format '{format}' has no scales to search; its method must be 'rtn'",
        code="tensor_format",
    )


def _e4_table() -> Tensor:
    positions = np.arange(_N_POSITIONS)[:, None]
    tables = []
    for shift in (0.0, float(e4.LUT_SHIFT)):
        lut = e4.LUT + shift
        codes = (lut[:-1] + lut[1:] <= positions).sum(axis=1)
        tables.append(lut[codes] - e4.LUT_ZERO)
    return torch.from_numpy(np.concatenate(tables).astype(np.float32))
