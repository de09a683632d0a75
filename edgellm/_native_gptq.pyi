"""GPTQ's search on arrays, a part of the native module; see _native.pyi."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

def gptq_sweep(
    format: str,
    target: npt.NDArray[np.float32],
    upper: npt.NDArray[np.float32],
    d_row: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """GPTQ's sweep over one block of at most 1024 columns (docs/COMPRESSION.md).

    target [n_rows, n_cols], finite; upper [n_cols, n_cols]: the block's part of U, H^-1 = U^T U;
    d_row [n_rows], > 0. Returns scale bytes [n_rows, n_groups], levels [n_rows, n_cols], with a
    weight d_row * scale of the byte * level, and moved [n_rows, n_cols]: columns after the
    block change by -moved @ U[block, after]. InvalidArgumentError: format, shape. One thread.
    """

def gptq_descend(
    format: str,
    weights: npt.NDArray[np.float32],
    errors: npt.NDArray[np.float32],
    pulls: npt.NDArray[np.float32],
    hessian: npt.NDArray[np.float32],
    group_uppers: npt.NDArray[np.float32],
    group_inverses: npt.NDArray[np.float32],
    d_row: npt.NDArray[np.float32],
    scale_bytes: npt.NDArray[np.uint8],
    levels: npt.NDArray[np.int8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]:
    """One pass of block coordinate descent over the groups of a block: new scale bytes, levels.

    weights, errors (weights - quantized), pulls (errors of all columns @ H[:, block])
    [n_rows, n_cols]; hessian [n_cols, n_cols], H[block, block]; group_uppers, group_inverses
    [n_groups, group, group], of H_gg. One thread.
    """
