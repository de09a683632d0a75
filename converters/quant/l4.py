"""L4_32: linear, four bits a weight, an f16 scale and a u8 zero point per 32 columns.

w = d_row * (s * (q - zero)), d_row being 1 (0 in padding rows). Holds what GPTQ, AWQ, Q4_0 and
quantization-aware training made, group for group, without rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .tiles import (
    TILE_ROWS,
    F32Array,
    U8Array,
    pack_nibbles,
    pack_strips,
    split_strips,
    tile,
    tile_halves,
    tile_scales,
    unpack_nibbles,
    untile,
)

F16Array = npt.NDArray[np.float16]

GROUP = 32
LEVELS = 16
TILE_BYTES = 304
_ZEROS_AT, _NIBBLES_AT = 2 * TILE_ROWS, 3 * TILE_ROWS


def decode_l4_32(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, TILE_BYTES)
    head = np.ascontiguousarray(tiles[..., :_ZEROS_AT])
    scales = head.view("<f2").astype(np.float32)  # strip, tile, row
    zeros = tiles[..., _ZEROS_AT:_NIBBLES_AT].astype(np.float32)
    levels = unpack_nibbles(tiles[..., _NIBBLES_AT:]).astype(np.float32) - zeros[..., None]
    products = (scales[..., None] * levels).transpose(0, 2, 1, 3)  # strip, row, tile, column
    return untile(d_row[:, :, None, None] * products)


def unpack_l4_32(data: U8Array, n_cols: int) -> tuple[F16Array, U8Array, U8Array]:
    """Strips -> what pack_l4_32() takes, rows padded to whole strips."""
    _, tiles = split_strips(data, n_cols, TILE_BYTES)
    n_groups = -(-n_cols // GROUP)
    halves = np.ascontiguousarray(tiles[..., :_ZEROS_AT]).view("<f2")  # strip, tile, row
    scales = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1, n_groups)
    zeros = tiles[..., _ZEROS_AT:_NIBBLES_AT].swapaxes(1, 2).reshape(-1, n_groups)
    levels = unpack_nibbles(tiles[..., _NIBBLES_AT:]).transpose(0, 2, 1, 3)
    return scales, zeros, levels.reshape(len(scales), -1)[:, :n_cols]


def pack_l4_32(scales: F16Array, zeros: U8Array, codes: U8Array) -> U8Array:
    """scales and zeros [n_rows, n_cols / 32 rounded up], codes [n_rows, n_cols] of 0..15 ->
    strips. Padding columns get code 0; they meet zero activations."""
    parts = [tile_halves(scales), tile_scales(zeros, 1), pack_nibbles(tile(codes))]
    return pack_strips(np.ones(len(scales), dtype=np.float32), parts)
