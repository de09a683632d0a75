"""Checkpoints whose weights are stored packed: one file per scheme, found by config.json.

A scheme turns what is stored (8-bit codes, scales) into what an ordinary checkpoint would hold, so
that nothing after checkpoint.py knows of it. Adding a scheme means adding a file with `claims` and
`packing` and naming it in find_packing. A scheme that nobody claims is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from ..safetensors_header import TensorInfo

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]


class StoredReader(Protocol):
    """Rows of a tensor as it is stored; a vector is one row. Thread-safe."""

    def stored_bytes(self, info: TensorInfo, row0: int, n_rows: int) -> U8Array: ...

    def stored_rows(self, info: TensorInfo, row0: int, n_rows: int) -> F32Array: ...


Unpack = Callable[[StoredReader, int, int], F32Array]  # reader, row0, n_rows -> [n_rows, n_cols]
Strips = Callable[[StoredReader, int, int], U8Array]  # the same rows as strips of a weight format


@dataclass(frozen=True)
class Packing:
    """tensors: what the checkpoint would hold if nothing were packed, by name. unpack: how to read
    those of them that are. warnings: what of the checkpoint has no effect. strips: those that the
    weight format strip_format holds exactly, as its strips (row0 a multiple of 16)."""

    tensors: Mapping[str, TensorInfo]
    unpack: Mapping[str, Unpack] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    strips: Mapping[str, Strips] = field(default_factory=dict)
    strip_format: str = ""


def find_packing(config: Mapping[str, Any], stored: Mapping[str, TensorInfo]) -> Packing:
    """config: config.json. UnsupportedError names a scheme that is not understood, FormatError what
    in it or in the tensors contradicts it."""
    from . import fp8, int4

    value: Any = config.get("quantization_config")
    if value is None:
        return Packing(stored)
    if not isinstance(value, dict):
        raise FormatError("config.json: 'quantization_config' must be an object", code="json_type")
    schemes = (fp8, int4)
    for scheme in schemes:
        if scheme.claims(value):
            packing: Packing = scheme.packing(value, stored)
            return packing
    names = [repr(value[key])[:80] for key in ("quant_method", "format") if key in value]
    raise UnsupportedError(
        f"config.json: quantization_config: the scheme {' '.join(names) or 'without a name'} is "
        f"not understood; understood are {', '.join(name for s in schemes for name in s.NAMES)}",
        code="spec_unsupported",
    )
