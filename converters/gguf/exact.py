"""Quantized rows of GGUF as strips of a weight format of ours, number for number.

EXACT has one entry for every type of types.FORMATS that has an exact format; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgellm.errors import NumericError

from ..quant.k4 import pack_k4_32
from ..quant.l4 import GROUP, F16Array, pack_l4_32
from ..quant.l8 import pack_l8_32
from .dequantize import k_scales, planes, tq1_0_codes, tq2_0_codes
from .types import BY_NAME

U8Array = npt.NDArray[np.uint8]
Encode = Callable[[U8Array], U8Array]  # [n_rows, bytes of a row] -> strips


def _linear(raw: U8Array, name: str, scale_at: int, zero: int, codes: Encode) -> U8Array:
    """Strips of L4_32, whose groups of 32 have a binary16 scale and a zero point: w = d * (q - z),
    a scale of more weights being repeated."""
    kind = BY_NAME[name]
    blocks = np.ascontiguousarray(raw).reshape(-1, kind.n_bytes)
    scales = np.repeat(_halves(raw, blocks, scale_at), kind.n_weights // GROUP, axis=1)
    zeros = np.full(scales.shape, zero, dtype=np.uint8)
    return pack_l4_32(scales, zeros, codes(blocks).reshape(len(raw), -1))


def _halves(raw: U8Array, blocks: U8Array, at: int) -> F16Array:
    """The binary16 at a place of every block, [n_rows, blocks of a row]."""
    values = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").reshape(len(raw), -1)
    if not np.isfinite(values).all():
        raise NumericError("a scale that is not finite", code="numeric")
    return values


def _q4_0(raw: U8Array) -> U8Array:
    return _linear(raw, "Q4_0", 0, 8, lambda blocks: planes(blocks[:, 2:], 16, 4))


def _q8_0(raw: U8Array) -> U8Array:
    blocks = np.ascontiguousarray(raw).reshape(-1, BY_NAME["Q8_0"].n_bytes)
    levels = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    return pack_l8_32(_halves(raw, blocks, 0), levels.reshape(len(raw), -1))


def _tq1_0(raw: U8Array) -> U8Array:
    return _linear(raw, "TQ1_0", 52, 1, tq1_0_codes)


def _tq2_0(raw: U8Array) -> U8Array:
    return _linear(raw, "TQ2_0", 64, 1, tq2_0_codes)


def _q4_k(raw: U8Array) -> U8Array:
    blocks = np.ascontiguousarray(raw).reshape(-1, BY_NAME["Q4_K"].n_bytes)
    scales, minima = k_scales(blocks[:, 4:16])
    return pack_k4_32(
        _halves(raw, blocks, 0),
        _halves(raw, blocks, 2),
        scales.reshape(len(raw), -1),
        minima.reshape(len(raw), -1),
        planes(blocks[:, 16:], 32, 4).reshape(len(raw), -1),
    )


EXACT: Mapping[str, Encode] = {
    "Q4_0": _q4_0,
    "Q4_K": _q4_k,
    "Q8_0": _q8_0,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
