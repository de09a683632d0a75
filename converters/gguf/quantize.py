"""Rows of float32 as blocks of GGUF: F16, Q8_0, Q4_0, IQ4_NL.

Q8_0 and Q4_0 are ggml's reference (quantize_row_*_ref in ggml-quants.c), bit for bit; IQ4_NL
searches its scale as ggml does, among fifteen around the one that fits the largest weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgellm.errors import NumericError

from .dequantize import IQ4_VALUES

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]

TRIES = 7  # scales to each side of the first


def quantize(weights: F32Array, type_name: str) -> U8Array:
    """[n_rows, n_cols] -> [n_rows, bytes of a row]. NumericError: weights that are not finite, or
    too large for binary16."""
    if not np.isfinite(weights).all():
        raise NumericError("a weight that is not finite", code="numeric")
    with np.errstate(over="ignore"):
        raw = _ENCODERS[type_name](weights)
    return raw.reshape(len(weights), -1)


def _f32(weights: F32Array) -> U8Array:
    return np.ascontiguousarray(weights, dtype="<f4").view(np.uint8)


def _f16(weights: F32Array) -> U8Array:
    return _halves(weights).view(np.uint8)


def _halves(values: F32Array) -> npt.NDArray[np.float16]:
    found = np.ascontiguousarray(values).astype("<f2")
    if not np.isfinite(found).all():
        raise NumericError("a weight or scale that binary16 cannot hold", code="numeric")
    return found


def _blocks(weights: F32Array) -> F32Array:
    return np.ascontiguousarray(weights).reshape(-1, 32)


def _inverse(values: F32Array) -> F32Array:
    """1 / values; 0 where that is infinite, so far below what binary16 can scale."""
    with np.errstate(divide="ignore"):
        inverse: F32Array = np.float32(1) / values
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _pack_nibbles(codes: U8Array) -> U8Array:
    """[n, 32] of 0..15 -> [n, 16]: the first half low, the second high."""
    return codes[:, :16] | codes[:, 16:] << np.uint8(4)


def _q8_0(weights: F32Array) -> U8Array:
    blocks = _blocks(weights)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    halves = _halves(scale)
    levels = blocks * _inverse(scale)
    magnitude = np.abs(levels)
    whole = np.floor(magnitude)
    # Halves away from zero, as roundf.
    rounded = np.sign(levels) * (whole + np.floor(np.float32(2) * (magnitude - whole)))
    return np.concatenate([halves.view(np.uint8), rounded.astype(np.int8).view(np.uint8)], axis=1)


def _largest(blocks: F32Array) -> F32Array:
    """The weight of the largest magnitude of each block, with its sign. [n, 1]"""
    at = np.abs(blocks).argmax(axis=1, keepdims=True)
    return np.take_along_axis(blocks, at, axis=1)


def _q4_0(weights: F32Array) -> U8Array:
    blocks = _blocks(weights)
    scale = _largest(blocks) / np.float32(-8)
    halves = _halves(scale)
    codes = np.trunc(blocks * _inverse(scale) + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    return np.concatenate([halves.view(np.uint8), _pack_nibbles(codes)], axis=1)


# The borders between levels are multiples of one half: of twice a value the floor decides.
_TWICE = np.arange(-256, 256) / 2 + 0.25
_CODE_OF_TWICE = np.abs(_TWICE[:, None] - IQ4_VALUES).argmin(axis=1).astype(np.uint8)
_LEVEL_OF_TWICE = IQ4_VALUES[_CODE_OF_TWICE]


def _twice(values: F32Array) -> npt.NDArray[np.int16]:
    """[n] in units of a level -> indices of the tables above."""
    halves: F32Array = np.floor(values * np.float32(2)).clip(-256, 255)
    return (halves + np.float32(256)).astype(np.int16)


def _iq4_nl(weights: F32Array) -> U8Array:
    blocks = _blocks(weights)
    first = _inverse(_largest(blocks))
    weighted = blocks * blocks
    cubes = weighted * blocks
    best = np.full((len(blocks), 1), -1, dtype=np.float32)
    scale = np.zeros((len(blocks), 1), dtype=np.float32)
    for step in range(-TRIES, TRIES + 1):
        levels = _LEVEL_OF_TWICE[_twice(blocks * (first * (IQ4_VALUES[0] + np.float32(step))))]
        along = np.einsum("ij,ij->i", cubes, levels)[:, None]
        levels *= levels
        inverse = _inverse(np.einsum("ij,ij->i", weighted, levels)[:, None])
        gain = along * along * inverse
        is_better = gain > best
        best = np.where(is_better, gain, best)
        scale = np.where(is_better, along * inverse, scale)
    halves = _halves(scale)
    codes = _CODE_OF_TWICE[_twice(blocks * _inverse(halves.astype(np.float32)))]
    return np.concatenate([halves.view(np.uint8), _pack_nibbles(codes)], axis=1)


_ENCODERS: Mapping[str, Callable[[F32Array], U8Array]] = {
    "F32": _f32,
    "F16": _f16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "IQ4_NL": _iq4_nl,
}
