"""How fast a model will be on a device that nobody has tried it on, and how sure that is.

A decoded token takes as long as its weights and the KV that it sees take to be read, or, where that
is longer, to be computed with; a prompt as long as its multiply-adds. docs/PLAN.md has the
formulas, and where the constants come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidArgumentError
from .planner import MAX_ROWS, MemoryPlan
from .profiles import Calibration, Figure, HardwareProfile
from .work import TokenWork

# Of models that this project has measured (docs/BENCHMARKS.md), for devices without a calibration.
DECODE_SHARE, PREFILL_SHARE, LAYER_US = 0.92, 0.45, 45.0
# A multiply-add of attention takes as long as so many of the weights'.
ATTENTION_COST = 4
# Of the int8 peak, what a single row gets: weights are unpacked for it alone.
SINGLE_ROW_SHARE = 0.25
# By how much a speed may be off for what one figure rests on.
BANDS = {"measured": 0.10, "vendor": 0.30, "estimated": 0.50}
UNCALIBRATED_BAND = 0.25
UNTRIED_BAND = 0.50  # of backends that nobody has timed
_SHARES = (0.05, 1.5)  # of the reads: beyond, weights came from a cache
_LEAST_WEIGHT_BYTES = 64 << 20  # less stays in caches, and says nothing of memory


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and the range in which they are expected."""

    tokens_per_s: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: float, band: float) -> Speed | None:
        """Of a token that takes so long; band: the relative error, 0.1 for a tenth. None for a
        model without weights."""
        if seconds <= 0:
            return None
        speed = 1 / seconds
        return cls(speed, speed / (1 + band), speed * (1 + band))


@dataclass(frozen=True)
class Sample:
    """What `edgellm bench` has measured of one model: speeds in tokens a second, prompts and
    decoding from an empty context, reads in 1e9 bytes a second, and the int8 peak in 1e9
    multiply-adds a second."""

    work: TokenWork
    kv_bytes_per_token: int
    prefill_tokens: int
    decode_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    read_gb_per_s: float
    int8_gmac_per_s: float


@dataclass(frozen=True)
class Fit:
    """What `calibrate()` finds: as `Calibration`, plain numbers."""

    decode_share: float
    prefill_share: float
    layer_us: float


def decode_speed(
    profile: HardwareProfile, backend: str, work: TokenWork, plan: MemoryPlan, n_ctx: int
) -> Speed | None:
    """Of one text, at the end of a context of n_ctx tokens; None where the device's reads are
    unknown."""
    reads = _reads(profile, backend)
    if reads is None:
        return None
    known = profile.calibration if backend == "cpu" else Calibration()
    share, layer_us = _or(known.decode_share, DECODE_SHARE), _or(known.layer_us, LAYER_US)
    n_bytes = work.weight_bytes + plan.kv_bytes_at(n_ctx)
    seconds = n_bytes / (1e9 * reads.value * share)
    figures: list[Figure[Any] | None] = [reads, known.decode_share]
    peak = _peak(profile, backend)
    if peak is not None:
        macs = work.body_macs + work.head_macs + ATTENTION_COST * work.attention_macs_at(n_ctx)
        computing = macs / (1e9 * peak.value * SINGLE_ROW_SHARE)
        if computing > seconds:
            seconds, figures = computing, [peak, None]
    return Speed.of(seconds + 1e-6 * layer_us * work.n_layers, _band(figures, backend))


def prefill_speed(
    profile: HardwareProfile, backend: str, work: TokenWork, n_tokens: int
) -> Speed | None:
    """Of a prompt of n_tokens, from an empty context, on average; None where the device's
    multiply-adds are unknown."""
    peak = _peak(profile, backend)
    if peak is None:
        return None
    known = profile.calibration if backend == "cpu" else Calibration()
    share = _or(known.prefill_share, PREFILL_SHARE)
    seconds = _prompt_macs(work, n_tokens) / (1e9 * peak.value * share)
    figures: list[Figure[Any] | None] = [peak, known.prefill_share]
    rows, reads = max(1, min(n_tokens, MAX_ROWS)), _reads(profile, backend)
    if reads is not None:
        reading = work.weight_bytes / rows / (1e9 * reads.value)
        if reading > seconds:
            seconds, figures = reading, [reads, None]
    layers = 1e-6 * _or(known.layer_us, LAYER_US) * work.n_layers / rows
    return Speed.of(seconds + layers, _band(figures, backend))


