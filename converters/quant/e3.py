"""E3_32: three bits a weight, one scale byte per 32 columns with one of four zero points.

w = d_row * s * (LUT[q] - ZEROS[sc & 3]), s = (sc & 0xFC) - 126.
"""

from __future__ import annotations

import numpy as np

from .tiles import (
    F32Array,
    U8Array,
    dequantize,
    group_scale,
    pack_strips,
    pack_triples,
    split_strips,
    tile,
    tile_scales,
    unpack_triples,
)

LUT = np.array([0, 14, 23, 31, 38, 45, 53, 63], dtype=np.float32)
ZEROS = np.array([40, 36, 32, 28], dtype=np.float32)
ZERO_MASK = 3


def decode_e3_32(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, 208)
    sc = tiles[..., :16].reshape(*tiles.shape[:2], 1, 16)
    zeros = np.swapaxes(ZEROS[sc & ZERO_MASK], 2, 3)
    values = LUT[unpack_triples(tiles[..., 16:])] - zeros
    return dequantize(d_row, group_scale(sc, ZERO_MASK), values)


def pack_e3_32(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """d_row [n_rows], scale_bytes [n_rows, n_cols / 32 rounded up], codes [n_rows, n_cols] of
    0..7 -> strips."""
    return pack_strips(d_row, [tile_scales(scale_bytes, 1), pack_triples(tile(codes))])
