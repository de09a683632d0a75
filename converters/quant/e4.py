"""E4_16 and E4_32: four bits a weight, a 16-entry LUT chosen per group by the scale byte.

w = d_row * s * (LUT[q] + 2 * (sc & 1) - 64), s = (sc & 0xFE) - 127.
"""

from __future__ import annotations

import numpy as np

from .tiles import (
    F32Array,
    U8Array,
    dequantize,
    group_scale,
    pack_nibbles,
    pack_strips,
    split_strips,
    tile,
    tile_scales,
    unpack_nibbles,
)

LUT = np.array([0, 12, 22, 32, 40, 46, 53, 59, 64, 70, 76, 83, 90, 98, 108, 120], dtype=np.float32)
LUT_SHIFT = np.float32(2)
LUT_ZERO = np.float32(64)


def decode_e4_16(data: U8Array, n_cols: int) -> F32Array:
    return _decode(data, n_cols, n_groups=2)


def decode_e4_32(data: U8Array, n_cols: int) -> F32Array:
    return _decode(data, n_cols, n_groups=1)


def pack_e4_16(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """d_row [n_rows], scale_bytes [n_rows, n_cols / 16 rounded up], codes [n_rows, n_cols] of
    0..15 -> strips."""
    return pack_strips(d_row, [tile_scales(scale_bytes, 2), pack_nibbles(tile(codes))])


def pack_e4_32(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """As pack_e4_16, with one scale byte for 32 columns."""
    return pack_strips(d_row, [tile_scales(scale_bytes, 1), pack_nibbles(tile(codes))])


def _decode(data: U8Array, n_cols: int, n_groups: int) -> F32Array:
    n_scale_bytes = 16 * n_groups
    d_row, tiles = split_strips(data, n_cols, n_scale_bytes + 256)
    sc = tiles[..., :n_scale_bytes].reshape(*tiles.shape[:2], n_groups, 16)
    shift = np.repeat(np.swapaxes(sc & 1, 2, 3), 32 // n_groups, axis=3).astype(np.float32)
    values = LUT[unpack_nibbles(tiles[..., n_scale_bytes:])] + LUT_SHIFT * shift - LUT_ZERO
    return dequantize(d_row, group_scale(sc), values)
