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
    """extremes: the |levels| that the largest weight of a group is tried on."""

    group: int  # columns that share a scale
    n_luts: int
    extremes: tuple[float, ...]
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
    e4_extremes = (42.0, 48.0, 53.0, 57.0, 61.0, 65.0, 71.0)
    if format in ("E4_16", "E4_32"):
        group = 16 if format == "E4_16" else 32
        return Levels(group, 2, e4_extremes, table=_e4_table())
    if format in ("E6_16", "E8_32"):
        zero, group = (int(e6.ZERO), 16) if format == "E6_16" else (int(e8.ZERO), 32)
        return Levels(group, 1, tuple(zero * f for f in (0.90, 0.94, 0.97, 1.00, 1.03)), zero)
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


def best_scales(levels: Levels, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The real-valued scales of groups x [n_rows, group] with weights h [group].

    Returns scales and gains [2 signs, n_rows]: with nearest levels v at a trial scale, the best
    scale is sum(h x v) / sum(h v^2) and removes gain = sum(h x v)^2 / sum(h v^2) of the error.
    """
    amax = x.abs().amax(dim=1).clamp_min(1e-30)
    scales = torch.zeros(2, len(x))
    gains = torch.zeros(2, len(x))
    for sign in (0, 1):
        for extreme in levels.extremes:
            inverse = (extreme if sign == 0 else -extreme) / amax
            for lut in range(levels.n_luts):
                v = levels.nearest(x * inverse[:, None], lut)
                hv = v * h
                xv, vv = (hv * x).sum(dim=1), (hv * v).sum(dim=1)
                scale = torch.where(vv > 0, xv / vv, torch.zeros_like(vv))
                gain = scale * xv
                better = gain > gains[sign]
                scales[sign] = torch.where(better, scale, scales[sign])
                gains[sign] = torch.where(better, gain, gains[sign])
    return scales, gains


def odd_candidates(
    scales: Tensor, d_row: Tensor, n_steps: int, n_luts: int
) -> tuple[Tensor, Tensor]:
    """Odd scales around scales [2, n_rows] / d_row, `n_steps` to either side, with every table:
    (scales, luts), each [n_candidates, n_rows]."""
    odd = torch.nan_to_num(2 * torch.floor(scales / d_row / 2) + 1)
    steps = 2.0 * torch.arange(-n_steps, n_steps + 1, dtype=torch.float32)
    near = (odd[:, None] + steps[None, :, None]).clamp_(-MAX_SCALE, MAX_SCALE)
    one = near.reshape(-1, scales.shape[1])
    luts = torch.arange(n_luts).repeat_interleave(len(one))[:, None]
    return one.repeat(n_luts, 1), luts.expand(-1, scales.shape[1])
