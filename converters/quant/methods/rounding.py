"""What AutoRound learns of one matrix: which way to round each weight, and each group's scale.

A weight's position (weight over scale, in levels) plus an offset of at most half the way to the
next level is rounded to the nearest level; the derivative of that is taken to be one (the
straight-through estimate), and a step is the sign of the gradient (SignRound, Cheng et al. 2023,
arXiv:2309.05516). The start may be any codes: a weight that they do not round to the nearest level
starts on the border of the cell that they chose, or further in. Knows neither the objective nor the
model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import quant_format
from ..tiles import (
    STRIP_HEADER_BYTES,
    TILE_K,
    TILE_ROWS,
    F32Array,
    U8Array,
    split_strips,
)
from .gptq import Codes
from .levels import Levels, levels_of
from .packing import pack

MAX_OFFSET = 0.5  # of the distance between neighbouring levels
MAX_STRETCH = 0.125  # of a group's scale


class Rounding:
    """The state of one matrix. weights: float32 [n_rows, n_cols]; strips: the start, its codes in
    `format`. firmness: how far towards its level every weight is moved before the start, 0 to 1.
    Codes that make up for each other's errors lie on borders by the thousand, and the first step
    would undo them all. UnsupportedError for formats without scales."""

    def __init__(
        self, weights: F32Array, format: str, strips: U8Array, firmness: float = 0.0
    ) -> None:
        self._format, self._levels = format, levels_of(format)
        self._n_cols = weights.shape[1]
        codes = codes_of(format, strips, *weights.shape)
        self._d_row, self._luts, self._first_scales = codes.d_row, codes.luts, codes.scales
        padded = np.pad(weights, ((0, 0), (0, codes.levels.shape[1] - self._n_cols)))
        self._places = places_in_cells(torch.from_numpy(padded), codes, self._levels, firmness)
        down, up = neighbours(self._levels, codes.levels, self._wide(codes.luts))
        self._gaps = torch.maximum(up - codes.levels, codes.levels - down)
        self._offsets = torch.zeros_like(self._places)
        self._stretch = torch.zeros_like(codes.scales)

    def weights(self) -> Tensor:
        """As they will be decoded, [n_rows, n_cols]."""
        return self._codes().dequantized()[:, : self._n_cols]

    def step(self, gradient: Tensor, rate: float, scale_rate: float) -> None:
        """One signed step against the gradient [n_rows, n_cols] of the loss by weights()."""
        codes = self._codes()
        grown = torch.nn.functional.pad(gradient, (0, codes.levels.shape[1] - self._n_cols))
        # Of d_row and the gaps, both positive, the sign needs nothing.
        by_offset = grown * self._wide(codes.scales)
        self._offsets.sub_(by_offset.sign(), alpha=rate).clamp_(-MAX_OFFSET, MAX_OFFSET)
        by_level = (grown * codes.levels).view(*codes.scales.shape, -1).sum(dim=2)
        by_scale = by_level * self._first_scales
        self._stretch.sub_(by_scale.sign(), alpha=scale_rate).clamp_(-MAX_STRETCH, MAX_STRETCH)

    def state(self) -> tuple[Tensor, Tensor]:
        """What restore() goes back to."""
        return self._offsets.clone(), self._stretch.clone()

    def restore(self, state: tuple[Tensor, Tensor]) -> None:
        self._offsets, self._stretch = state[0].clone(), state[1].clone()

    def strips(self) -> U8Array:
        return pack(self._format, self._codes(), self._levels)

    def _codes(self) -> Codes:
        places = self._places + self._offsets * self._gaps
        levels = self._levels.nearest(places, self._wide(self._luts))
        wanted = self._first_scales * (1 + self._stretch)
        scales = self._levels.nearest_scale(wanted)
        return Codes(self._d_row, scales, self._luts, levels)

    def _wide(self, of_groups: Tensor) -> Tensor:
        return of_groups.repeat_interleave(self._levels.group, dim=1)


def places_in_cells(weights: Tensor, codes: Codes, levels: Levels, firmness: float) -> Tensor:
    """Weights [n_rows, n_cols], padded as the codes are, in units of levels: in the cells that the
    codes chose, and there moved by `firmness`, 0 to 1, towards the level."""
    wide_luts, wide_scales = (
        part.repeat_interleave(levels.group, dim=1) for part in (codes.luts, codes.scales)
    )
    step = codes.d_row[:, None] * wide_scales
    wanted = torch.where(step == 0, codes.levels, weights / step)
    down, up = neighbours(levels, codes.levels, wide_luts)
    # Outermost cells have no far side: a weight beyond them is as good as on the level.
    low = torch.where(down < codes.levels, (codes.levels + down) / 2, codes.levels)
    high = torch.where(up > codes.levels, (codes.levels + up) / 2, codes.levels)
    inside = torch.minimum(torch.maximum(wanted, low), high)
    # A border belongs to one of its two cells only.
    off = levels.nearest(inside, wide_luts) != codes.levels
    kept = torch.where(off, codes.levels + (inside - codes.levels) * 0.999, inside)
    return kept + firmness * (codes.levels - kept)


def neighbours(levels: Levels, values: Tensor, luts: Tensor) -> tuple[Tensor, Tensor]:
    """The levels below and above `values`, which are levels; an outermost one is its own."""
    if levels.by_position is None:
        lowest, highest = -levels.zero, levels.zero - 1
        return (values - 1).clamp_min(lowest), (values + 1).clamp_max(highest)
    down, up = torch.empty_like(values), torch.empty_like(values)
    for lut, table in enumerate(levels.by_position.view(levels.n_luts, -1)):
        known = torch.unique(table)
        chosen = luts == lut
        at = torch.searchsorted(known, values[chosen])
        down[chosen] = known[(at - 1).clamp_min(0)]
        up[chosen] = known[(at + 1).clamp_max(len(known) - 1)]
    return down, up


def codes_of(format: str, strips: U8Array, n_rows: int, n_cols: int) -> Codes:
    """The inverse of pack(): rows without their padding, columns with theirs."""
    levels = levels_of(format)
    decoded = quant_format(format).decode(strips, n_cols)
    n_tiles = -(-n_cols // TILE_K)
    n_strips = len(decoded) // TILE_ROWS
    d_row, tiles = split_strips(
        strips, n_cols, (strips.size // n_strips - STRIP_HEADER_BYTES) // n_tiles
    )
    n_groups = TILE_K // levels.group
    by_tile = tiles[..., : TILE_ROWS * n_groups].reshape(n_strips, n_tiles, n_groups, TILE_ROWS)
    scale_bytes = by_tile.transpose(0, 3, 1, 2).reshape(len(decoded), n_tiles * n_groups)
    stored = torch.from_numpy(np.ascontiguousarray(scale_bytes))
    scales, luts = levels.scales_of(stored)
    wide = np.repeat(scales.numpy(), levels.group, axis=1)
    steps = d_row.reshape(-1, 1).astype(np.float64) * wide
    values = np.divide(decoded, steps, out=np.zeros_like(steps), where=steps != 0).round()
    return Codes(
        torch.from_numpy(d_row.reshape(-1)[:n_rows].copy()),
        scales[:n_rows].clone(),
        luts[:n_rows].clone(),
        torch.from_numpy(values[:n_rows].astype(np.float32)),
    )
