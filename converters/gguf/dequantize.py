"""Blocks of GGUF tensors as float32: the numbers that ggml itself would compute with.

One function per type, each from [n_blocks, bytes of a block] to [n_blocks, weights of a block],
operation by operation in float32 as in ggml's dequantize_row_* (ggml-quants.c). Scales may be
infinite or NaN, as the bytes say; who needs finite weights checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .types import BY_NAME, PLAIN

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]
Blocks = Callable[[U8Array], F32Array]

IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
# E2M1, doubled: its scale is halved instead.
_MXFP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
BLOCKS_AT_ONCE = 1 << 16  # bounds what is alive beside the result


def dequantize(raw: U8Array, type_name: str) -> F32Array:
    """[n_rows, bytes of a row] -> [n_rows, n_cols]."""
    if type_name in PLAIN:
        return _plain(np.ascontiguousarray(raw), type_name)
    kind = BY_NAME[type_name]
    blocks = np.ascontiguousarray(raw).reshape(-1, kind.n_bytes)
    weights = np.empty((len(blocks), kind.n_weights), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for begin in range(0, len(blocks), BLOCKS_AT_ONCE):
            part = slice(begin, begin + BLOCKS_AT_ONCE)
            weights[part] = _BLOCKS[type_name](blocks[part])
    return weights.reshape(len(raw), -1)


def planes(data: U8Array, width: int, n_bits: int) -> U8Array:
    """[n, bytes] -> [n, 8 / n_bits times as many]: of every `width` bytes the lowest n_bits of
    each, then the next n_bits of each, and so on."""
    shifts = np.arange(0, 8, n_bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    parts = data.reshape(len(data), -1, 1, width) >> shifts & np.uint8((1 << n_bits) - 1)
    return parts.reshape(len(data), -1)


def halves(data: U8Array) -> F32Array:
    """[n, 2] bytes -> [n, 1], binary16."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _plain(raw: U8Array, type_name: str) -> F32Array:
    if type_name == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if type_name == "F16":
        return raw.view("<f2").astype(np.float32)
    return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _q4_0(b: U8Array) -> F32Array:
    return halves(b[:, :2]) * (planes(b[:, 2:], 16, 4).astype(np.float32) - np.float32(8))


def _q4_1(b: U8Array) -> F32Array:
    return halves(b[:, :2]) * planes(b[:, 4:], 16, 4).astype(np.float32) + halves(b[:, 2:4])


def _fives(low: U8Array, high: U8Array) -> F32Array:
    """Four bits of each of 32 weights, and the fifth of all in four bytes."""
    return (planes(low, 16, 4) | planes(high, 1, 1) << np.uint8(4)).astype(np.float32)


def _q5_0(b: U8Array) -> F32Array:
    return halves(b[:, :2]) * (_fives(b[:, 6:], b[:, 2:6]) - np.float32(16))


def _q5_1(b: U8Array) -> F32Array:
    return halves(b[:, :2]) * _fives(b[:, 8:], b[:, 4:8]) + halves(b[:, 2:4])


def _q8_0(b: U8Array) -> F32Array:
    return np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32) * halves(b[:, :2])


def _q2_k(b: U8Array) -> F32Array:
    scales, codes = b[:, :16], planes(b[:, 16:80], 32, 2)
    step = halves(b[:, 80:82]) * (scales & np.uint8(15)).astype(np.float32)
    least = halves(b[:, 82:84]) * (scales >> np.uint8(4)).astype(np.float32)
    groups = codes.reshape(-1, 16, 16).astype(np.float32)
    return (step[:, :, None] * groups - least[:, :, None]).reshape(len(b), -1)


def _q3_k(b: U8Array) -> F32Array:
    low, high = planes(b[:, 32:96], 32, 2), planes(b[:, :32], 32, 1)
    # The third bit says where nothing is taken away.
    codes = low.astype(np.float32) - np.float32(4) * (high ^ np.uint8(1)).astype(np.float32)
    scales = planes(b[:, 96:104], 8, 4) | planes(b[:, 104:108], 4, 2) << np.uint8(4)
    step = halves(b[:, 108:110]) * (scales.astype(np.float32) - np.float32(32))
    return (step[:, :, None] * codes.reshape(-1, 16, 16)).reshape(len(b), -1)


