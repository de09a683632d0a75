"""What attention over a KV cache of each format computes: the arithmetic of docs/KERNELS.md, torch.

Keys and values are rounded as native/src/kernels/generic/kv_store.inl.h does, to the same numbers;
queries and attention weights meet them as in generic/attention.inl.h, but for the order of float32
sums. Knows no layout in memory and no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgellm.errors import InvalidArgumentError

from .key_balance import KeyBalance
from .rotation import rotated

FIRST_TOKENS = 32
SEGMENT_TOKENS = 256
WEIGHT_LEVELS = 32767
QUERY_LEVELS = 127
TINY = 2.0**-100


@dataclass(frozen=True)
class Levels:
    """Integers least..most times an f16 scale for up to n_channels of one token. Where there are
    more levels on one side, the value of the largest magnitude is to be there, and the scale may be
    negative."""

    least: int
    most: int
    n_channels: int = 64

    def of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels of one group [..., n_channels], and its scale [..., 1]."""
        extreme = -x.abs().amax(dim=-1, keepdim=True)
        if self.least != -self.most:
            largest = x.amax(dim=-1, keepdim=True)
            extreme = torch.where(largest == -extreme, largest, extreme)
        scale = _f16(extreme / self.least)
        inverse = torch.where(scale != 0, 1 / scale, 0)
        return (x * inverse).round().clamp(self.least, self.most), scale

    def rounded(self, x: Tensor) -> Tensor:
        """What is read again of heads [..., head_dim]."""
        groups = [self.of(x[..., at]) for at in scale_groups(x.shape[-1], self.n_channels)]
        return torch.cat([levels * scale for levels, scale in groups], dim=-1)


@dataclass(frozen=True)
class KvRounding:
    """keys, values: None for f16. first_page_f16: positions 0 to 31 are stored in f16. rotate_keys:
    queries and keys are rotated (rotation.py) before they are rounded to integers; balance_keys:
    before that they are balanced (key_balance.py); rotate_values: values are rotated, and what
    comes out is rotated back, as if the weights had it. exact: nothing is rounded."""

    keys: Levels | None = None
    values: Levels | None = None
    first_page_f16: bool = False
    rotate_keys: bool = False
    balance_keys: bool = False
    rotate_values: bool = False
    exact: bool = False

    def scores(self, q: Tensor, k: Tensor, balance: KeyBalance | None = None) -> Tensor:
        """q [..., n_heads, n, head_dim], k [..., n_kv_heads, n, head_dim] -> q k^T [..., n_heads,
        n, n], but for a number of each query where keys are balanced."""
        if self.exact or self.keys is None:
            return _products(q, k if self.exact else _f16(k))
        if self.balance_keys and balance is not None:
            q, k = balance.queries(q), balance.keys(k)
        if self.rotate_keys:
            q, k = _rotated(q), _rotated(k)
        scores = _products(_int8_query(q), self.keys.rounded(k))
        if self.first_page_f16:
            scores[..., :FIRST_TOKENS] = _products(q, _f16(k[..., :FIRST_TOKENS, :]))
        return scores

    def mixed(self, p: Tensor, v: Tensor) -> Tensor:
        """Weights p [..., n_heads, n, n], v [..., n_kv_heads, n, head_dim] -> p v [..., n_heads, n,
        head_dim]."""
        if self.rotate_values:
            return _rotated(replace(self, rotate_values=False).mixed(p, _rotated(v)))
        if self.exact or self.values is None:
            return p @ _for_heads(v if self.exact else _f16(v), p)
        n_first = FIRST_TOKENS if self.first_page_f16 else 0
        sums = [p[..., :n_first] @ _for_heads(_f16(v[..., :n_first, :]), p)]
        for begin in range(0, v.shape[-2], SEGMENT_TOKENS):
            at = slice(max(begin, n_first), min(begin + SEGMENT_TOKENS, v.shape[-2]))
            if at.start >= at.stop:
                continue  # a text that ends there
            sums.append(_integer_sum(p[..., at], v[..., at, :], self.values))
        return torch.stack(sums).sum(dim=0)


_BITS8, _BITS6, _BITS4 = Levels(-127, 127), Levels(-31, 31), Levels(-8, 7, 32)
EXACT = KvRounding(exact=True)
KV_FORMATS = {
    "F16": KvRounding(),
    "K8V8": KvRounding(_BITS8, _BITS8),
    "K8V4": KvRounding(_BITS8, _BITS4, first_page_f16=True),
    "K6V4": KvRounding(_BITS6, _BITS4, first_page_f16=True),
}


def kv_rounding(name: str) -> KvRounding:
    """The rounding of a KV format by its name; InvalidArgumentError where there is none."""
    if name not in KV_FORMATS:
        raise InvalidArgumentError(
            f"KV format '{name[:80]}' is not known (known: {', '.join(KV_FORMATS)})",
            code="invalid_argument",
        )
    return KV_FORMATS[name]


def scale_groups(head_dim: int, n_most: int = 64) -> list[slice]:
    """Channels that share a scale, as kv_scale_channels() of kernels/kv_format.h."""
    n_groups = -(-head_dim // n_most)
    length = (-(-head_dim // n_groups) + 15) // 16 * 16
    return [slice(begin, min(begin + length, head_dim)) for begin in range(0, head_dim, length)]


def _for_heads(x: Tensor, of: Tensor) -> Tensor:
    """x of the kv heads [..., n_kv_heads, n, d], once for every head of `of` that shares one."""
    return x.repeat_interleave(of.shape[-3] // x.shape[-3], dim=-3)


def _products(q: Tensor, k: Tensor) -> Tensor:
    return q @ _for_heads(k, q).transpose(-2, -1)


def _f16(x: Tensor) -> Tensor:
    return x.half().float()


def _rotated(x: Tensor) -> Tensor:
    return torch.from_numpy(rotated(x.numpy(), x.shape[-1]))


def _int8_query(q: Tensor) -> Tensor:
    parts = []
    for at in scale_groups(q.shape[-1]):
        part = q[..., at]
        amax = part.abs().amax(dim=-1, keepdim=True)
        inverse = torch.where(amax >= TINY, QUERY_LEVELS / amax, 0)
        parts.append((part * inverse).round() * (amax / QUERY_LEVELS))
    return torch.cat(parts, dim=-1)


def _integer_sum(p: Tensor, v: Tensor, format: Levels) -> Tensor:
    """The share of one segment: weights times value scales as integers of 15 bits."""
    parts = []
    for at in scale_groups(v.shape[-1], format.n_channels):
        levels, scale = (_for_heads(x, p) for x in format.of(v[..., at]))
        weights = p * scale.transpose(-2, -1)
        top = weights.abs().amax(dim=-1, keepdim=True)
        inverse = torch.where(top >= TINY, WEIGHT_LEVELS / top, 0)
        parts.append(((weights * inverse).round() @ levels) * (top / WEIGHT_LEVELS))
    return torch.cat(parts, dim=-1)
