"""What each format costs each matrix by itself: the error of its outputs on calibration inputs.

trace((W - Q) H (W - Q)^T), H = E[x x^T] of the original model's inputs, with Q by the method that
the conversion will use. On a sample of rows (which do not see each other) and the first columns:
only the proportions between the formats of one matrix are used, and between matrices of a group
the full loss of the anchor, on the same rows. Of the embedding the squared error alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..calibrate.tied import last_norm
from ..calibrate.tokens import Tokens
from ..calibrate.walk import Walk, input_groups
from ..calibrate.work import WorkDir
from ..divergence import PlannedWeights
from ..plan import Job
from ..quant import decode_matrix, encode_matrix
from ..quant.methods import InputStats, Method, quantize
from ..quant.tiles import TILE_ROWS, F32Array, U8Array
from ..recipe import EMBED_ROLE, FAITHFUL_ROLES, HEAD_ROLE
from ..report import PlannedTensor
from .cache import MeasuredCache
from .sensitivity import FULL_LOSS, LOSS, method_for, strips_name, tensor_size

SAMPLE_ROWS = 128
SAMPLE_COLUMNS = 2048

StepFn = Callable[[str, str], None]  # told stage and name of every step as it is begun


class LossMeter:
    """Fills `cache` and `work` for the matrices of a job.

    anchors: by tensor, the formats whose strips and full loss are wanted. calibration: windows
    [n_windows, window_tokens] that the held-out ones are not among.
    """

    def __init__(
        self,
        job: Job,
        original: PlannedWeights,
        method: Method,
        formats: tuple[str, ...],
        anchors: dict[str, tuple[str, ...]],
        cache: MeasuredCache,
        work: WorkDir,
        n_threads: int,
        progress: StepFn,
    ) -> None:
        self._job, self._original, self._method = job, original, method
        self._formats, self._anchors = formats, anchors
        self._cache, self._work, self._n_threads = cache, work, n_threads
        self._progress = progress
        fixed = FAITHFUL_ROLES
        self._items = {i.name: i for i in job.planned if i.act is not None and i.role not in fixed}

    def measure(self, calibration: Tokens) -> None:
        if all(self._is_done(item) for item in self._items.values()):
            return
        self._measure(self._items[EMBED_ROLE], None)
        hidden = self._original.embed(calibration).numpy().copy()
        walk = Walk(self._job.spec, self._job.tables, hidden, None, self._n_threads)
        for index in range(len(self._job.spec.layers)):
            weights = dict(self._original.layer(index))
            for group in input_groups(self._job.spec.layers[index]):
                names = [f"layers.{index}.{role}" for role in group]
                items = [self._items[name] for name in names if name in self._items]
                if all(map(self._is_done, items)):
                    continue
                stats = walk.measure(index, weights, weights, group)
                for item in items:
                    self._measure(item, stats)
            walk.advance(index, weights, weights)
        head = self._items.get(HEAD_ROLE)
        if head is not None and not self._is_done(head):
            self._measure(head, walk.measure_head(last_norm(self._job)))

    def _is_done(self, item: PlannedTensor) -> bool:
        return all(self._loss(item, f) is not None for f in self._formats) and all(
            self._cache.get(FULL_LOSS, item.name, anchor) is not None
            and self._strips(item, anchor) is not None
            for anchor in self._anchors.get(item.name, ())
        )

    def _loss(self, item: PlannedTensor, format: str) -> float | None:
        return self._cache.get(LOSS, item.name, format)

    def _strips(self, item: PlannedTensor, format: str) -> U8Array | None:
        n_bytes = tensor_size(item, format)
        return self._work.load(strips_name(item.name, format), n_bytes)

    def _measure(self, item: PlannedTensor, stats: InputStats | None) -> None:
        self._progress("measure", item.name)
        weights = self._original.tensor(item.name).numpy().reshape(item.rows_cols)
        rows = _sampled_rows(len(weights))
        columns = slice(0, SAMPLE_COLUMNS)
        part = np.ascontiguousarray(weights[rows, columns])
        part_stats = (
            None if stats is None else replace(stats, moments=stats.moments[columns, columns])
        )
        for format in self._formats:
            if self._loss(item, format) is None:
                decoded = self._rounded(part, format, part_stats)[1]
                loss = _output_error(part - decoded, part_stats)
                self._cache.put(LOSS, item.name, format, loss)
        for format in self._anchors.get(item.name, ()):
            if (
                self._cache.get(FULL_LOSS, item.name, format) is None
                or self._strips(item, format) is None
            ):
                strips, decoded = self._rounded(weights, format, stats)
                self._work.store(strips_name(item.name, format), strips)
                scale = len(weights) / len(rows)
                loss = scale * _output_error((weights - decoded)[rows], stats)
                self._cache.put(FULL_LOSS, item.name, format, loss)

    def _rounded(
        self, weights: F32Array, format: str, stats: InputStats | None
    ) -> tuple[U8Array, F32Array]:
        """Strips, and what they mean. stats: None of the embedding, which is rounded to nearest."""
        method = method_for(self._method, format)
        if stats is None or not method.needs_stats:
            strips = encode_matrix(format, weights, None, self._n_threads)
        else:
            strips = quantize(weights, format, method, stats, self._n_threads)
        return strips, decode_matrix(format, strips, *weights.shape)


def _sampled_rows(n_rows: int) -> npt.NDArray[np.int64]:
    """Whole strips, evenly spread."""
    n_strips = -(-n_rows // TILE_ROWS)
    chosen = np.unique(np.linspace(0, n_strips - 1, SAMPLE_ROWS // TILE_ROWS).astype(np.int64))
    rows = (chosen[:, None] * TILE_ROWS + np.arange(TILE_ROWS)).reshape(-1)
    return rows[rows < n_rows]


def _output_error(error: F32Array, stats: InputStats | None) -> float:
    """trace(E H E^T); sum E^2 without H."""
    moved = error if stats is None else error @ stats.moments
    return max(float((moved.astype(np.float64) * error).sum()), 0.0)
