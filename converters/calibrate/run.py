"""Quantizes a model layer by layer, every layer on the inputs that the converted model will see.

Each matrix that a calibrated method quantizes ends in the work directory; what is there already is
not made again, and the layers up to it are only walked through. Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from edgellm._native import default_n_threads
from edgellm.edgefile import tensor_bytes
from edgellm.errors import EdgeError

from ..encode import encode_rows
from ..plan import Job
from ..quant import decode_matrix
from ..quant.methods import InputStats, quantize
from ..quant.methods.rounding import Rounding
from ..quant.tiles import F32Array, U8Array
from ..recipe import AUTO_ACT, EMBED_ROLE, HEAD_ROLE
from ..report import PlannedTensor
from .acts import ActSettler
from .fold_layer import fold_layer
from .stats_cache import StatsCache
from .tied import input_of_layers, last_norm, original_head_stats, tied_strips
from .tokens import CalibrationTokens, Tokens
from .tune import LayerTuning
from .walk import Walk, input_groups, token_rows
from .work import WorkDir

EMBED_BLOCK_ROWS = 1 << 14
WEIGHED_FIRMNESS = (
    0.5  # measured on layer 0 of a trained model: 0 makes it worse, 1 keeps the start
)

LayerFn = Callable[[str, int, int], None]  # matrix just quantized, matrices done, matrices in all


def quantize_calibrated(
    job: Job,
    tokens: CalibrationTokens,
    work: WorkDir,
    n_threads: int,
    progress: LayerFn | None,
    cache: StatsCache,
) -> None:
    """Leaves the strips of every matrix with a calibrated method in `work`. The same bytes for any
    n_threads (0: all performance cores), interrupted or not. An exception of `progress` cancels."""
    _Run(job, tokens, work, n_threads or default_n_threads(), progress, cache).run()


class _Run:
    def __init__(
        self,
        job: Job,
        tokens: CalibrationTokens,
        work: WorkDir,
        n_threads: int,
        progress: LayerFn | None,
        cache: StatsCache,
    ) -> None:
        self._job, self._tokens, self._work, self._cache = job, tokens, work, cache
        self._n_threads, self._progress = n_threads, progress
        self._items = {item.name: item for item in job.planned}
        calibrated = [item for item in job.planned if job.method(item).needs_stats]
        self._n_total, self._n_done = len(calibrated), 0
        self._acts = ActSettler(job, work, tokens.windows, n_threads)
        self._keep_full = any(job.method(item).needs_original for item in calibrated)

    def run(self) -> None:
        hidden, full = self._embedded()
        walk = Walk(self._job.spec, self._job.tables, hidden, full, self._n_threads)
        asking = [
            item.name
            for item in self._job.planned
            if self._job.scale(item) is not None or item.act == AUTO_ACT
        ]
        for index in range(len(self._job.spec.layers)):
            left = any(int(name.split(".")[1]) >= index for name in asking)
            if self._n_done == self._n_total and not left:
                return
            self._layer(walk, index)
        head = self._items.get(HEAD_ROLE)
        if head is not None and self._job.method(head).needs_stats:
            measure = partial(walk.measure_head, last_norm(self._job))
            n_cols = head.rows_cols[1]
            stats = self._cache.found(HEAD_ROLE, n_cols, self._keep_full, measure)
            self._strips(head, self._read(head), stats)

    def _layer(self, walk: Walk, index: int) -> None:
        prefix = f"layers.{index}."
        names = [name for name in self._items if name.startswith(prefix)]
        fold_layer(self._job, self._work, walk, index, self._cache)
        read = {name: self._read(self._items[name]) for name in names}
        original = {
            name: torch.from_numpy(rows.reshape(self._items[name].shape))
            for name, rows in read.items()
        }
        converted: dict[str, Tensor] = dict(original)
        tuned = [self._items[n] for n in names if self._job.method(self._items[n]).tunes_layers]
        again = bool(tuned) and not self._all_there(names)
        roundings: dict[str, Rounding] = {}
        groups = input_groups(self._job.spec.layers[index])
        for group in groups:
            # Measured once for the matrices that share an input, and only if one asks.
            measure = partial(walk.measure, index, converted, original, group)
            n_cols = self._items[prefix + group[0]].rows_cols[1]
            stats = cache(self._cache.found(prefix + group[0], n_cols, self._keep_full, measure))
            for role in group:
                item = self._items[prefix + role]
                if again and item in tuned:
                    strips = self._first_strips(item, read[item.name], stats)
                    with _naming(item):
                        rounding = self._rounding(item, read[item.name], strips)
                    roundings[item.name] = rounding
                else:
                    strips = self._strips(item, read[item.name], stats)
                self._cache.chosen(item.name, item.format, strips)
                converted[item.name] = _decoded(item, strips)
        if roundings:
            self._tune(walk, index, roundings, converted, original)
        self._acts.settle_layer(walk, index, converted)
        walk.advance(index, converted, original)

    def _all_there(self, names: list[str]) -> bool:
        """Whether the work directory has every calibrated matrix of a layer. Tuned ones are made
        together, and others beside them on the inputs that the start of the tuning gave."""
        items = [self._items[name] for name in names]
        calibrated = [item for item in items if self._job.method(item).needs_stats]
        return all(self._work.load(item.name, item.n_bytes) is not None for item in calibrated)

    def _tune(
        self,
        walk: Walk,
        index: int,
        roundings: dict[str, Rounding],
        converted: dict[str, Tensor],
        original: dict[str, Tensor],
    ) -> None:
        """Leaves the tuned matrices in the work directory and in `converted`."""
        method = self._job.method(self._items[next(iter(roundings))])
        LayerTuning(walk, index, roundings, converted, original).run(method)
        for name, rounding in roundings.items():
            strips = rounding.strips()
            self._work.store(name, strips)
            self._cache.chosen(name, self._items[name].format, strips)
            converted[name] = _decoded(self._items[name], strips)
            self._count(self._items[name])

    def _rounding(self, item: PlannedTensor, weights: F32Array, strips: U8Array) -> Rounding:
        weighed = self._job.method(item).first.name in ("gptq", "gptaq")
        return Rounding(weights, item.format, strips, WEIGHED_FIRMNESS if weighed else 0.0)

    def _first_strips(
        self, item: PlannedTensor, weights: F32Array, stats: Callable[[], InputStats]
    ) -> U8Array:
        """The codes that a tuned matrix begins with."""
        method = self._job.method(item).first
        with _naming(item):
            measured = stats() if method.needs_stats else None
            return quantize(weights, item.format, method, measured, self._n_threads)

    def _strips(
        self, item: PlannedTensor, weights: F32Array, stats: Callable[[], InputStats]
    ) -> U8Array:
        method = self._job.method(item)
        with _naming(item):
            if not method.needs_stats:
                return encode_rows(self._job.checkpoint, item, method, weights, 0, self._n_threads)
            strips = self._work.load(item.name, item.n_bytes)
            if strips is None:
                strips = quantize(weights, item.format, method, stats(), self._n_threads)
                self._work.store(item.name, strips)
        self._count(item)
        return strips

    def _count(self, item: PlannedTensor) -> None:
        self._n_done += 1
        if self._progress is not None:
            self._progress(item.name, self._n_done, self._n_total)

    def _embedded(self) -> tuple[F32Array, F32Array | None]:
        """The inputs of layer 0 with the converted embedding, and with the original one."""
        item = self._items[EMBED_ROLE]
        ids, indices = token_rows(self._tokens.windows)
        table = self._looked_up(item, ids, lambda row0, n: self._job.read_rows(item, row0, n))
        if self._job.method(item).needs_stats:
            n_cols = item.rows_cols[1]

            def measure() -> InputStats:
                hidden = input_of_layers(self._job, table[indices])
                return original_head_stats(self._job, hidden, self._n_threads)

            stats = self._cache.found("original.output", n_cols, False, measure)
            strips = self._tied(item, stats)

            def decoded(row0: int, n: int) -> F32Array:
                begin = tensor_bytes(item.format, row0, n_cols) if row0 else 0
                block = strips[begin : begin + tensor_bytes(item.format, n, n_cols)]
                return decode_matrix(item.format, block, n, n_cols)

            converted = self._looked_up(item, ids, decoded)
        else:
            # Rows are encoded one by one: those in use give what the whole table would.
            assert item.source is not None
            dtype = self._job.checkpoint.tensors[item.source].dtype
            method = self._job.method(item)
            strips = quantize(table, item.format, method, None, self._n_threads, dtype)
            converted = decode_matrix(item.format, strips, *table.shape)
        self._cache.chosen(item.name, item.format, strips)
        full = input_of_layers(self._job, table[indices]) if self._keep_full else None
        return input_of_layers(self._job, converted[indices]), full

    def _tied(self, item: PlannedTensor, stats: Callable[[], InputStats]) -> U8Array:
        with _naming(item):
            strips = self._work.load(item.name, item.n_bytes)
            if strips is None:
                strips = tied_strips(self._job, item, stats(), self._n_threads)
                self._work.store(item.name, strips)
        self._count(item)
        return strips

    def _looked_up(
        self, item: PlannedTensor, ids: Tokens, read: Callable[[int, int], F32Array]
    ) -> F32Array:
        """Rows `ids`, ascending, of the embedding, which read(row0, n_rows) gives in blocks."""
        n_rows, n_cols = item.rows_cols
        table = np.empty((len(ids), n_cols), dtype=np.float32)
        for row0 in range(0, n_rows, EMBED_BLOCK_ROWS):
            n = min(EMBED_BLOCK_ROWS, n_rows - row0)
            begin, end = np.searchsorted(ids, [row0, row0 + n])
            if begin < end:
                table[begin:end] = read(row0, n)[ids[begin:end] - row0]
        return table

    def _read(self, item: PlannedTensor) -> F32Array:
        return self._job.read_rows(item, 0, item.rows_cols[0])


@contextmanager
def _naming(item: PlannedTensor) -> Iterator[None]:
    """Errors inside say which tensor it was."""
    try:
        yield
    except EdgeError as error:
        raise type(error)(f"tensor '{item.source}': {error}", code=error.code) from error


def _decoded(item: PlannedTensor, strips: U8Array) -> Tensor:
    decoded = decode_matrix(item.format, strips, *item.rows_cols)
    return torch.from_numpy(np.ascontiguousarray(decoded))
