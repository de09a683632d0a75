"""E6_16: six bits a weight, one scale byte per 16 columns. w = d_row * s * (q - 32)."""

from __future__ import annotations

import numpy as np

from .tiles import (
    F32Array,
    U8Array,
    dequantize,
    group_scale,
    pack_nibbles,
    pack_pairs,
    pack_strips,
    split_strips,
    tile,
    tile_scales,
    unpack_nibbles,
    unpack_pairs,
)

ZERO = np.float32(32)


def decode_e6_16(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, 416)
    sc = tiles[..., :32].reshape(*tiles.shape[:2], 2, 16)
    low = unpack_nibbles(tiles[..., 32:288])
    high = unpack_pairs(tiles[..., 288:])
    return dequantize(d_row, group_scale(sc), (low | high << 4).astype(np.float32) - ZERO)


def pack_e6_16(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """d_row [n_rows], scale_bytes [n_rows, n_cols / 16 rounded up], codes [n_rows, n_cols] of
    0..63 -> strips."""
    low, high = tile(codes & np.uint8(15)), tile(codes >> np.uint8(4))
    parts = [tile_scales(scale_bytes, 2), pack_nibbles(low), pack_pairs(high)]
    return pack_strips(d_row, parts)
