"""8-bit floats and float32, both ways, with the bits that torch's casts give.

E4M3 here is the "fn" kind (no infinities, one NaN of either sign, largest 448) and saturates;
E5M2 is IEEE-like (infinities, largest 57344). Rounding is to nearest, ties to even. The formats:
Micikevicius et al. 2022, arXiv:2209.05433. Casts are those of ml_dtypes; what differs from torch,
saturation and the bits of a NaN, is set right here. Knows nothing of scales.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedError

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]

# Names of safetensors -> (mantissa bits, largest finite value).
_MANTISSA_BITS = {"F8_E4M3": 3, "F8_E5M2": 2}
LARGEST = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}
FLOAT8_DTYPES = tuple(LARGEST)
_SIGN, _EXPONENT, _QUIET = 0x80000000, 0x7F800000, 0x00400000


def decode_float8(codes: U8Array, dtype: str) -> F32Array:
    """One value a byte, exactly, in the shape of `codes`. UnsupportedError without ml_dtypes."""
    return _table(dtype)[codes]


def encode_float8(values: F32Array, dtype: str) -> U8Array:
    """Nearest codes, in the shape of `values`. Beyond the largest value E4M3 gives that value, of
    infinities too, and E5M2 rounds to it or to infinity. NaN gives all ones after its sign."""
    values = np.asarray(values, dtype=np.float32)
    is_nan = np.isnan(values)
    # A NaN is cast as 0: the cast of some is a floating-point exception.
    numbers = np.where(is_nan, np.float32(0), values)
    if dtype == "F8_E4M3":
        numbers = np.clip(numbers, -LARGEST[dtype], LARGEST[dtype])
    with np.errstate(over="ignore"):
        codes = numbers.astype(_type(dtype)).view(np.uint8)
    nan_codes = np.where(np.signbit(values), 0xFF, 0x7F).astype(np.uint8)
    return np.where(is_nan, nan_codes, codes)


@cache
def _table(dtype: str) -> F32Array:
    """The 256 values. A NaN keeps sign and mantissa and is quiet, as in torch."""
    codes = np.arange(256, dtype=np.uint8)
    table: F32Array = codes.view(_type(dtype)).astype(np.float32)
    n_bits = _MANTISSA_BITS[dtype]
    for code in np.flatnonzero(np.isnan(table)).tolist():
        mantissa = (code & ((1 << n_bits) - 1)) << (23 - n_bits)
        bits = (_SIGN if code & 0x80 else 0) | _EXPONENT | _QUIET | mantissa
        table.view(np.uint32)[code] = bits
    table.flags.writeable = False
    return table


def _type(dtype: str) -> Any:
    try:
        import ml_dtypes
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "8-bit floats need ml_dtypes: pip install 'edgellm[convert]'",
            code="feature_unsupported",
        ) from error
    return {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}[dtype]
