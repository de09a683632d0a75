"""Activations as the native runtime's integer kernels take them.

The rounding is that of the native runtime (docs/KERNELS.md). "a8": int8 with one float32 scale per
32 columns. "a8x2": the same, and what that leaves as a second int8 row with 1 / 254 of the scale.
Knows no weight format and no file.
"""

from __future__ import annotations

import numpy as np

from edgellm.errors import InvalidArgumentError

from .tiles import TILE_K, F32Array

ROUNDED_ACTS = ("a8", "a8x2")
SMALLEST = np.float32(2.0**-100)  # a block whose largest magnitude is below is zero


def rounded(inputs: F32Array, act: str) -> F32Array:
    """inputs [n, n_cols] float32 as `act` keeps them. InvalidArgumentError: another act."""
    if act not in ROUNDED_ACTS:
        raise InvalidArgumentError(
            f"act '{act}' rounds nothing (known: {', '.join(ROUNDED_ACTS)})",
            code="invalid_argument",
        )
    n, n_cols = inputs.shape
    blocks = np.pad(inputs, ((0, 0), (0, -n_cols % TILE_K))).reshape(n, -1, TILE_K)
    amax = np.abs(blocks).max(axis=2, keepdims=True)
    live = amax >= SMALLEST
    inverse = np.where(live, np.float32(127) / np.where(live, amax, 1), 0).astype(np.float32)
    step = np.where(live, amax / np.float32(127), 0).astype(np.float32)
    kept = step * np.rint(blocks * inverse)
    if act == "a8x2":
        fine = step / np.float32(254)
        left = np.divide(blocks - kept, fine, out=np.zeros_like(blocks), where=fine > 0)
        kept = kept + fine * np.clip(np.rint(left), -127, 127)
    result: F32Array = kept.reshape(n, -1)[:, :n_cols].astype(np.float32)
    return result
