"""Quantizes a model layer by layer, every layer on the inputs that the converted model will see.

Each matrix that a calibrated method quantizes ends in the work directory; what is there already is
not made again, and the layers up to it are only walked through. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from edgellm._native import default_n_threads
from edgellm.errors import EdgeError

from ..encode import encode_rows
from ..plan import Job
from ..quant import decode_matrix
from ..quant.methods import InputStats, quantize
from ..quant.tiles import F32Array, U8Array
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..report import PlannedTensor
from .tokens import CalibrationTokens
from .walk import INPUT_GROUPS, Walk, token_rows
from .work import WorkDir

EMBED_BLOCK_ROWS = 1 << 14

LayerFn = Callable[[str, int, int], None]  # matrix just quantized, matrices done, matrices in all


def quantize_calibrated(
    job: Job,
    tokens: CalibrationTokens,
    work: WorkDir,
    n_threads: int,
    progress: LayerFn | None = None,
) -> None:
    """Leaves the strips of every matrix with a calibrated method in `work`. The same bytes for any
    n_threads (0: all performance cores), interrupted or not. An exception of `progress` cancels."""
    _Run(job, tokens, work, n_threads or default_n_threads(), progress).run()


class _Run:
    def __init__(
        self,
        job: Job,
        tokens: CalibrationTokens,
        work: WorkDir,
        n_threads: int,
        progress: LayerFn | None,
    ) -> None:
        self._job, self._tokens, self._work = job, tokens, work
        self._n_threads, self._progress = n_threads, progress
        self._items = {item.name: item for item in job.planned}
        calibrated = [item for item in job.planned if job.method(item).needs_stats]
        self._n_total, self._n_done = len(calibrated), 0
        self._keep_full = any(job.method(item).needs_drift for item in calibrated)

    def run(self) -> None:
        hidden, full = self._embedded()
        walk = Walk(self._job.spec, self._job.inv_freq, hidden, full, self._n_threads)
        for index in range(len(self._job.spec.layers)):
            if self._n_done == self._n_total:
                return
            self._layer(walk, index)
        head = self._items.get(HEAD_ROLE)
        if head is not None and self._job.method(head).needs_stats:
            norm = torch.from_numpy(self._read(self._items["output_norm"]).reshape(-1))
            self._strips(head, self._read(head), lambda: walk.measure_head(norm))

    def _layer(self, walk: Walk, index: int) -> None:
        prefix = f"layers.{index}."
        names = [name for name in self._items if name.startswith(prefix)]
        read = {name: self._read(self._items[name]) for name in names}
        original = {
            name: torch.from_numpy(rows.reshape(self._items[name].shape))
            for name, rows in read.items()
        }
        converted: dict[str, Tensor] = dict(original)
        for group in INPUT_GROUPS:
            # Measured once for the matrices that share an input, and only if one asks.
            stats = cache(partial(walk.measure, index, converted, original, group))
            for role in group:
                item = self._items[prefix + role]
                strips = self._strips(item, read[item.name], stats)
                decoded = decode_matrix(item.format, strips, *item.rows_cols)
                converted[item.name] = torch.from_numpy(np.ascontiguousarray(decoded))
        walk.advance(index, converted, original)

    def _strips(
        self, item: PlannedTensor, weights: F32Array, stats: Callable[[], InputStats]
    ) -> U8Array:
        method = self._job.method(item)
        try:
            if not method.needs_stats:
                return encode_rows(self._job.checkpoint, item, method, weights, 0, self._n_threads)
            strips = self._work.load(item.name, item.n_bytes)
            if strips is None:
                strips = quantize(weights, item.format, method, stats(), self._n_threads)
                self._work.store(item.name, strips)
        except EdgeError as error:
            raise type(error)(f"tensor '{item.source}': {error}", code=error.code) from error
        self._n_done += 1
        if self._progress is not None:
            self._progress(item.name, self._n_done, self._n_total)
        return strips

    def _embedded(self) -> tuple[F32Array, F32Array | None]:
        """The inputs of layer 0 with the converted embedding, and with the original one."""
        item = self._items[EMBED_ROLE]
        assert item.source is not None
        ids, indices = token_rows(self._tokens.windows)
        n_rows, n_cols = item.rows_cols
        table = np.empty((len(ids), n_cols), dtype=np.float32)
        for row0 in range(0, n_rows, EMBED_BLOCK_ROWS):
            n = min(EMBED_BLOCK_ROWS, n_rows - row0)
            begin, end = np.searchsorted(ids, [row0, row0 + n])
            if begin < end:
                rows = self._job.checkpoint.read_rows(item.source, row0, n)
                table[begin:end] = rows[ids[begin:end] - row0]
        # Rows are encoded one by one: those in use give what the whole table would.
        strips = quantize(
            table,
            item.format,
            self._job.method(item),
            None,
            self._n_threads,
            self._job.checkpoint.tensors[item.source].dtype,
        )
        converted = decode_matrix(item.format, strips, *table.shape)
        return converted[indices], table[indices] if self._keep_full else None

    def _read(self, item: PlannedTensor) -> F32Array:
        assert item.source is not None
        return self._job.checkpoint.read_rows(item.source, 0, item.rows_cols[0])
