"""What int8 activations cost a matrix: its outputs with rounded inputs beside those without.

The rounding is that of the native runtime (docs/KERNELS.md). "a8": int8 with one float32 scale per
32 columns. "a8x2": the same, and what that leaves as a second int8 row with 1 / 254 of the scale.
Weights are what they are: their own error is not counted. Knows no format and no file.
"""

from __future__ import annotations

import numpy as np

from edgellm.errors import InvalidArgumentError, NumericError

from .tiles import TILE_K, F32Array

ROUNDED_ACTS = ("a8", "a8x2")
_SMALLEST = np.float32(2.0**-100)  # a block whose largest magnitude is below is zero


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
    live = amax >= _SMALLEST
    inverse = np.where(live, np.float32(127) / np.where(live, amax, 1), 0).astype(np.float32)
    step = np.where(live, amax / np.float32(127), 0).astype(np.float32)
    kept = step * np.rint(blocks * inverse)
    if act == "a8x2":
        fine = step / np.float32(254)
        left = np.divide(blocks - kept, fine, out=np.zeros_like(blocks), where=fine > 0)
        kept = kept + fine * np.clip(np.rint(left), -127, 127)
    result: F32Array = kept.reshape(n, -1)[:, :n_cols].astype(np.float32)
    return result


def activation_error(weights: F32Array, inputs: F32Array) -> dict[str, float]:
    """The share of the outputs' energy that rounding the inputs changes, by act:
    E |W (x - r(x))|^2 / E |W x|^2. weights [n_rows, n_cols], inputs [n, n_cols].

    0 where the outputs are all zero. NumericError: a value that is not finite.
    InvalidArgumentError: shapes that do not fit.
    """
    if weights.ndim != 2 or inputs.ndim != 2 or weights.shape[1] != inputs.shape[1]:
        raise InvalidArgumentError(
            f"weights {list(weights.shape)} do not take inputs {list(inputs.shape)}",
            code="invalid_argument",
        )
    if not np.isfinite(weights).all() or not np.isfinite(inputs).all():
        raise NumericError("a weight or an input is not finite", code="numeric")
    energy = _energy(inputs, weights)
    return {
        act: _energy(inputs - rounded(inputs, act), weights) / energy if energy > 0 else 0.0
        for act in ROUNDED_ACTS
    }


def _energy(inputs: F32Array, weights: F32Array) -> float:
    return float(np.square(inputs @ weights.T, dtype=np.float64).sum())
