"""Whether rotating keys or values makes the KV cache's formats cheaper, by KL on held-out text.

A rotation gains where it takes a quarter off the divergence of a format, and at least MIN_NATS; it
is taken only if no format loses as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from .kv_rounding import KV_FORMATS, KvRounding
from .report import KvDivergence, KvQuality

TEST_WINDOWS = 2
TESTED = tuple(name for name in KV_FORMATS if name != "F16")
GAIN = 0.25
MIN_NATS = 1e-4  # per token: below, neither text nor answers can tell

KlFn = Callable[[Tensor, Tensor], tuple[float, int]]  # of hidden states, and of how many tokens


def variants() -> list[KvRounding]:
    """What to run a model with: F16, then every format as it is and with either rotation."""
    found = [KV_FORMATS["F16"]]
    for name in TESTED:
        plain = KV_FORMATS[name]
        found += [plain, replace(plain, rotate_keys=True), replace(plain, rotate_values=True)]
    return found


def judged(finals: Sequence[Tensor], kl: KlFn) -> KvQuality:
    """finals: hidden states after the last layer, one for each of variants(). kl(base, final)."""
    base, *others = finals
    measured = [kl(base, final) for final in others]
    figures = [max(value, 0.0) for value, _ in measured]
    formats = tuple(
        KvDivergence(name, *figures[3 * i : 3 * i + 3]) for i, name in enumerate(TESTED)
    )
    return KvQuality(
        formats,
        keys_gain=_gains([(found.kl, found.kl_rotated_keys) for found in formats]),
        values_gain=_gains([(found.kl, found.kl_other_values) for found in formats]),
        n_tokens=measured[0][1],
    )


def _gains(pairs: Sequence[tuple[float, float]]) -> bool:
    """pairs: divergence without and with."""
    won = any(_is_better(without, with_it) for without, with_it in pairs)
    return won and not any(_is_better(with_it, without) for without, with_it in pairs)


def _is_better(old: float, new: float) -> bool:
    return old - new >= max(GAIN * old, MIN_NATS)
