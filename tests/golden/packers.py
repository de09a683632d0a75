"""A plain round-to-nearest packer of the E formats: a second encoder, written from the layout.

Only good enough for tests: one group scale from the largest weight, no search. What matters is that
decoding its bytes gives what it says (`rounded`).
"""

from __future__ import annotations

import numpy as np
from edgellm.converters.quant import e2, e3, e4
from edgellm.converters.quant.tiles import (
    F32Array,
    U8Array,
    join_strips,
    pack_bytes,
    pack_nibbles,
    pack_pairs,
    pack_triples,
    tile,
)

GROUP_K = {"E2_16": 16, "E3_32": 32, "E4_16": 16, "E4_32": 32, "E6_16": 16, "E8_32": 32}
LARGEST = {
    "E2_16": 15.0,
    "E3_32": 31.0,
    "E4_16": 56.0,
    "E4_32": 56.0,
    "E6_16": 31.0,
    "E8_32": 127.0,
}
# Bits of a scale byte that choose a zero point, and which one is used here.
ZERO = {"E2_16": (7, 4), "E3_32": (3, 2)}
LEVELS = {
    "E2_16": e2.LUT - e2.ZEROS[4],
    "E3_32": e3.LUT - e3.ZEROS[2],
    "E4_16": e4.LUT - 64,
    "E4_32": e4.LUT - 64,
}


def encode(
    format: str,
    weights: F32Array,
    importance: F32Array | None = None,
    n_threads: int = 0,
) -> U8Array:
    """Same signature as the native encoder; importance and threads change nothing here."""
    w = tile(weights)  # [strip, tile, 16, 32]
    n_strips, n_tiles = w.shape[:2]
    mask, zero = ZERO.get(format, (1, 0))
    step, top = mask + 1, 128 - (mask + 1) // 2
    d_row = (np.abs(w).max(axis=(1, 3)) / (top * LARGEST[format])).astype(np.float32)  # [strip, 16]
    group_k = GROUP_K[format]
    groups = w.reshape(n_strips, n_tiles, 16, 32 // group_k, group_k)
    per_row = np.where(d_row > 0, d_row, 1)[:, None, :, None]
    wanted = np.abs(groups).max(axis=-1) / (per_row * LARGEST[format])  # [strip, tile, 16, group]
    scale = np.clip(step * np.round(wanted / step + 0.5) - step // 2, step // 2, top)
    units = groups / (per_row * scale)[..., None]
    sc = (scale + top + zero).astype(np.uint8).swapaxes(2, 3).reshape(n_strips, n_tiles, -1)
    q = _nearest(format, units).reshape(n_strips, n_tiles, 16, 32)
    return join_strips(d_row, np.concatenate([sc, _pack(format, q)], axis=-1))


def _nearest(format: str, units: F32Array) -> U8Array:
    if format in LEVELS:
        return np.abs(units[..., None] - LEVELS[format]).argmin(axis=-1).astype(np.uint8)
    zero, top = (32, 63) if format == "E6_16" else (128, 255)
    return np.clip(np.round(units) + zero, 0, top).astype(np.uint8)


def _pack(format: str, q: U8Array) -> U8Array:
    if format == "E2_16":
        return pack_pairs(q)
    if format == "E3_32":
        return pack_triples(q)
    if format.startswith("E4"):
        return pack_nibbles(q)
    if format == "E6_16":
        return np.concatenate([pack_nibbles(q & 15), pack_pairs(q >> 4)], axis=-1)
    return pack_bytes(q)
