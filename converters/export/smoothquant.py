"""SmoothQuant: outliers of activations moved into weights, and weights rounded to int8.

Xiao et al. 2022, arXiv:2211.10438. A channel j of a matrix' input is divided by
s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) and the matrix' column multiplied by it. The division is
folded into what makes the channel, where that is linear in it: the norm before q, k, v and before
gate, up; the rows of v (through attention, which mixes tokens, not channels) and of up (which the
gate multiplies). The model stays the same but for float32 rounding. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..spec import LayerSpec

F32Array = npt.NDArray[np.float32]
I8Array = npt.NDArray[np.int8]

INT8_MAX = 127
MIN_TOKEN_AMAX = 1e-30  # a token of zeros is divided by this
MIN_AMAX = 1e-5  # as in the authors' code: keeps factors of dead channels finite


@dataclass(frozen=True)
class SmoothedLayer:
    """weights: by role. input_amax: by the first role of those that share an input."""

    weights: dict[str, F32Array]
    input_amax: dict[str, F32Array]


def smoothing_factors(x_amax: F32Array, w_amax: F32Array, alpha: float) -> F32Array:
    """s [n_channels]: divide inputs by it, multiply columns. x_amax, w_amax: largest magnitudes of
    each input channel and of each column. 1 where a channel is dead on either side."""
    x, w = (np.maximum(amax.astype(np.float64), MIN_AMAX) for amax in (x_amax, w_amax))
    factors = x**alpha / w ** (1 - alpha)
    alive = (x_amax > 0) & (w_amax > 0)
    return np.where(alive, factors, 1.0).astype(np.float32)


def smoothed_layer(
    layer: LayerSpec,
    weights: Mapping[str, F32Array],
    input_amax: Mapping[str, F32Array],
    alpha: float,
) -> SmoothedLayer:
    """One decoder layer with all four inputs smoothed. weights: by role, norms included;
    input_amax: of attn_q, attn_o, ffn_gate and ffn_down, [n_channels] each. Changes neither."""
    w = {role: np.array(value, dtype=np.float32) for role, value in weights.items()}
    amax = {role: np.array(value, dtype=np.float32) for role, value in input_amax.items()}

    # A channel of v reaches as many columns of o as heads share its kv head: one factor for all.
    n_groups = layer.n_heads // layer.n_kv_heads
    shared = (layer.n_kv_heads, n_groups, layer.head_dim)
    columns = _columns_amax(w["attn_o"]).reshape(shared).max(1)
    factors = smoothing_factors(amax["attn_o"].reshape(shared).max(1), columns, alpha)
    w["attn_v"] /= factors.reshape(-1, 1)
    spread = np.broadcast_to(factors[:, None, :], shared).reshape(-1)
    w["attn_o"] *= spread
    amax["attn_o"] /= spread

    factors = smoothing_factors(amax["ffn_down"], _columns_amax(w["ffn_down"]), alpha)
    w["ffn_up"] /= factors[:, None]
    w["ffn_down"] *= factors
    amax["ffn_down"] /= factors

    for norm, readers in (
        ("attn_norm", ("attn_q", "attn_k", "attn_v")),
        ("ffn_norm", ("ffn_gate", "ffn_up")),
    ):
        columns = np.max([_columns_amax(w[role]) for role in readers], axis=0)
        factors = smoothing_factors(amax[readers[0]], columns, alpha)
        w[norm] /= factors
        for role in readers:
            w[role] *= factors
        amax[readers[0]] /= factors
    return SmoothedLayer(w, amax)


@dataclass(frozen=True)
class Int8Matrix:
    """codes [n_rows, n_cols] in -127..127; scales [n_rows]: weight = code * scale of its row."""

    codes: I8Array
    scales: F32Array

    def rel_rms_error(self, weights: F32Array) -> float:
        """sqrt(sum (w - w')^2 / sum w^2)"""
        error = np.square(self.codes * self.scales[:, None] - weights, dtype=np.float64).sum()
        return float(np.sqrt(error / max(np.square(weights, dtype=np.float64).sum(), 1e-300)))


@dataclass(frozen=True)
class QuantizedLayer:
    """norms by role; matrices by role; input_scales by the first role of those that share an input,
    empty where each token has its own."""

    norms: dict[str, F32Array]
    matrices: dict[str, Int8Matrix]
    input_scales: dict[str, np.float32]


def int8_rows(weights: F32Array) -> Int8Matrix:
    """Nearest codes, ties to even, with the scale of each row (output channel) its largest
    magnitude / 127; 1 for a row of zeros."""
    scales = input_scale(np.abs(weights).max(axis=1))
    codes = np.rint(weights / scales[:, None]).clip(-INT8_MAX, INT8_MAX)
    return Int8Matrix(codes.astype(np.int8), scales)


def input_scale(amax: F32Array) -> F32Array:
    """The int8 scale for magnitudes up to `amax`, elementwise; 1 for 0."""
    scale = np.maximum(amax / np.float32(INT8_MAX), np.finfo(np.float32).tiny)
    return np.where(amax > 0, scale, np.float32(1)).astype(np.float32)


def _columns_amax(weights: F32Array) -> F32Array:
    largest: F32Array = np.abs(weights).max(axis=0)
    return largest
