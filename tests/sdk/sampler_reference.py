"""The sampler in numpy, written from docs/SAMPLING.md and sharing nothing with the native code.

Rules are in float64 and rounded to float32 once each, so they must equal the native ones bit for
bit. Filters return the ids that may be drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
_MOST = float(np.finfo(np.float32).max)


def _f32(x: float) -> np.float32:
    return np.float32(min(max(x, -_MOST), _MOST))


def _last(history: Sequence[int], n: int) -> Sequence[int]:
    return history[-n:] if n else history


def repetition(logits: Logits, history: Sequence[int], penalty: float, window: int = 0) -> Logits:
    out = logits.copy()
    for token in set(_last(history, window)):
        x = float(logits[token])
        out[token] = _f32(x * penalty if x < 0 else x / penalty)
    return out


def presence(logits: Logits, generated: Sequence[int], present: float, frequent: float) -> Logits:
    out = logits.copy()
    for token, n in Counter(generated).items():
        out[token] = _f32(float(logits[token]) - (present + frequent * n))
    return out


def dry(
    logits: Logits,
    history: Sequence[int],
    multiplier: float,
    base: float,
    allowed: int,
    window: int,
    breakers: Sequence[Sequence[int]],
) -> Logits:
    """By comparing every place of the history with its end, one token at a time."""
    tail = list(_last(history, window))
    n = len(tail)
    if n <= allowed:
        return logits.copy()
    limit = n
    for start in range(n - 1, -1, -1):
        found = [len(b) for b in breakers if tail[start : start + len(b)] == list(b)]
        if found:
            limit = n - start - max(found)
            break
    longest: dict[int, int] = {}
    for end in range(1, n):  # tail[:end] ends like tail does; tail[end] came next
        length = 0
        while length < min(end, limit) and tail[end - 1 - length] == tail[n - 1 - length]:
            length += 1
        if length >= allowed:
            longest[tail[end]] = max(longest.get(tail[end], 0), length)
    out = logits.copy()
    for token, length in longest.items():
        if [token] not in [list(b) for b in breakers]:
            out[token] = _f32(float(logits[token]) - multiplier * _power(base, length - allowed))
    return out


def _power(base: float, n: int) -> float:
    result = 1.0
    while n:
        if n & 1:
            result *= base
        n >>= 1
        base *= base
    return result


def bias(logits: Logits, biases: Mapping[int, float]) -> Logits:
    out = logits.copy()
    for token, value in biases.items():
        out[token] = -math.inf if value == -math.inf else _f32(float(logits[token]) + value)
    return out


def probabilities(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def ranked(logits: Logits) -> list[int]:
    """Ids, best first, equal logits by ascending id; banned ones left out."""
    order = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    return [i for i in order if logits[i] != -np.inf]


def shares(p: npt.NDArray[np.float64], ids: Sequence[int]) -> dict[int, float]:
    total = sum(p[i] for i in ids)
    return {i: p[i] / total for i in ids}


def keep_top_k(share: dict[int, float], k: int) -> dict[int, float]:
    return _again(dict(list(share.items())[:k]) if k else share)


def keep_top_p(share: dict[int, float], top_p: float) -> dict[int, float]:
    if top_p >= 1:
        return share
    kept: dict[int, float] = {}
    for token, p in share.items():
        if kept and sum(kept.values()) >= top_p:
            break
        kept[token] = p
    return _again(kept)


def keep_min_p(share: dict[int, float], min_p: float) -> dict[int, float]:
    best = max(share.values())
    return _again({i: p for i, p in share.items() if p >= min_p * best})


def keep_typical(share: dict[int, float], typical_p: float) -> dict[int, float]:
    if typical_p >= 1:
        return share
    live = {i: p for i, p in share.items() if p > 0}
    entropy = -sum(p * math.log(p) for p in live.values())
    kept: dict[int, float] = {}
    for token in sorted(live, key=lambda i: abs(-math.log(live[i]) - entropy)):
        if kept and sum(kept.values()) >= typical_p:
            break
        kept[token] = live[token]
    return _again(kept)


def exclude_top_choices(share: dict[int, float], threshold: float) -> dict[int, float]:
    top = [i for i, p in share.items() if p >= threshold]
    return _again({i: p for i, p in share.items() if i not in top[:-1]})


def _again(share: dict[int, float]) -> dict[int, float]:
    total = sum(share.values())
    return {i: p / total for i, p in share.items()}
