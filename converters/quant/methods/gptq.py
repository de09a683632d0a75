"""GPTQ for the E formats: codes that make up for each other's error on the calibration data.

Minimises trace((W - Q) H (W - Q)^T), H = E[x x^T], row by row. Three parts:

1. The sweep of GPTQ (Frantar et al. 2022, arXiv:2210.17323): columns in natural order, each
   column's error moved to the columns not yet fixed by U, the upper Cholesky factor of the inverse
   of the damped H. At each group's entry scale and LUT are chosen from the updated weights.
   Candidates are not rated by a weighted rounding error but by the loss that the sweep itself has
   inside the group.
2. Block coordinate descent: a group is taken out, its target given all other groups' errors is
   t = w + e H_og H_gg^-1, and the group is searched again on H_gg; a change is kept where it lowers
   the loss. 3. d_row in closed form after each pass.

Rows do not see each other: blocks of rows run on threads, each with one thread inside, so the
codes do not depend on the number of threads. Knows no byte order and not where H comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from edgellm._native import gptq_descend, gptq_sweep
from edgellm.errors import NumericError

from .. import encode_matrix
from ..tiles import row_factors
from .levels import Levels

BLOCK_ROWS = 512
BLOCK_COLS = 128  # whole groups of every format
INVERT_ROWS = 256
MIN_SCALE = 1e-30  # of rows whose largest weight is in [1, 2): no group to code


@dataclass(frozen=True)
class GptqOptions:
    """damping: share of the mean diagonal added to H's. n_passes: of coordinate descent, 0 for
    the plain sweep."""

    damping: float = 0.01
    n_passes: int = 3


@dataclass(frozen=True)
class Codes:
    """A quantized matrix before packing: w = d_row * scale * level.

    d_row [n_rows]; scales, luts [n_rows, n_groups]; levels [n_rows, n_cols]. float32, luts
    int64.
    """

    d_row: Tensor
    scales: Tensor
    luts: Tensor
    levels: Tensor

    def dequantized(self) -> Tensor:
        group = self.levels.shape[1] // self.scales.shape[1]
        return self.d_row[:, None] * (self.scales.repeat_interleave(group, dim=1) * self.levels)


@dataclass(frozen=True)
class Factors:
    """What all rows share. hessian: damped, float32 [n_cols, n_cols]; upper: U with
    H^-1 = U^T U; [n_groups, group, group]: the same of every H_gg, and H_gg^-1."""

    hessian: Tensor
    upper: Tensor
    group_uppers: Tensor
    group_inverses: Tensor


def factorize(hessian: Tensor, group: int, damping: float) -> Factors:
    """hessian [n_cols, n_cols], n_cols a multiple of group. NumericError where it is not one."""
    if not bool(torch.isfinite(hessian).all()):
        raise NumericError("the Hessian holds a value that is not finite", code="numeric")
    mean = float(hessian.diag().double().mean())
    damped = hessian.double()
    # Inputs that are always zero say nothing about the weights: all count alike.
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    blocks = [damped[k : k + group, k : k + group] for k in range(0, len(damped), group)]
    return Factors(
        hessian=damped.float(),
        upper=_upper_of_inverse(damped).float(),
        group_uppers=torch.stack([_upper_of_inverse(block).float() for block in blocks]),
        group_inverses=torch.stack([torch.linalg.inv(block).float() for block in blocks]),
    )


def _upper_of_inverse(h: Tensor) -> Tensor:
    """U, upper triangular, with H^-1 = U^T U: H = A A^T with A upper (Cholesky of H read
    backwards), and U = A^-1. Half the work of inverting H first, and better conditioned."""
    lower, info = torch.linalg.cholesky_ex(h.flip(0, 1))
    if int(info) != 0:
        raise NumericError(
            "the Hessian is not positive definite after damping; raise `damping` in the recipe",
            code="numeric",
        )
    return _invert_upper(lower.flip(0, 1))


def _invert_upper(a: Tensor) -> Tensor:
    """In place, by halves: [[A, B], [0, C]]^-1 = [[A^-1, -A^-1 B C^-1], [0, C^-1]], a third of the
    work of solving for the identity and nearly all of it matrix products."""
    n = len(a)
    if n <= INVERT_ROWS:
        identity = torch.eye(n, dtype=a.dtype)
        a.copy_(torch.linalg.solve_triangular(a, identity, upper=True))
        return a
    half = n // 2
    top, bottom = _invert_upper(a[:half, :half]), _invert_upper(a[half:, half:])
    a[:half, half:] = -(top @ a[:half, half:]) @ bottom
    return a


def quantize_rows(
    weights: Tensor, factors: Factors, levels: Levels, options: GptqOptions, n_threads: int
) -> Codes:
    """weights [n_rows, n_cols] float32, finite; n_cols a multiple of the group."""
    blocks = torch.split(weights, BLOCK_ROWS)
    with one_torch_thread(), ThreadPoolExecutor(max(1, n_threads)) as pool:
        parts = list(pool.map(lambda rows: _quantize_block(rows, factors, levels, options), blocks))
    return Codes(
        torch.cat([part.d_row for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat([part.luts for part in parts]),
        torch.cat([part.levels for part in parts]),
    )


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sums inside torch then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quantize_block(
    weights: Tensor, factors: Factors, levels: Levels, options: GptqOptions
) -> Codes:
    with torch.inference_mode():
        exponents = torch.frexp(weights.abs().amax(dim=1)).exponent.sub_(1).clamp_(-126, 126)
        scaled = torch.ldexp(weights, -exponents[:, None])  # exact: largest weights in [1, 2)
        search = _Search(scaled, factors, levels, options)
        search.sweep()
        for _ in range(options.n_passes):
            search.descend()
            search.refit_rows()
        codes = search.codes()
        d_row = torch.ldexp(codes.d_row, exponents)
        d_row[weights.abs().amax(dim=1) == 0] = 0.0
        return Codes(d_row, codes.scales, codes.luts, codes.levels)


class _Search:
    """The state of one block of rows. Blocks of BLOCK_COLS columns are searched natively; what
    one does to all later columns is one matrix product."""

    def __init__(
        self, weights: Tensor, factors: Factors, levels: Levels, options: GptqOptions
    ) -> None:
        n_rows, n_cols = weights.shape
        self.weights, self.factors, self.levels, self.options = weights, factors, levels, options
        self.scale_bytes = torch.full((n_rows, n_cols // levels.group), 128, dtype=torch.uint8)
        self.values = torch.zeros(n_rows, n_cols, dtype=torch.int8)
        self.d_row = self._first_d_row()

    def codes(self) -> Codes:
        scales, luts = self.levels.scales_of(self.scale_bytes)
        return Codes(self.d_row, scales, luts, self.values.float())

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Columns, and their groups."""
        n_cols, group = self.weights.shape[1], self.levels.group
        for start in range(0, n_cols, BLOCK_COLS):
            stop = min(start + BLOCK_COLS, n_cols)
            yield slice(start, stop), slice(start // group, stop // group)

    def _first_d_row(self) -> Tensor:
        """That of rounding to nearest, columns weighted by the Hessian's diagonal."""
        diagonal = self.factors.hessian.diag().contiguous().numpy()
        strips = encode_matrix(self.levels.format, self.weights.numpy(), diagonal, 1)
        return torch.from_numpy(row_factors(strips, len(self.weights))).clamp_min(MIN_SCALE)

    def sweep(self) -> None:
        rest = self.weights.clone()
        for columns, groups in self._blocks():
            upper = self.factors.upper[columns]
            found = gptq_sweep(
                self.levels.format,
                rest[:, columns].numpy(),
                upper[:, columns].numpy(),
                self.d_row.numpy(),
            )
            scale_bytes, values, moved = map(torch.from_numpy, found)
            self.scale_bytes[:, groups], self.values[:, columns] = scale_bytes, values
            rest[:, columns.stop :] -= moved @ upper[:, columns.stop :]

    def descend(self) -> None:
        """One pass of block coordinate descent over all groups."""
        factors = self.factors
        errors = self.weights - self.codes().dequantized()
        for columns, groups in self._blocks():
            found = gptq_descend(
                self.levels.format,
                self.weights[:, columns].numpy(),
                errors[:, columns].numpy(),
                (errors @ factors.hessian[:, columns]).numpy(),
                factors.hessian[columns, columns].numpy(),
                factors.group_uppers[groups].numpy(),
                factors.group_inverses[groups].numpy(),
                self.d_row.numpy(),
                self.scale_bytes[:, groups].contiguous().numpy(),
                self.values[:, columns].contiguous().numpy(),
            )
            self.scale_bytes[:, groups], self.values[:, columns] = map(torch.from_numpy, found)
            scales, _ = self.levels.scales_of(self.scale_bytes[:, groups])
            steps = (self.d_row[:, None] * scales).repeat_interleave(self.levels.group, dim=1)
            errors[:, columns] = self.weights[:, columns] - steps * self.values[:, columns]

    def refit_rows(self) -> None:
        """d_row = (w H z) / (z H z), z the matrix over d_row: least squares of every row."""
        codes = self.codes()
        z = codes.scales.repeat_interleave(self.levels.group, dim=1) * codes.levels
        zh = z @ self.factors.hessian
        norms = (z * zh).sum(dim=1)
        fitted = (self.weights * zh).sum(dim=1) / norms
        usable = (norms > 0) & (fitted > MIN_SCALE)
        self.d_row = torch.where(usable, fitted, self.d_row)
