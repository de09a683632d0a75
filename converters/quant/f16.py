"""F16: IEEE binary16, column by column, 16 rows each; d_row is 1 (0 in padding rows)."""

from __future__ import annotations

import numpy as np

from edgellm.errors import NumericError

from .tiles import F32Array, U8Array, join_strips, split_strips, tile, untile

MAX_F16 = 65504.0


def decode_f16(data: U8Array, n_cols: int) -> F32Array:
    d_row, tiles = split_strips(data, n_cols, 1024)
    values = tiles.view("<f2").astype(np.float32).reshape(*tiles.shape[:2], 32, 16)
    return untile(d_row[:, :, None, None] * values.transpose(0, 3, 1, 2))


def encode_f16(weights: F32Array) -> U8Array:
    """[n_rows, n_cols] -> strips, rounding to nearest even; what f16 cannot hold is refused."""
    largest = float(np.max(np.abs(weights), initial=0.0))
    with np.errstate(over="ignore"):
        halves = weights.astype("<f2")
    if not np.isfinite(halves).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(halves))[0])
        raise NumericError(
            f"row {row}, column {column}: {weights[row, column]} does not fit F16 (largest "
            f"magnitude here {largest:g}, allowed {MAX_F16:g}); choose an E format",
            code="numeric",
        )
    tiles = np.ascontiguousarray(tile(halves).swapaxes(2, 3))  # strip, tile, column, row
    n_strips, n_tiles = tiles.shape[:2]
    d_row = np.zeros(n_strips * 16, dtype=np.float32)
    d_row[: len(weights)] = 1.0
    raw = tiles.view(np.uint8).reshape(n_strips, n_tiles, 1024)
    return join_strips(d_row.reshape(n_strips, 16), raw)
