"""E2_16: two bits a weight, one scale byte per 16 columns with one of eight zero points.

w = d_row * s * (LUT[q] - ZEROS[sc & 7]), s = (sc & 0xF8) - 124.
"""

from __future__ import annotations

import numpy as np

from .tiles import (
    F32Array,
    U8Array,
    dequantize,
    group_scale,
    pack_pairs,
    pack_strips,
    split_strips,
    tile,
    tile_scales,
    unpack_pairs,
)

LUT = np.array([0, 13, 22, 31], dtype=np.float32)
ZEROS = np.array([24, 22, 20, 18, 16, 14, 12, 10], dtype=np.float32)
ZERO_MASK = 7


def decode_e2_16(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, 160)
    sc = tiles[..., :32].reshape(*tiles.shape[:2], 2, 16)
    zeros = np.repeat(np.swapaxes(ZEROS[sc & ZERO_MASK], 2, 3), 16, axis=3)
    values = LUT[unpack_pairs(tiles[..., 32:])] - zeros
    return dequantize(d_row, group_scale(sc, ZERO_MASK), values)


def pack_e2_16(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """d_row [n_rows], scale_bytes [n_rows, n_cols / 16 rounded up], codes [n_rows, n_cols] of
    0..3 -> strips."""
    return pack_strips(d_row, [tile_scales(scale_bytes, 2), pack_pairs(tile(codes))])
