"""L8_32: linear, eight bits a weight, an f16 scale per 32 columns.

w = d_row * (s * q), q being -128 to 127, stored plus 128; d_row is 1 (0 in padding rows). Holds
Q8_0 of ggml number for number: s * q is exact in float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .l4 import F16Array
from .tiles import (
    TILE_ROWS,
    F32Array,
    U8Array,
    pack_bytes,
    pack_strips,
    split_strips,
    tile,
    tile_halves,
    unpack_bytes,
    untile,
)

I8Array = npt.NDArray[np.int8]

ZERO = 128
TILE_BYTES = 544
_QUADS_AT = 2 * TILE_ROWS


def decode_l8_32(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, TILE_BYTES)
    head = np.ascontiguousarray(tiles[..., :_QUADS_AT])
    scales = head.view("<f2").astype(np.float32)  # strip, tile, row
    levels = unpack_bytes(tiles[..., _QUADS_AT:]).astype(np.float32) - np.float32(ZERO)
    products = (scales[..., None] * levels).transpose(0, 2, 1, 3)  # strip, row, tile, column
    return untile(d_row[:, :, None, None] * products)


def pack_l8_32(scales: F16Array, levels: I8Array) -> U8Array:
    """scales [n_rows, n_cols / 32 rounded up], levels [n_rows, n_cols] -> strips. Padding has
    level 0."""
    quads = pack_bytes(tile(levels).view(np.uint8) ^ np.uint8(ZERO))
    return pack_strips(np.ones(len(scales), dtype=np.float32), [tile_halves(scales), quads])
