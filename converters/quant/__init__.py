"""Weight formats: one file per family, each with a numpy decoder of its own.

The decoders are written from the byte layout, not from the C++, so that the two check each other.
Encoding of the E formats searches scales and LUTs and is native; F16 is packed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgellm.edgefile import tensor_bytes
from edgellm.errors import FormatError, UnsupportedError

from .e2 import decode_e2_16, pack_e2_16
from .e3 import decode_e3_32, pack_e3_32
from .e4 import decode_e4_16, decode_e4_32, pack_e4_16, pack_e4_32
from .e6 import decode_e6_16, pack_e6_16
from .e8 import decode_e8_32, pack_e8_32
from .f16 import decode_f16, encode_f16
from .k4 import decode_k4_32
from .l4 import decode_l4_32
from .l8 import decode_l8_32
from .tiles import F32Array, U8Array


@dataclass(frozen=True)
class QuantFormat:
    """decode(strips, n_cols) gives rows and columns with their padding.

    pack(d_row, scale_bytes, codes) gives strips; None where a format has no scale bytes.
    """

    name: str
    default_act: str
    decode: Callable[[U8Array, int], F32Array]
    pack: Callable[[F32Array, U8Array, U8Array], U8Array] | None


QUANT_FORMATS = {
    item.name: item
    for item in (
        QuantFormat("E2_16", "a8", decode_e2_16, pack_e2_16),
        QuantFormat("E3_32", "a8", decode_e3_32, pack_e3_32),
        QuantFormat("E4_16", "a8", decode_e4_16, pack_e4_16),
        QuantFormat("E4_32", "a8", decode_e4_32, pack_e4_32),
        QuantFormat("E6_16", "a8", decode_e6_16, pack_e6_16),
        QuantFormat("E8_32", "a8", decode_e8_32, pack_e8_32),
        QuantFormat("K4_32", "a8", decode_k4_32, None),
        QuantFormat("L4_32", "a8", decode_l4_32, None),
        QuantFormat("L8_32", "a8", decode_l8_32, None),
        QuantFormat("F16", "f32", decode_f16, None),
    )
}


def quant_format(name: str) -> QuantFormat:
    """The format of a name; UnsupportedError lists the names there are."""
    found = QUANT_FORMATS.get(name)
    if found is None:
        raise UnsupportedError(
            f"weight format '{name}' is not known (known: {', '.join(QUANT_FORMATS)})",
            code="tensor_format",
        )
    return found


def decode_matrix(format: str, data: U8Array, n_rows: int, n_cols: int) -> F32Array:
    """All strips of a [n_rows, n_cols] tensor (or of a block of whole strips) as float32."""
    n_bytes = tensor_bytes(format, n_rows, n_cols)
    if data.size != n_bytes:
        raise FormatError(
            f"{data.size} bytes, a [{n_rows}, {n_cols}] {format} tensor has {n_bytes}",
            code="tensor_shape",
        )
    return quant_format(format).decode(data, n_cols)[:n_rows, :n_cols]


def encode_matrix(
    format: str, weights: F32Array, importance: F32Array | None, n_threads: int
) -> U8Array:
    """Strips of a [n_rows, n_cols] block. Blocks of whole strips concatenate to the tensor."""
    if quant_format(format).name == "F16":
        return encode_f16(weights)
    from edgellm._native import encode_tensor

    block = np.ascontiguousarray(weights, dtype=np.float32)
    return encode_tensor(format, block, importance, n_threads)