def k_scales(packed: U8Array) -> tuple[U8Array, U8Array]:
    """Twelve bytes of Q4_K and Q5_K -> scales and minima [n, 8], six bits each."""
    d, m, both = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    low, top = np.uint8(15), np.uint8(0x30)
    scales = np.concatenate([d & np.uint8(63), both & low | d >> np.uint8(2) & top], axis=1)
    minima = np.concatenate(
        [m & np.uint8(63), both >> np.uint8(4) | m >> np.uint8(2) & top], axis=1
    )
    return scales, minima


def _with_minima(b: U8Array, codes: U8Array) -> F32Array:
    scales, minima = k_scales(b[:, 4:16])
    step = halves(b[:, :2]) * scales.astype(np.float32)
    least = halves(b[:, 2:4]) * minima.astype(np.float32)
    groups = codes.reshape(-1, 8, 32).astype(np.float32)
    return (step[:, :, None] * groups - least[:, :, None]).reshape(len(b), -1)


def _q4_k(b: U8Array) -> F32Array:
    return _with_minima(b, planes(b[:, 16:], 32, 4))


def _q5_k(b: U8Array) -> F32Array:
    return _with_minima(b, planes(b[:, 48:], 32, 4) | planes(b[:, 16:48], 32, 1) << np.uint8(4))


def _q6_k(b: U8Array) -> F32Array:
    codes = planes(b[:, :128], 64, 4) | planes(b[:, 128:192], 32, 2) << np.uint8(4)
    scales = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    step = halves(b[:, 208:210]) * scales
    levels = codes.reshape(-1, 16, 16).astype(np.float32) - np.float32(32)
    return (step[:, :, None] * levels).reshape(len(b), -1)


def _iq4_nl(b: U8Array) -> F32Array:
    return halves(b[:, :2]) * IQ4_VALUES[planes(b[:, 2:], 16, 4)]


def _iq4_xs(b: U8Array) -> F32Array:
    high = planes(b[:, 2:4], 1, 2)  # of a 16-bit word, two bits for every 32 weights
    scales = planes(b[:, 4:8], 1, 4) | high << np.uint8(4)
    step = halves(b[:, :2]) * (scales.astype(np.float32) - np.float32(32))
    values = IQ4_VALUES[planes(b[:, 8:], 16, 4)].reshape(-1, 8, 32)
    return (step[:, :, None] * values).reshape(len(b), -1)


def _mxfp4(b: U8Array) -> F32Array:
    exponent = b[:, :1].astype(np.uint32)
    # Half of 2^(e - 127); the lowest two are subnormal.
    bits = np.where(
        exponent < 2, np.uint32(0x00200000) << exponent, (exponent - 1) << np.uint32(23)
    )
    return bits.astype(np.uint32).view(np.float32) * _MXFP4_VALUES[planes(b[:, 1:], 16, 4)]


def _ternary(data: U8Array, width: int, n_digits: int) -> U8Array:
    """Base-3 digits of every `width` bytes, the highest of each first; 0, 1, 2."""
    powers = np.array([1, 3, 9, 27, 81][:n_digits], dtype=np.uint8).reshape(1, 1, -1, 1)
    shifted = data.reshape(len(data), -1, 1, width) * powers  # the overflow is meant
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(data), -1)


def tq1_0_codes(b: U8Array) -> U8Array:
    """[n_blocks, 256] of 0, 1, 2, one more than the weight in units of the scale."""
    parts = [_ternary(b[:, :32], 32, 5), _ternary(b[:, 32:48], 16, 5), _ternary(b[:, 48:52], 4, 4)]
    return np.concatenate(parts, axis=1)


def tq2_0_codes(b: U8Array) -> U8Array:
    """The same; a file can also hold 3."""
    return planes(b[:, :64], 32, 2)


def _tq1_0(b: U8Array) -> F32Array:
    return halves(b[:, 52:]) * (tq1_0_codes(b).astype(np.float32) - np.float32(1))


def _tq2_0(b: U8Array) -> F32Array:
    return halves(b[:, 64:]) * (tq2_0_codes(b).astype(np.float32) - np.float32(1))


_BLOCKS: Mapping[str, Blocks] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
