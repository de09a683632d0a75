"""Weights that lie on a 4-bit grid already, as quantization-aware training stores them: find it.

A group of 32 is on a grid if there are an f16 scale s and integers k, all within a window of 16
that holds 0, such that s * k rounded to the dtype of the checkpoint is the weight, bit for bit. For
each K = 1..15 the largest magnitude is taken for K steps; the other weights then say between what
bounds s must lie, by the interval that rounds to each. What was found is multiplied, rounded and
compared before it counts. The smallest K wins: the same numbers on the coarsest grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedError

from ..l4 import GROUP, LEVELS, F16Array, pack_l4_32
from ..tiles import F32Array, U8Array

CHUNK_GROUPS = 1 << 14  # at a time: 4 MiB as float64
_MANTISSA_BITS = {"BF16": 7, "F16": 10, "F32": 23}
_LEAST_ULP = {"BF16": 2.0**-133, "F16": 2.0**-24, "F32": 2.0**-149}  # of subnormals
_SYMMETRIC_ZERO = 8

F64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """scales, zeros and is_on: [n_rows, groups]; codes: [n_rows, n_cols]. Where is_on is False the
    others mean nothing."""

    scales: F16Array
    zeros: U8Array
    codes: U8Array
    is_on: BoolArray

    def strips(self) -> U8Array:
        return pack_l4_32(self.scales, self.zeros, self.codes)


def find_grid(weights: F32Array, dtype: str) -> Grid:
    """weights [n_rows, n_cols] as read from `dtype`: "BF16", "F16" or "F32".

    UnsupportedError: another dtype. Weights that are not finite are on no grid.
    """
    if dtype not in _MANTISSA_BITS:
        raise UnsupportedError(
            f"weights stored as {dtype} are on no grid that can be found (known: "
            f"{', '.join(_MANTISSA_BITS)})",
            code="tensor_dtype",
        )
    n_rows, n_cols = weights.shape
    padded = np.pad(weights, ((0, 0), (0, -n_cols % GROUP)))
    groups = padded.reshape(-1, GROUP)
    scales = np.zeros(len(groups), dtype=np.float16)
    steps = np.zeros(groups.shape, dtype=np.int8)
    is_on: BoolArray = (groups == 0).all(axis=1)  # all zero: scale 0
    for first in range(0, len(groups), CHUNK_GROUPS):
        part = slice(first, first + CHUNK_GROUPS)
        _search(groups[part], dtype, scales[part], steps[part], is_on[part])
    lowest, highest = steps.min(axis=1), steps.max(axis=1)
    zeros = np.clip(_SYMMETRIC_ZERO, -lowest, LEVELS - 1 - highest).astype(np.uint8)
    zeros[scales == 0] = 0
    codes = (steps + zeros[:, None].astype(np.int8)).astype(np.uint8)
    shape = (n_rows, padded.shape[1] // GROUP)
    return Grid(
        scales.reshape(shape),
        zeros.reshape(shape),
        codes.reshape(padded.shape)[:, :n_cols],
        is_on.reshape(shape),
    )


def off_grid(n_off: int, n_groups: int, dtype: str) -> UnsupportedError:
    """What to say of a tensor with groups that are on no grid; the caller names it."""
    return UnsupportedError(
        f"{n_off} of its {n_groups} groups of {GROUP} weights "
        f"({100 * n_off / n_groups:.2f} %) are not {LEVELS} levels of one f16 scale in {dtype}; "
        "method 'grid' is for checkpoints trained on such a grid: use 'rtn' for this tensor",
        code="tensor_format",
    )


def _search(
    groups: F32Array, dtype: str, scales: F16Array, steps: npt.NDArray[np.int8], is_on: BoolArray
) -> None:
    """Fills scales, steps and is_on of the groups that are not on yet."""
    left = np.flatnonzero(~is_on & np.isfinite(groups).all(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):  # groups of subnormal weights
        units = groups[left] / np.abs(groups[left]).max(axis=1, keepdims=True)
    for n_steps in range(1, LEVELS):
        if not len(left):
            return
        close = np.flatnonzero(_is_close(units * np.float32(n_steps)))
        at = left[close]
        k = np.rint(units[close].astype(np.float64) * n_steps)
        found, halves = _scale_between(k, groups[at].astype(np.float64), dtype)
        products = halves.astype(np.float32)[:, None] * k.astype(np.float32)
        found &= (_rounded(products, dtype) == groups[at]).all(axis=1)
        found &= np.isfinite(halves) & (halves > 0)
        at = at[found]
        scales[at], steps[at], is_on[at] = halves[found], k[found].astype(np.int8), True
        if len(at):
            rest = ~is_on[left]
            left, units = left[rest], units[rest]


def _is_close(ratio: F32Array) -> BoolArray:
    """Whether all weights of a group, in steps, are so near to integers that rounding explains it:
    a part of 2^-9 each in the weight and in the largest one, at most."""
    distance = np.abs(ratio - np.rint(ratio))
    allowed = np.float32(2**-7) * np.abs(ratio) + np.float32(1e-5)
    near: BoolArray = np.less_equal(distance, allowed).all(axis=1)
    return near


def _scale_between(k: F64Array, exact: F64Array, dtype: str) -> tuple[BoolArray, F16Array]:
    """(whether some scale fits, the f16 nearest to the middle of where it may lie)."""
    below, above = _rounding_bounds(np.abs(exact), dtype)
    spread = np.maximum(k.max(axis=1), 0) - np.minimum(k.min(axis=1), 0)
    fits = (spread < LEVELS) & ((k == 0) == (exact == 0)).all(axis=1)
    n_steps = np.abs(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(n_steps > 0, below / n_steps, 0.0).max(axis=1)
        most = np.where(n_steps > 0, above / n_steps, np.inf).min(axis=1)
    fits &= least <= most
    middle = np.where(fits, (least + most) / 2, 0.0)
    with np.errstate(over="ignore"):
        return fits, middle.astype(np.float16)


def _rounding_bounds(magnitude: F64Array, dtype: str) -> tuple[F64Array, F64Array]:
    """Between what every magnitude, a number of `dtype`, may have been before it was rounded."""
    mantissa, exponent = np.frexp(magnitude)
    ulp = np.maximum(np.ldexp(1.0, exponent - 1 - _MANTISSA_BITS[dtype]), _LEAST_ULP[dtype])
    # Below a power of two numbers are twice as dense.
    return magnitude - np.where(mantissa == 0.5, ulp / 4, ulp / 2), magnitude + ulp / 2


def _rounded(values: F32Array, dtype: str) -> F32Array:
    """To nearest even in `dtype`, as float32."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    return bits.view(np.float32)
