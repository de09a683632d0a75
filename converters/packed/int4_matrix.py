"""One 4-bit matrix of a checkpoint, in the layouts of GPTQ, AWQ and compressed-tensors.

w = s * (q - z) with a scale and a zero point per group of columns, which is what a tile of L4_32
holds: strips() gives those, and nothing is rounded; unpacked rows are the same numbers in float32.
Layouts, of a matrix with n outputs and k inputs (nibble j of an int32 is bits 4j to 4j + 3):

* GPTQ (AutoGPTQ's QuantLinear.pack, GPTQModel): qweight [k / 8, n], nibble j of row i is input
  8i + j; scales [groups, n]; qzeros [groups, n / 8], nibble j of column i is output 8i + j, and
  holds z - 1, or z itself where checkpoint_format is gptq_v2; g_idx [k], the group of every input.
* AWQ (AutoAWQ's WQLinear_GEMM, arXiv:2306.00978): qweight [k, n / 8], nibble j of column i is
  output 8i + (0 2 4 6 1 3 5 7)[j]; qzeros [groups, n / 8] alike, z; scales [groups, n].
* compressed-tensors, format pack-quantized (its pack_to_int32): weight_packed [n, k / 8], nibble j
  of column i is input 8i + j, plus 8; weight_scale [n, groups]; weight_zero_point [n / 8, groups],
  nibble j of row i is output 8i + j, plus 8, absent where symmetric; weight_shape.

A group is a multiple of 32 inputs. Inputs that GPTQ sorted (desc_act) are read where every 32 of
them in their own order belong to one group, and refused where not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, NumericError, UnsupportedError

from ..quant.l4 import F16Array, pack_l4_32
from . import F32Array, StoredReader, U8Array

if TYPE_CHECKING:
    from ..safetensors_header import TensorInfo

I32Array = npt.NDArray[np.int32]

TILE_K = 32
_AWQ_ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])


@dataclass(frozen=True)
class PackedMatrix(ABC):
    """One packed matrix. parts: every tensor of the checkpoint that belongs to it."""

    name: str
    n_rows: int
    n_cols: int
    codes: TensorInfo
    scales: TensorInfo
    zeros: TensorInfo | None
    group_index: TensorInfo | None
    parts: tuple[TensorInfo, ...]
    zero_shift: int = 0

    def rows(self, reader: StoredReader, row0: int, n_rows: int) -> F32Array:
        """Rows as float32, exactly. NumericError, UnsupportedError: see quantized()."""
        scales, zeros, codes = self.quantized(reader, row0, n_rows)
        levels = codes.astype(np.float32)
        levels -= np.repeat(zeros, TILE_K, axis=1)[:, : self.n_cols]
        levels *= np.repeat(scales.astype(np.float32), TILE_K, axis=1)[:, : self.n_cols]
        return levels

    def strips(self, reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        """The same rows as strips of L4_32; row0 is a multiple of 16."""
        return pack_l4_32(*self.quantized(reader, row0, n_rows))

    def quantized(
        self, reader: StoredReader, row0: int, n_rows: int
    ) -> tuple[F16Array, U8Array, U8Array]:
        """(scales, zeros [n_rows, groups of 32], codes [n_rows, n_cols]).

        NumericError: a scale that is not finite. UnsupportedError: one that f16 cannot hold, or
        inputs in another order than that of their groups.
        """
        codes = self._codes(reader, row0, n_rows)
        scales, zeros = self._groups(reader, row0, n_rows)
        halves = _exact_halves(scales, self.scales)
        columns = self._group_of_tile(reader, scales.shape[1])
        return halves[:, columns], zeros[:, columns], codes

    @abstractmethod
    def _codes(self, reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        """[n_rows, n_cols] of 0..15."""

    @abstractmethod
    def _groups(self, reader: StoredReader, row0: int, n_rows: int) -> tuple[F32Array, U8Array]:
        """scales and zeros [n_rows, groups] as stored."""

    def _group_of_tile(self, reader: StoredReader, n_groups: int) -> npt.NDArray[np.int64]:
        """The group of every 32 columns."""
        if self.group_index is None:
            group = -(-self.n_cols // n_groups)
            return np.arange(0, self.n_cols, TILE_K) // group
        raw = reader.stored_bytes(self.group_index, 0, 1)
        index = raw.view("<i4").astype(np.int64)
        if (index < 0).any() or (index >= n_groups).any():
            raise FormatError(
                f"{self.group_index.path}: tensor '{self.group_index.name}' names a group that "
                f"there is not; there are {n_groups}",
                code="tensor_shape",
            )
        first = index[::TILE_K]
        if not np.array_equal(np.repeat(first, TILE_K)[: self.n_cols], index):
            raise UnsupportedError(
                f"{self.group_index.path}: '{self.group_index.name}': inputs were sorted by "
                "activation (desc_act) and 32 in a row belong to several groups, which no tile can "
                "hold; take a checkpoint made with desc_act=false, or its original",
                code="spec_unsupported",
            )
        return first


class GptqMatrix(PackedMatrix):
    """GPTQ: inputs down, outputs across, eight inputs an int32."""

    def _codes(self, reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        words = _words(reader, self.codes)[:, row0 : row0 + n_rows]  # k / 8, n_rows
        nibbles = _nibbles(words.T)  # n_rows, k / 8, 8
        return nibbles.reshape(n_rows, -1)[:, : self.n_cols]

    def _groups(self, reader: StoredReader, row0: int, n_rows: int) -> tuple[F32Array, U8Array]:
        assert self.zeros is not None
        rows = slice(row0, row0 + n_rows)
        scales = reader.stored_rows(self.scales, 0, self.scales.shape[0])[:, rows].T
        nibbles = self._zero_nibbles(_words(reader, self.zeros))[:, rows].T
        return np.ascontiguousarray(scales), nibbles + np.uint8(self.zero_shift)

    def _zero_nibbles(self, words: I32Array) -> U8Array:
        return _nibbles(words).reshape(len(words), -1)


class AwqMatrix(GptqMatrix):
    """AWQ: inputs down, outputs across, eight outputs an int32, in an order of their own."""

    def _codes(self, reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        first, last = row0 // 8, -(-(row0 + n_rows) // 8)
        words = _words(reader, self.codes)[:, first:last]
        outputs = self._zero_nibbles(words)[:, row0 - 8 * first :][:, :n_rows]
        return np.ascontiguousarray(outputs.T)

    def _zero_nibbles(self, words: I32Array) -> U8Array:
        nibbles = _nibbles(words)
        ordered = np.empty_like(nibbles)
        ordered[..., _AWQ_ORDER] = nibbles
        return ordered.reshape(len(words), -1)


class CompressedMatrix(PackedMatrix):
    """compressed-tensors: outputs down, inputs across, everything plus 8."""

    def _codes(self, reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        raw = reader.stored_bytes(self.codes, row0, n_rows)
        words = raw.view("<i4").reshape(n_rows, -1)
        return _nibbles(words).reshape(n_rows, -1)[:, : self.n_cols]

    def _groups(self, reader: StoredReader, row0: int, n_rows: int) -> tuple[F32Array, U8Array]:
        scales = reader.stored_rows(self.scales, row0, n_rows)
        if self.zeros is None:
            return scales, np.full(scales.shape, 8, dtype=np.uint8)
        first, last = row0 // 8, -(-(row0 + n_rows) // 8)
        words = _words(reader, self.zeros)[first:last]
        rows = _nibbles(words).transpose(0, 2, 1).reshape(-1, words.shape[1])
        return scales, rows[row0 - 8 * first :][:n_rows]


def _words(reader: StoredReader, info: TensorInfo) -> I32Array:
    raw = reader.stored_bytes(info, 0, info.shape[0])
    return raw.view("<i4").reshape(info.shape)


def _nibbles(words: I32Array) -> U8Array:
    """[...] int32 -> [..., 8] of 0..15, the lowest bits first."""
    raw = np.ascontiguousarray(words, dtype="<i4").view(np.uint8).reshape(*words.shape, 4)
    nibbles = np.empty((*words.shape, 4, 2), dtype=np.uint8)
    nibbles[..., 0] = raw & 15
    nibbles[..., 1] = raw >> 4
    return nibbles.reshape(*words.shape, 8)


def _exact_halves(scales: F32Array, info: TensorInfo) -> F16Array:
    if not np.isfinite(scales).all():
        raise NumericError(
            f"{info.path}: tensor '{info.name}' holds a scale that is not finite", code="numeric"
        )
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    bad = halves.astype(np.float32) != scales
    if bad.any():
        raise UnsupportedError(
            f"{info.path}: tensor '{info.name}' ({info.dtype}): {int(bad.sum())} of {bad.size} "
            f"scales are not exact in f16 (the first is {scales[bad][0]:g}); L4_32 would round "
            "them: choose another --format of the original checkpoint",
            code="tensor_format",
        )
    return halves
