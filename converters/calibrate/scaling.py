"""Which channel scales to fold into the operator before, by the outputs' error that they leave.

AWQ (Lin et al. 2023, arXiv:2306.00978): s_j = rms(x_j)^alpha, against the rounding of weights.
SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): s_j = max|x_j|^alpha / max|W_j|^(1 - alpha),
against that and the rounding of int8 activations. alpha is searched with plain rounding; the best
is kept only where the method that will choose the codes leaves less error with it than without.
Knows neither model nor file; fold.py says what the factors are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..fold import IndexArray
from ..quant import decode_matrix, encode_matrix
from ..quant.activations import rounded
from ..quant.methods import InputStats, Method, quantize
from ..quant.tiles import F32Array, U8Array

ALPHAS = tuple(step / 10 for step in range(1, 11))
MAX_RATIO = 1e4  # of a factor to the middle of all


@dataclass(frozen=True)
class Consumer:
    """A matrix that reads the input to scale. weights [n_rows, n_cols]; method: what will choose
    its codes; act: how its inputs will be rounded."""

    weights: F32Array
    format: str
    method: Method
    act: str


@dataclass(frozen=True)
class Input:
    """stats: of all tokens; sample: some inputs themselves, [n, n_cols]; owners: for every column
    the index of its factor (heads that share a value channel share one), [n_cols]."""

    stats: InputStats
    sample: F32Array
    owners: IndexArray


def best_factors(
    kind: str, consumers: Sequence[Consumer], x: Input, n_threads: int
) -> F32Array | None:
    """One factor for every owner, None where no scaling helps. kind: "awq" or "smooth"."""
    searched = [replace(item, method=_searching(item.method)) for item in consumers]
    ones = np.ones(int(x.owners.max()) + 1, dtype=np.float32)
    least, best = _loss(kind, searched, x, ones, n_threads), ones
    for alpha in ALPHAS:
        factors = candidate(kind, consumers, x, alpha)
        loss = _loss(kind, searched, x, factors, n_threads)
        if loss < least:
            least, best = loss, factors
    if best is ones:
        return None
    final = [replace(item, method=_deciding(item.method)) for item in consumers]
    without = _loss(kind, final, x, ones, n_threads)
    return best if _loss(kind, final, x, best, n_threads) < without else None


def candidate(kind: str, consumers: Sequence[Consumer], x: Input, alpha: float) -> F32Array:
    """The method's factors for one alpha, their extremes balanced around 1."""
    n = int(x.owners.max()) + 1
    if kind == "awq":
        energy = np.bincount(x.owners, x.stats.importance, n) / np.bincount(x.owners, minlength=n)
        factors = np.sqrt(energy) ** alpha
    else:
        reach, heaviest = np.zeros(n), np.zeros(n)
        np.maximum.at(reach, x.owners, np.abs(x.sample).max(axis=0))
        for item in consumers:
            np.maximum.at(heaviest, x.owners, np.abs(item.weights).max(axis=0))
        live = (reach > 0) & (heaviest > 0)
        factors = np.where(live, reach, 1) ** alpha / np.where(live, heaviest, 1) ** (1 - alpha)
        factors[~live] = 0
    live = factors > 0
    if not live.any():
        return np.ones(n, dtype=np.float32)
    factors[~live] = factors[live].min()
    factors = factors / np.sqrt(factors.max() * factors.min())
    clipped: F32Array = factors.clip(1 / MAX_RATIO, MAX_RATIO).astype(np.float32)
    return clipped


def _searching(method: Method) -> Method:
    return Method("rtn") if method.first.name == "rtn" else Method("importance")


def _deciding(method: Method) -> Method:
    """The method that will choose the codes, without what only refines them."""
    first = method.first
    if first.name in ("gptq", "gptaq"):
        return Method("gptq", damping=first.damping, n_passes=0)
    return first


def _loss(
    kind: str, consumers: Sequence[Consumer], x: Input, factors: F32Array, n_threads: int
) -> float:
    """E |W x - Q(W s) x / s|^2 over all matrices, and for "smooth" the share of the activations'
    rounding."""
    wide = factors[x.owners]
    stats = InputStats(x.stats.moments / np.outer(wide, wide))
    total = 0.0
    for item in consumers:
        scaled = item.weights * wide
        if item.method.name == "rtn":
            strips: U8Array = encode_matrix(item.format, scaled, None, n_threads)
        else:
            strips = quantize(scaled, item.format, item.method, stats, n_threads)
        quantized = decode_matrix(item.format, strips, *scaled.shape)
        error = scaled - quantized
        total += float(((error @ stats.moments) * error).sum(dtype=np.float64))
        if kind == "smooth" and item.act != "f32":
            inputs = x.sample / wide
            lost = (inputs - rounded(inputs, item.act)) @ quantized.T
            total += float(np.square(lost, dtype=np.float64).sum() / len(inputs))
    return total
