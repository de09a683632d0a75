"""Weights set to zero, by size (magnitude) or by size and input (Wanda): for study.

A file has no sparse format and no CPU kernel skips zeros: 4-bit codes of half as many weights would
need an index each, which costs what it saves. So a mask changes neither size nor speed; it shows
what a share of the weights is worth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32Array = npt.NDArray[np.float32]


def masked(weights: F32Array, share: float, inputs: npt.NDArray[np.float64] | None) -> F32Array:
    """[n_rows, n_cols] with `share` of them zero. inputs: the root mean square of each column's
    input, by which Wanda (Sun et al. 2023, arXiv:2306.11695) ranks the weights of a row; None:
    those of the whole matrix by their size. Of equal ones the first go."""
    worth = np.abs(weights).astype(np.float64)
    result = weights.copy()
    if inputs is None:
        order = np.argsort(worth, axis=None, kind="stable")
        result.reshape(-1)[order[: int(share * order.size)]] = 0
        return result
    order = np.argsort(worth * inputs, axis=1, kind="stable")[:, : int(share * weights.shape[1])]
    np.put_along_axis(result, order, np.float32(0), axis=1)
    return result
