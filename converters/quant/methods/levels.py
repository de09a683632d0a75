"""What the E formats can say, for searches in torch: levels, nearest level, integer scales.

w = d_row * scale * level, |scale| < 128, one per row and group of columns. E2, E3 and E4 have a
table of levels with 8, 4 and 2 zero points, one of which is chosen with the scale. Knows no byte
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import UnsupportedError

from .. import e2, e3, e4, e6, e8
from ..tiles import F32Array, U8Array

_N_POSITIONS = 256  # half units of a table: midpoints of its levels are whole numbers of them


@dataclass(frozen=True)
class Levels:
    """group: columns that share a scale.

    Of a table: lut [n], zeros [n_luts]; levels are lut - zeros[i], and by_position [n_luts * 256]
    has the nearest of every half unit from -zeros[0] on. Otherwise -zero .. zero - 1.
    """

    format: str
    group: int
    zero: int = 0
    lut: F32Array | None = None
    zeros: F32Array | None = None
    by_position: Tensor | None = None

    @property
    def n_luts(self) -> int:
        return 1 if self.zeros is None else len(self.zeros)

    @property
    def scale_step(self) -> int:
        """Between the scales, which are symmetric about 0 (tiles.group_scale)."""
        return max(2, self.n_luts)

    @property
    def max_scale(self) -> int:
        return 128 - self.scale_step // 2

    def scales_of(self, scale_bytes: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 -> the scales, float32, and the numbers of the tables, int64."""
        numbers = scale_bytes % self.scale_step
        return (scale_bytes - numbers).float() - self.max_scale, numbers.long()

    def nearest_scale(self, scales: Tensor) -> Tensor:
        step, largest = self.scale_step, self.max_scale
        nearest = step * ((scales - step / 2) / step).round() + step / 2
        return nearest.clamp_(-largest, largest)

    def nearest(self, x: Tensor, lut: Tensor | int) -> Tensor:
        """The level next to x (a weight over its scale). lut: 0 .. n_luts - 1, broadcast to x."""
        if self.by_position is None or self.zeros is None:
            return x.round().clamp_(-self.zero, self.zero - 1)
        start = 2 * float(self.zeros[0])
        half_units = (x * 2 + start).floor_().clamp_(0, _N_POSITIONS - 1).long()
        return torch.take(self.by_position, half_units + lut * _N_POSITIONS)

    def codes(self, levels: Tensor, luts: Tensor) -> U8Array:
        """levels [n_rows, n_cols] and luts [n_rows, n_groups] -> the stored codes."""
        values: F32Array = levels.numpy()
        if self.lut is None or self.zeros is None:
            linear: U8Array = (values + self.zero).astype(np.uint8)
            return linear
        zeros = np.repeat(self.zeros[luts.numpy()], self.group, axis=1)
        coded: U8Array = np.searchsorted(self.lut, values + zeros).astype(np.uint8)
        return coded


@cache
def levels_of(format: str) -> Levels:
    """UnsupportedError for formats without scales to choose."""
    if format == "E2_16":
        return _of_table(format, 16, e2.LUT, e2.ZEROS)
    if format == "E3_32":
        return _of_table(format, 32, e3.LUT, e3.ZEROS)
    if format in ("E4_16", "E4_32"):
        zeros = np.array([e4.LUT_ZERO, e4.LUT_ZERO - e4.LUT_SHIFT])
        return _of_table(format, 16 if format == "E4_16" else 32, e4.LUT, zeros)
    if format in ("E6_16", "E8_32"):
        zero, group = (int(e6.ZERO), 16) if format == "E6_16" else (int(e8.ZERO), 32)
        return Levels(format, group, zero)
    raise UnsupportedError(
        f"format '{format}' has no scales to search; its method must be 'rtn'",
        code="tensor_format",
    )


def _of_table(format: str, group: int, lut: F32Array, zeros: F32Array) -> Levels:
    positions = np.arange(_N_POSITIONS)[:, None]
    tables = []
    for zero in zeros:
        codes = (lut[:-1] + lut[1:] + 2 * (zeros[0] - zero) <= positions).sum(axis=1)
        tables.append(lut[codes] - zero)
    by_position = torch.from_numpy(np.concatenate(tables).astype(np.float32))
    return Levels(format, group, lut=lut, zeros=zeros, by_position=by_position)
