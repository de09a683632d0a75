"""Rows of a tensor -> strips, where nothing but the weights themselves is needed.

In the order of what is known: what the checkpoint stores in a weight format of ours stays as it is;
a grid that the weights lie on is found; all else is rounded. Methods that need calibration are in
calibrate/.
"""

from __future__ import annotations

from .checkpoint import Checkpoint
from .quant.methods import Method, quantize
from .quant.methods.grid import find_grid, off_grid
from .quant.tiles import F32Array, U8Array
from .report import PlannedTensor

GRID_WEIGHTS = 4 << 20  # read at a time to count groups off the grid


def encode_rows(
    checkpoint: Checkpoint,
    item: PlannedTensor,
    method: Method,
    weights: F32Array,
    row0: int,
    n_threads: int,
) -> U8Array:
    """weights: rows row0.. of `item` as read, row0 a multiple of 16. `method` needs no statistics.

    UnsupportedError: weights off the grid, with the share of the whole tensor. NumericError:
    weights or scales that are not finite.
    """
    assert item.source is not None  # only the rotary frequencies, a vector, have none
    stored = checkpoint.strips_in(item.format).get(item.source)
    if stored is not None:
        return stored(checkpoint, row0, len(weights))
    if method.name == "grid":
        return _grid_strips(checkpoint, item, weights)
    return quantize(weights, item.format, method, None, n_threads)


def _grid_strips(checkpoint: Checkpoint, item: PlannedTensor, weights: F32Array) -> U8Array:
    assert item.source is not None
    dtype = checkpoint.tensors[item.source].dtype
    found = find_grid(weights, dtype)
    if found.is_on.all():
        return found.strips()
    n_rows, n_cols = item.rows_cols
    n_off = n_groups = 0
    step = max(1, GRID_WEIGHTS // n_cols)
    for row0 in range(0, n_rows, step):
        rows = checkpoint.read_rows(item.source, row0, min(step, n_rows - row0))
        is_on = find_grid(rows, dtype).is_on
        n_off, n_groups = n_off + int((~is_on).sum()), n_groups + is_on.size
    raise off_grid(n_off, n_groups, dtype)
