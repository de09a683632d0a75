"""Quantized rows of GGUF as strips of a weight format of ours, number for number.

EXACT has one entry for every type of types.FORMATS that has an exact format; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgellm.errors import NumericError

from ..quant.l4 import pack_l4_32
from .dequantize import planes
from .types import BY_NAME

U8Array = npt.NDArray[np.uint8]
Encode = Callable[[U8Array], U8Array]  # [n_rows, bytes of a row] -> strips


def _q4_0(raw: U8Array) -> U8Array:
    """w = d * (q - 8): a group of 32 with a scale and the zero point 8, which is L4_32's."""
    kind = BY_NAME["Q4_0"]
    blocks = np.ascontiguousarray(raw).reshape(-1, kind.n_bytes)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").reshape(len(raw), -1)
    if not np.isfinite(scales).all():
        raise NumericError("a scale that is not finite", code="numeric")
    codes = planes(blocks[:, 2:], 16, 4).reshape(len(raw), -1)
    return pack_l4_32(scales, np.full(scales.shape, 8, dtype=np.uint8), codes)


EXACT: Mapping[str, Encode] = {"Q4_0": _q4_0}
