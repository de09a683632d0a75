"""K4_32: linear, four bits a weight, with 8-bit scales and minima of 32 columns.

w = d_row * ((d * sc) * q - dmin * min), d_row being 1 (0 in padding rows); d and dmin are binary16,
one of each per row and 256 columns. Holds Q4_K of ggml, whose scales and minima have six bits,
without rounding: both products are exact in float32, so that a weight is rounded once, as there.
"""

from __future__ import annotations

import numpy as np

from .l4 import F16Array
from .tiles import (
    HEAD_TILES,
    TILE_ROWS,
    F32Array,
    U8Array,
    join_strips,
    pack_nibbles,
    row_factors,
    split_headed_strips,
    tile,
    tile_scales,
    unpack_nibbles,
    untile,
)

TILE_BYTES = 288
HEAD_BYTES = 64


def decode_k4_32(data: U8Array, n_cols: int) -> F32Array:
    heads, tiles = split_headed_strips(data, n_cols, TILE_BYTES, HEAD_BYTES)
    n_tiles = tiles.shape[1]
    halves = np.ascontiguousarray(heads).view("<f2").astype(np.float32)
    halves = np.repeat(halves, HEAD_TILES, axis=1)[:, :n_tiles].reshape(-1, n_tiles, 2, TILE_ROWS)
    multiples = tiles[..., : 2 * TILE_ROWS].reshape(-1, n_tiles, 2, TILE_ROWS)
    products = halves * multiples.astype(np.float32)  # scales and minima: strip, tile, 2, row
    levels = unpack_nibbles(tiles[..., 2 * TILE_ROWS :]).astype(np.float32)
    weights = products[:, :, 0, :, None] * levels - products[:, :, 1, :, None]
    d_row = row_factors(data, len(tiles) * TILE_ROWS).reshape(-1, TILE_ROWS, 1, 1)
    return untile(d_row * weights.transpose(0, 2, 1, 3))  # strip, row, tile, column


def pack_k4_32(d: F16Array, dmin: F16Array, sc: U8Array, mins: U8Array, codes: U8Array) -> U8Array:
    """d and dmin [n_rows, n_cols / 256 rounded up], sc and mins [n_rows, n_cols / 32 rounded up],
    codes [n_rows, n_cols] of 0..15 -> strips. Padding columns get code 0; they meet zero
    activations."""
    n_rows, n_heads = d.shape
    halves = np.stack([d, dmin], axis=2).astype("<f2")
    padded = np.pad(halves, ((0, -n_rows % TILE_ROWS), (0, 0), (0, 0)))
    strips = padded.reshape(-1, TILE_ROWS, n_heads, 2).transpose(0, 2, 3, 1)
    heads = np.ascontiguousarray(strips).view(np.uint8).reshape(len(strips), n_heads * HEAD_BYTES)
    parts = [tile_scales(sc, 1), tile_scales(mins, 1), pack_nibbles(tile(codes))]
    d_row = np.zeros(len(strips) * TILE_ROWS, dtype=np.float32)
    d_row[:n_rows] = 1
    tiles = np.concatenate(parts, axis=2).reshape(len(strips), -1)
    return join_strips(d_row.reshape(-1, TILE_ROWS), np.concatenate([heads, tiles], axis=1))