def calibrate(samples: Sequence[Sample]) -> Fit:
    """The shares that explain the samples best, by relative error; with one sample, or several of
    one kind, `LAYER_US` is taken for what a layer takes. InvalidArgumentError where they say
    nothing of memory."""
    for sample in samples:
        if sample.work.weight_bytes < _LEAST_WEIGHT_BYTES:
            message = (
                f"a model with {sample.work.weight_bytes:,} bytes of weights a token stays in "
                f"caches: calibrate with one that has {_LEAST_WEIGHT_BYTES:,} or more"
            )
            raise InvalidArgumentError(message, code="invalid_argument")
    inverse_share, layer_s = _fitted([_decode_row(sample) for sample in samples])
    share = 1 / inverse_share if inverse_share > 0 else math.inf
    if not _SHARES[0] <= share <= _SHARES[1]:
        message = (
            f"decoding gets {share:.2f} of the reads of this machine, which cannot be: measure "
            "again when nothing else runs, with a larger model"
        )
        raise InvalidArgumentError(message, code="invalid_argument")
    prefill = [
        _prompt_macs(s.work, s.prefill_tokens) * s.prefill_tokens_per_s / (1e9 * s.int8_gmac_per_s)
        for s in samples
    ]
    return Fit(share, sum(prefill) / len(prefill), 1e6 * layer_s)


def _decode_row(sample: Sample) -> tuple[float, float]:
    """Of the time of a token: what reading at full speed would take, and layers a second."""
    n_bytes = sample.work.weight_bytes + sample.kv_bytes_per_token * sample.decode_tokens / 2
    return (
        n_bytes / (1e9 * sample.read_gb_per_s) * sample.decode_tokens_per_s,
        sample.work.n_layers * sample.decode_tokens_per_s,
    )


def _fitted(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(x, y >= 0) for which a x + b y is nearest to 1 for all (a, b)."""
    aa, ab, bb = (sum(v) for v in zip(*((a * a, a * b, b * b) for a, b in rows), strict=True))
    a1, b1 = sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    if determinant > 1e-3 * aa * bb:
        x, y = (a1 * bb - b1 * ab) / determinant, (b1 * aa - a1 * ab) / determinant
        if x > 0 and y >= 0:
            return x, y
        return a1 / aa, 0.0
    y = 1e-6 * LAYER_US
    x = (a1 - ab * y) / aa
    return (x, y) if x > 0 else (a1 / aa, 0.0)


def _prompt_macs(work: TokenWork, n_tokens: int) -> float:
    """Of one token, on average over a prompt of so many."""
    return work.body_macs + ATTENTION_COST * work.attention_macs_at(n_tokens // 2)


def _reads(profile: HardwareProfile, backend: str) -> Figure[float] | None:
    if backend == "cpu":
        return profile.memory.read_gb_per_s
    accelerator = profile.accelerator(backend)
    return None if accelerator is None else accelerator.read_gb_per_s


def _peak(profile: HardwareProfile, backend: str) -> Figure[float] | None:
    if backend == "cpu":
        return profile.cpu.int8_gmac_per_s
    accelerator = profile.accelerator(backend)
    return None if accelerator is None else accelerator.int8_gmac_per_s


def _or(figure: Figure[float] | None, default: float) -> float:
    return default if figure is None else figure.value


def _band(figures: Iterable[Figure[Any] | None], backend: str) -> float:
    """Errors of figures that have nothing to do with each other; None: a constant from above."""
    bands = [UNCALIBRATED_BAND if one is None else BANDS[one.basis] for one in figures]
    bands += [] if backend == "cpu" else [UNTRIED_BAND]
    return math.hypot(*bands)
