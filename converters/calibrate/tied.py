"""The embedding of a model whose head is its embedding: codes chosen for what the head does.

The table is the first thing that the converted model reads and the last, so the inputs of the head
are not known when its codes are chosen: those of the original model stand in. Rows are chosen by
the logits' error; looked up they are inputs, too, and `damping` weighs plain rounding against it.
Knows no byte layout.
"""

from __future__ import annotations

import numpy as np
import torch

from ..plan import Job
from ..quant.methods import InputStats, quantize
from ..quant.tiles import F32Array, U8Array
from ..reference import Reference
from ..report import PlannedTensor
from .walk import Walk

BLOCK_ROWS = 1 << 14  # of the table in memory at a time; whole strips


def original_head_stats(job: Job, hidden: F32Array, n_threads: int) -> InputStats:
    """Moments of the head's input in the original model. hidden: the inputs of its layer 0,
    [n_windows, window_tokens, d_model]; changed in place."""
    walk = Walk(job.spec, job.tables, hidden, None, n_threads)
    for index in range(len(job.spec.layers)):
        prefix = f"layers.{index}."
        items = [item for item in job.planned if item.name.startswith(prefix)]
        weights = {
            item.name: torch.from_numpy(
                job.read_rows(item, 0, item.rows_cols[0]).reshape(item.shape)
            )
            for item in items
        }
        walk.advance(index, weights, weights)
    return walk.measure_head(last_norm(job))


def last_norm(job: Job) -> dict[str, torch.Tensor]:
    """The tensors of the norm before the head, by their names in the file."""
    items = [item for item in job.planned if item.name.startswith("output_norm")]
    return {item.name: torch.from_numpy(job.read_rows(item, 0, 1).reshape(-1)) for item in items}


def input_of_layers(job: Job, rows: F32Array) -> F32Array:
    """Rows of the embedding [..., window_tokens, d_model] -> the input of layer 0; rows may be
    changed. InvalidArgumentError: windows longer than the model has positions."""
    items = [item for item in job.planned if item.name == "position_embd"]
    weights = {
        item.name: torch.from_numpy(job.read_rows(item, 0, item.rows_cols[0])) for item in items
    }
    return Reference(job.spec, weights).embedded(torch.from_numpy(rows)).numpy()


def tied_strips(job: Job, item: PlannedTensor, stats: InputStats, n_threads: int) -> U8Array:
    """The whole table, block by block: rows do not see each other."""
    method, parts = job.method(item), []
    for row0 in range(0, item.rows_cols[0], BLOCK_ROWS):
        rows = job.read_rows(item, row0, min(BLOCK_ROWS, item.rows_cols[0] - row0))
        parts.append(quantize(rows, item.format, method, stats, n_threads))
    return np.concatenate(parts)
