"""Quantized rows of GGUF as strips of a weight format of ours, number for number.

EXACT has one entry for every type of types.FORMATS that has an exact format; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgellm.errors import NumericError

from ..quant.l4 import GROUP, pack_l4_32
from .dequantize import planes, tq1_0_codes, tq2_0_codes
from .types import BY_NAME

U8Array = npt.NDArray[np.uint8]
Encode = Callable[[U8Array], U8Array]  # [n_rows, bytes of a row] -> strips


def _linear(raw: U8Array, name: str, scale_at: int, zero: int, codes: Encode) -> U8Array:
    """Strips of L4_32, whose groups of 32 have a binary16 scale and a zero point: w = d * (q - z),
    a scale of more weights being repeated."""
    kind = BY_NAME[name]
    blocks = np.ascontiguousarray(raw).reshape(-1, kind.n_bytes)
    scales = np.ascontiguousarray(blocks[:, scale_at : scale_at + 2]).view("<f2")
    scales = np.repeat(scales.reshape(len(raw), -1), kind.n_weights // GROUP, axis=1)
    if not np.isfinite(scales).all():
        raise NumericError("a scale that is not finite", code="numeric")
    zeros = np.full(scales.shape, zero, dtype=np.uint8)
    return pack_l4_32(scales, zeros, codes(blocks).reshape(len(raw), -1))


def _q4_0(raw: U8Array) -> U8Array:
    return _linear(raw, "Q4_0", 0, 8, lambda blocks: planes(blocks[:, 2:], 16, 4))


def _tq1_0(raw: U8Array) -> U8Array:
    return _linear(raw, "TQ1_0", 52, 1, tq1_0_codes)


def _tq2_0(raw: U8Array) -> U8Array:
    return _linear(raw, "TQ2_0", 64, 1, tq2_0_codes)


EXACT: Mapping[str, Encode] = {"Q4_0": _q4_0, "TQ1_0": _tq1_0, "TQ2_0": _tq2_0}
