"""Weights for graphs, from a checkpoint or exactly from a file that holds them exactly.

4-bit weights are those of L4_32: what a packed checkpoint holds stays as it is, all else is rounded
once, from the source. A `.edge` file is taken where its matrices are F16 or L4_32; other formats
have rounded already, on a grid that no NPU has, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from edgellm.edgefile import tensor_bytes
from edgellm.errors import InvalidArgumentError, UnsupportedError

from ..calibrate.convert import text_tokens
from ..calibrate.held_out import BUILTIN_TEXT
from ..checkpoint import Checkpoint
from ..encode import encode_rows
from ..export.edge_source import EdgeCheckpoint, is_edge
from ..extras import text_blobs
from ..plan import Job, Options
from ..quant import decode_matrix
from ..quant.l4 import unpack_l4_32
from ..quant.tiles import TILE_ROWS
from ..recipe import CalibrationOptions
from ..report import PlannedTensor
from ..sources import open_checkpoint
from ..spec import ModelSpec
from .ir import GROUP, Constant, Dense, F16Array, F32Array, Int4, U8Array

BITS = (4, 16, 32)
_BLOCK_WEIGHTS = 1 << 24
MIN_WINDOW = 8  # tokens of a calibration window
_FORMATS = {4: "L4_32", 16: "F16", 32: "F16"}
_EXACT = ("L4_32", "F16")


class NpuWeights:
    """The tensors of an opened model. bits: 4 (linear, groups of 32), 16, or 32 as stored."""

    def __init__(self, checkpoint: Checkpoint, bits: int | None) -> None:
        self._checkpoint = checkpoint
        self._edge = checkpoint if isinstance(checkpoint, EdgeCheckpoint) else None
        if bits is not None and bits not in BITS:
            raise InvalidArgumentError(
                f"{bits} bits a weight is not known (known: {', '.join(map(str, BITS))})",
                code="invalid_argument",
            )
        if self._edge is not None and bits is not None:
            raise InvalidArgumentError(
                f"{checkpoint.directory}: weights are taken as the file has them; leave the bits "
                "out, or convert from the source checkpoint",
                code="invalid_argument",
            )
        self.bits = bits or 4
        self._job = Job(checkpoint, Options(_FORMATS[self.bits], None, None, None))
        self.spec: ModelSpec = self._job.spec
        self.tables = self._job.tables
        self.warnings = tuple(self._job.warnings)
        self._planned = {item.name: item for item in self._job.planned}
        if self._edge is not None:
            self._refuse_rounded(self._edge)

    def matrix(self, name: str) -> Constant:
        """Rows are read when the constant is."""
        item = self._planned[name]
        if self._format(item) == "L4_32":
            return Int4(item.shape, partial(self._int4, item))
        stored = "f32" if self._edge is None and self.bits == 32 else "f16"
        return Dense(item.shape, stored, partial(self._dense, item, stored))

    def vector(self, name: str) -> Dense:
        item = self._planned[name]
        return Dense(item.shape, "f32", lambda: self._job.read_rows(item, 0, 1).reshape(-1))

    def tokenizer(self) -> bytes | None:
        """The compiled tokenizer; None if there is none."""
        if self._edge is not None:
            return self._edge.tokenizer_blob or None
        return text_blobs(self._job).get("tokenizer")

    def text_ids(self, n_tokens: int) -> list[int]:
        """Of the built-in calibration text; without a tokenizer from all of the vocabulary."""
        blob = self.tokenizer()
        if blob is None:
            drawn = np.random.default_rng(0).integers(0, self.spec.n_vocab, n_tokens)
            return [int(one) for one in drawn]
        options = CalibrationOptions(1, max(n_tokens, MIN_WINDOW))
        tokens = text_tokens(self._job, [BUILTIN_TEXT], {"tokenizer": blob}, options)
        return [int(one) for one in tokens.windows[0, :n_tokens]]

    def _format(self, item: PlannedTensor) -> str:
        return item.format if self._edge is None else self._edge.format_of(item.name)

    def _int4(self, item: PlannedTensor) -> tuple[F16Array, U8Array, U8Array]:
        n_rows, n_cols = item.rows_cols
        n_groups = -(-n_cols // GROUP)
        scales = np.empty((n_rows, n_groups), dtype=np.float16)
        zeros = np.empty((n_rows, n_groups), dtype=np.uint8)
        codes = np.empty((n_rows, n_cols), dtype=np.uint8)
        strips = None if self._edge is None else self._edge.strips(item.name)
        for rows in _blocks(item):
            own = self._encoded(item, rows) if strips is None else _strips_of(strips, item, rows)
            n = rows.stop - rows.start  # the last strip has rows beyond it
            scales[rows], zeros[rows], codes[rows] = (one[:n] for one in unpack_l4_32(own, n_cols))
        if (zeros > 15).any():
            raise UnsupportedError(
                f"'{item.name}' has a zero point of 16, which 4 bits do not hold; convert from the "
                "original checkpoint",
                code="tensor_format",
            )
        return scales, zeros, codes

    def _dense(self, item: PlannedTensor, stored: str) -> F32Array:
        values = np.empty(item.rows_cols, dtype=np.float32)
        is_read = stored == "f32" or self._edge is not None
        for rows in _blocks(item):
            n_rows = rows.stop - rows.start
            if is_read:
                values[rows] = self._job.read_rows(item, rows.start, n_rows)
            else:
                strips = self._encoded(item, rows)
                values[rows] = decode_matrix("F16", strips, n_rows, item.rows_cols[1])
        return values

    def _encoded(self, item: PlannedTensor, rows: slice) -> U8Array:
        weights = self._job.read_rows(item, rows.start, rows.stop - rows.start)
        return encode_rows(
            self._checkpoint, item, self._job.method(item), weights, rows.start, n_threads=1
        )

    def _refuse_rounded(self, edge: EdgeCheckpoint) -> None:
        matrices = [item.name for item in self._job.planned if len(item.shape) == 2]
        rounded = [name for name in matrices if edge.format_of(name) not in _EXACT]
        if rounded:
            raise UnsupportedError(
                f"{edge.directory}: {len(rounded)} matrices are rounded to a grid of ours "
                f"('{rounded[0]}' is {edge.format_of(rounded[0])}); rounding them again would "
                "lose more than 4 bits have to: give the source checkpoint, or a file whose "
                f"matrices are {' or '.join(_EXACT)}",
                code="tensor_format",
            )


def _blocks(item: PlannedTensor) -> Iterator[slice]:
    """Whole strips of rows: what is between them and a constant is in memory for one block."""
    n_rows, n_cols = item.rows_cols
    step = max(1, _BLOCK_WEIGHTS // (n_cols * TILE_ROWS)) * TILE_ROWS
    for at in range(0, n_rows, step):
        yield slice(at, min(at + step, n_rows))


def _strips_of(strips: U8Array, item: PlannedTensor, rows: slice) -> U8Array:
    n_bytes = tensor_bytes("L4_32", TILE_ROWS, item.rows_cols[1])
    return strips[rows.start // TILE_ROWS * n_bytes : -(-rows.stop // TILE_ROWS) * n_bytes]


@contextmanager
def open_weights(path: Path, bits: int | None = None) -> Iterator[NpuWeights]:
    """A checkpoint directory, a GGUF file or a `.edge` file. bits: see NpuWeights; None: 4, or as
    the `.edge` file has them."""
    with EdgeCheckpoint(path) if is_edge(path) else open_checkpoint(path) as checkpoint:
        yield NpuWeights(checkpoint, bits)


def rotary_table(weights: NpuWeights, rope: str, n_ctx: int) -> F32Array:
    """inv_freq [n_rope / 2] for layers of kind `rope`, as a context of n_ctx tokens asks for."""
    name = "rope_inv_freq_local" if rope == "local" else "rope_inv_freq"
    if rope == "full" and 0 < weights.spec.n_ctx_original < n_ctx:
        name = "rope_inv_freq_long"
    return np.asarray(weights.tables[name], dtype=np.float32)
