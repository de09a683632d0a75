"""From a matrix in numpy to strips by way of GPTQ in torch: padding, targets, packing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import quant_format
from ..tiles import TILE_K, F32Array, U8Array
from . import InputStats, Method
from .gptq import Codes, Factors, GptqOptions, factorize, one_torch_thread, quantize_rows
from .levels import Levels, levels_of


def gptq_strips(
    weights: F32Array, format: str, method: Method, stats: InputStats, n_threads: int
) -> U8Array:
    """See quantize(); method is gptq or gptaq and the arguments are checked."""
    levels = levels_of(format)
    pad = -weights.shape[1] % TILE_K
    with one_torch_thread(), torch.inference_mode():
        moments = torch.from_numpy(np.pad(stats.moments, ((0, pad), (0, pad))))
        factors = factorize(moments, levels.group, method.damping)
        target = torch.from_numpy(np.pad(weights, ((0, 0), (0, pad))).astype(np.float32))
        if method.needs_drift and stats.drift is not None:
            drift = torch.from_numpy(np.pad(stats.drift, ((0, pad), (0, pad))))
            target = target + method.drift * _drift_target(target, drift, factors)
        options = GptqOptions(method.damping, method.n_passes)
        codes = quantize_rows(target, factors, levels, options, n_threads)
    return pack(format, codes, levels)


def _drift_target(weights: Tensor, drift: Tensor, factors: Factors) -> Tensor:
    """W E[(x_full - x) x^T] H^-1: least squares of what the weights must add on the inputs x to
    give the outputs they have on x_full. GPTQ on the sum is GPTAQ: both minimise
    E |W x_full - Q x|^2 over Q, here with the cross term in the target instead of in the sweep."""
    upper = factors.upper
    return ((weights @ drift) @ upper.T) @ upper


def pack(format: str, codes: Codes, levels: Levels) -> U8Array:
    """The strips of quantized rows."""
    packer = quant_format(format).pack
    assert packer is not None
    scale_bytes = (codes.scales.numpy() + levels.max_scale).astype(
        np.uint8
    ) | codes.luts.numpy().astype(np.uint8)
    return packer(codes.d_row.numpy(), scale_bytes, levels.codes(codes.levels, codes.luts))
