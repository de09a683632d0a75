"""E8_32: eight bits a weight, one scale byte per 32 columns. w = d_row * s * (q - 128)."""

from __future__ import annotations

import numpy as np

from .tiles import (
    F32Array,
    U8Array,
    dequantize,
    group_scale,
    pack_bytes,
    pack_strips,
    split_strips,
    tile,
    tile_scales,
    unpack_bytes,
)

ZERO = np.float32(128)


def decode_e8_32(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, 528)
    sc = tiles[..., :16].reshape(*tiles.shape[:2], 1, 16)
    values = unpack_bytes(tiles[..., 16:]).astype(np.float32) - ZERO
    return dequantize(d_row, group_scale(sc), values)


def pack_e8_32(d_row: F32Array, scale_bytes: U8Array, codes: U8Array) -> U8Array:
    """d_row [n_rows], scale_bytes [n_rows, n_cols / 32 rounded up], codes [n_rows, n_cols] ->
    strips."""
    return pack_strips(d_row, [tile_scales(scale_bytes, 1), pack_bytes(tile(codes))])
