"""Whether balancing or rotating keys, or rotating values, makes the KV cache's formats cheaper, by
KL on held-out text.

A change gains where it takes a quarter off the divergence of a format, and at least MIN_NATS; it is
taken only if no format loses as much. Keys are balanced first, which costs the runtime less, and
rotated beside that only if it still gains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import Tensor

from .kv_rounding import KV_FORMATS, KvRounding
from .report import KvDivergence, KvQuality

TEST_WINDOWS = 2
TESTED = tuple(name for name in KV_FORMATS if name != "F16")
CHANGES: tuple[dict[str, Any], ...] = (  # in the order of the figures of a KvDivergence
    {},
    {"rotate_keys": True},
    {"balance_keys": True},
    {"rotate_keys": True, "balance_keys": True},
    {"rotate_values": True},
)
GAIN = 0.25
MIN_NATS = 1e-4  # per token: below, neither text nor answers can tell

KlFn = Callable[[Tensor, Tensor], tuple[float, int]]  # of hidden states, and of how many tokens


def variants() -> list[KvRounding]:
    """What to run a model with: F16, then every format with CHANGES."""
    changed = [replace(KV_FORMATS[name], **change) for name in TESTED for change in CHANGES]
    return [KV_FORMATS["F16"], *changed]


def judged(
    finals: Sequence[Tensor],
    kl: KlFn,
    rotate_keys: bool | None = None,
    balance_keys: bool | None = None,
) -> KvQuality:
    """finals: hidden states after the last layer, one for each of variants(). kl(base, final).
    rotate_keys, balance_keys: None where the figures decide."""
    base, *others = finals
    measured = [kl(base, final) for final in others]
    figures = iter([max(value, 0.0) for value, _ in measured])
    formats = tuple(KvDivergence(name, *islice(figures, len(CHANGES))) for name in TESTED)
    if balance_keys is None:
        rotated = rotate_keys is True
        kls = [(f.kl_with(rotated, False), f.kl_with(rotated, True)) for f in formats]
        balance_keys = _gains(kls)
    if rotate_keys is None:
        kls = [(f.kl_with(False, balance_keys), f.kl_with(True, balance_keys)) for f in formats]
        rotate_keys = _gains(kls)
    return KvQuality(
        formats,
        rotate_keys=rotate_keys,
        balance_keys=balance_keys,
        values_gain=_gains([(found.kl, found.kl_other_values) for found in formats]),
        n_tokens=measured[0][1],
    )


def _gains(pairs: Sequence[tuple[float, float]]) -> bool:
    """pairs: divergence without and with."""
    won = any(_is_better(without, with_it) for without, with_it in pairs)
    return won and not any(_is_better(with_it, without) for without, with_it in pairs)


def _is_better(old: float, new: float) -> bool:
    return old - new >= max(GAIN * old, MIN_NATS)
