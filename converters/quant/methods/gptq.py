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

from edgellm.errors import NumericError

from .levels import MAX_SCALE, Levels, best_scales, odd_candidates

BLOCK_ROWS = 256
MIN_SCALE = 1e-30  # of rows whose largest weight is in [1, 2): no group to code


@dataclass(frozen=True)
class GptqOptions:
    """damping: share of the mean diagonal added to H's. n_passes: of coordinate descent, 0 for
    the plain sweep. n_steps: odd scales tried to either side of the best real one."""

    damping: float = 0.01
    n_passes: int = 3
    n_steps: int = 1


@dataclass(frozen=True)
class Codes:
    """A quantized matrix before packing: w = d_row * scale * level.

    d_row [n_rows]; scales (odd), luts [n_rows, n_groups]; levels [n_rows, n_cols]. float32, luts
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
    H^-1 = U^T U; per group: the same of H_gg, and H_gg^-1."""

    hessian: Tensor
    upper: Tensor
    group_uppers: tuple[Tensor, ...]
    group_inverses: tuple[Tensor, ...]


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
        group_uppers=tuple(_upper_of_inverse(block).float() for block in blocks),
        group_inverses=tuple(torch.linalg.inv(block).float() for block in blocks),
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
    a = lower.flip(0, 1)
    del lower  # of 8192 columns it takes half a GiB
    identity = torch.eye(len(h), dtype=h.dtype)
    upper: Tensor = torch.linalg.solve_triangular(a, identity, upper=True)
    return upper


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
    """The state of one block of rows."""

    def __init__(
        self, weights: Tensor, factors: Factors, levels: Levels, options: GptqOptions
    ) -> None:
        n_rows, n_cols = weights.shape
        self.weights, self.factors, self.levels, self.options = weights, factors, levels, options
        self.starts = range(0, n_cols, levels.group)
        self.scales = torch.ones(n_rows, len(self.starts))
        self.luts = torch.zeros(n_rows, len(self.starts), dtype=torch.int64)
        self.values = torch.zeros(n_rows, n_cols)
        self.d_row = self._first_d_row()

    def codes(self) -> Codes:
        return Codes(self.d_row, self.scales, self.luts, self.values)

    def _columns(self, start: int) -> slice:
        return slice(start, start + self.levels.group)

    def _first_d_row(self) -> Tensor:
        """The largest scale any group wants, over 127."""
        diagonal = self.factors.hessian.diag()
        largest = torch.zeros(len(self.weights))
        for start in self.starts:
            columns = self._columns(start)
            scales, gains = best_scales(self.levels, self.weights[:, columns], diagonal[columns])
            best = scales.gather(0, gains.argmax(dim=0, keepdim=True))[0]
            largest = torch.maximum(largest, best.abs())
        return (largest / MAX_SCALE).clamp_min(MIN_SCALE)

    def sweep(self) -> None:
        rest = self.weights.clone()
        for g, start in enumerate(self.starts):
            columns, upper = self._columns(start), self.factors.upper[start:, start:]
            inside = upper[: self.levels.group, : self.levels.group]
            target = rest[:, columns]
            scales, luts, values = self._best(target, inside, None)
            self.scales[:, g], self.luts[:, g], self.values[:, columns] = scales, luts, values
            error = target - (self.d_row * scales)[:, None] * values
            moved = torch.linalg.solve_triangular(inside, error, upper=True, left=False)
            rest[:, columns.stop :] -= moved @ upper[: self.levels.group, self.levels.group :]

    def descend(self) -> None:
        """One pass of block coordinate descent over all groups."""
        h = self.factors.hessian
        errors = self.weights - self.codes().dequantized()
        pulls = errors @ h
        for g, start in enumerate(self.starts):
            columns = self._columns(start)
            h_gg, error = h[columns, columns], errors[:, columns]
            shift = (pulls[:, columns] - error @ h_gg) @ self.factors.group_inverses[g]
            target = self.weights[:, columns] + shift
            present = (self.scales[:, g], self.luts[:, g])
            scales, luts, values = self._best(target, self.factors.group_uppers[g], present)
            new = self.weights[:, columns] - (self.d_row * scales)[:, None] * values
            keep = _quadratic(new + shift, h_gg) < _quadratic(error + shift, h_gg)
            self.scales[:, g] = torch.where(keep, scales, self.scales[:, g])
            self.luts[:, g] = torch.where(keep, luts, self.luts[:, g])
            self.values[:, columns] = torch.where(keep[:, None], values, self.values[:, columns])
            change = torch.where(keep[:, None], new - error, torch.zeros_like(error))
            errors[:, columns] += change
            pulls += change @ h[columns]

    def refit_rows(self) -> None:
        """d_row = (w H z) / (z H z), z the matrix over d_row: least squares of every row."""
        group = self.levels.group
        z = self.scales.repeat_interleave(group, dim=1) * self.values
        zh = z @ self.factors.hessian
        norms = (z * zh).sum(dim=1)
        fitted = (self.weights * zh).sum(dim=1) / norms
        usable = (norms > 0) & (fitted > MIN_SCALE)
        self.d_row = torch.where(usable, fitted, self.d_row)

    def _best(
        self, target: Tensor, upper: Tensor, present: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, LUT [n_rows] and levels [n_rows, group] of one group with the least loss."""
        weight = upper.diag().reciprocal().square()
        wanted, _ = best_scales(self.levels, target, weight)
        scales, luts = odd_candidates(wanted, self.d_row, self.options.n_steps, self.levels.n_luts)
        if present is not None:
            scales = torch.cat([present[0][None], scales])
            luts = torch.cat([present[1][None], luts])
        losses, values = _sweep_group(target, self.d_row * scales, luts, upper, self.levels)
        best = losses.argmin(dim=0, keepdim=True)
        picked = values.gather(1, best.expand(len(values), -1, -1))[:, 0]
        return scales.gather(0, best)[0], luts.gather(0, best)[0], picked.T


def _sweep_group(
    target: Tensor, steps: Tensor, luts: Tensor, upper: Tensor, levels: Levels
) -> tuple[Tensor, Tensor]:
    """The GPTQ sweep inside one group, for all candidates at once.

    target [n_rows, group]; steps (d_row * scale), luts [n_candidates, n_rows]; upper [group, group]
    -> losses [n_candidates, n_rows], levels [group, n_candidates, n_rows].
    """
    group = target.shape[1]
    rest = target.T[:, None, :].expand(group, *steps.shape).reshape(group, -1).clone()
    flat_steps, flat_luts = steps.reshape(-1), luts.reshape(-1)
    losses, values = torch.zeros_like(flat_steps), torch.empty_like(rest)
    for j in range(group):
        values[j] = levels.nearest(rest[j] / flat_steps, flat_luts)
        error = (rest[j] - flat_steps * values[j]) / upper[j, j]
        losses += error.square()
        rest[j + 1 :].addr_(upper[j, j + 1 :], error, alpha=-1)
    return losses.view(steps.shape), values.view(group, *steps.shape)


def _quadratic(errors: Tensor, h: Tensor) -> Tensor:
    return ((errors @ h) * errors).sum(dim=1)
