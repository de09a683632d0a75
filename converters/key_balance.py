"""What keys are centred by, and their channels multiplied with, before the KV cache rounds them.

Keys are stored as (key - mean) * scale, behind the rotary turn, and queries are divided by the
scale. A constant taken from all keys changes the scores of a query by one number, which softmax
does not see (smooth K of SageAttention, Zhang et al. 2024, arXiv:2410.02367), and scales move what
is hard to round from keys to queries (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438). The native
twin is native/src/backends/cpu/stored_keys.h. Needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_SCALE = 64.0  # apart from 1: a channel that hardly moves on some text may on another


@dataclass(frozen=True)
class KeyBalance:
    """Of one layer. mean, scale: [n_kv_heads, head_dim]."""

    mean: Tensor
    scale: Tensor

    def queries(self, q: Tensor) -> Tensor:
        """[..., n_heads, n, head_dim], as they meet keys."""
        group = q.shape[-3] // len(self.scale)
        return q / self.scale.repeat_interleave(group, 0)[:, None]

    def keys(self, k: Tensor) -> Tensor:
        """[..., n_kv_heads, n, head_dim], as they are stored."""
        return (k - self.mean[:, None]) * self.scale[:, None]


@dataclass(frozen=True)
class KeySums:
    """Of some tokens, float64. keys, keys_squared, queries_squared (over the queries that share a
    kv head, their mean): [n_kv_heads, head_dim]."""

    n_tokens: int
    keys: Tensor
    keys_squared: Tensor
    queries_squared: Tensor

    @classmethod
    def of(cls, q: Tensor, k: Tensor) -> KeySums:
        """q [n_heads, n, head_dim], k [n_kv_heads, n, head_dim], behind the rotary turn."""
        n_kv_heads, n_tokens, head_dim = k.shape
        q, k = q.double(), k.double()
        shared = q.square().reshape(n_kv_heads, -1, n_tokens, head_dim).mean(1)
        return cls(n_tokens, k.sum(1), k.square().sum(1), shared.sum(1))


def balance_of(parts: Sequence[KeySums]) -> KeyBalance:
    """Scales make the root mean squares of a channel of centred keys and of queries equal: the
    rounding of both counts alike, and channels differ by the root of what they did."""
    n_tokens = sum(part.n_tokens for part in parts)
    keys, keys_squared, queries_squared = (
        torch.stack([getattr(part, name) for part in parts]).sum(0) / n_tokens
        for name in ("keys", "keys_squared", "queries_squared")
    )
    variance = (keys_squared - keys.square()).clamp_min(0)
    known = (variance > 0) & (queries_squared > 0)
    ratio = torch.where(known, queries_squared / variance, 1.0)
    scale = ratio.pow(0.25).clamp(1 / MOST_SCALE, MOST_SCALE)
    return KeyBalance(keys.float(), scale.float())
