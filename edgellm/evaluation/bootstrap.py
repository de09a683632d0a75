"""95 % intervals by the paired bootstrap over windows (Efron and Tibshirani 1993, chapter 13).

Windows are drawn with replacement and every statistic is computed again from the windows drawn.
Windows, not tokens: the tokens of one window share their context and their topic, and an interval
that takes them for independent is too narrow. Paired: all columns of a draw (the losses of two
models, say) come from the same windows, so what a hard window does to both cancels.

Shares of questions, and their changes, have intervals by formula instead: a draw of 20 right
answers holds 20 right answers, and would call a share of 100 % certain.

Percentile intervals: with few windows they are somewhat too narrow (10 windows: about 90 % instead
of 95 %), with one there are none. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
N_RESAMPLES = 10_000
SEED = 0
_Z = 1.959963984540054  # of CONFIDENCE, two-sided
_CHUNK_COUNTS = 1 << 22  # draws x units held at once


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; `low` and `high` are None where one window says nothing."""

    value: float
    low: float | None = None
    high: float | None = None


def interval(
    columns: Floats,
    statistic: Callable[[Floats], Floats],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """`statistic` of the column means, with its interval.

    columns: float64 [n_units] or [n_units, n_columns], one row per window or question. statistic:
    takes means [..., n_columns] and gives [...]: `lambda m: np.exp(m[..., 0] - m[..., 1])` is the
    ratio of two perplexities. The same seed gives the same interval, for one version of
    numpy.
    """
    import numpy as np

    units = columns[:, None] if columns.ndim == 1 else columns
    n_units = len(units)
    if n_units == 0:
        raise InvalidArgumentError("an interval needs at least one value", code="invalid_argument")
    value = float(statistic(units.mean(axis=0)))
    if n_units == 1:
        return Interval(value)
    draws = statistic(resampled_means(units, n_resamples, seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def mean_interval(values: Floats, *, seed: int = SEED) -> Interval:
    """The mean of [n_units] values."""
    return interval(values, lambda means: means[..., 0], seed=seed)


def share_interval(n_yes: int, n_units: int) -> Interval:
    """A share of independent yes-or-no answers, with Wilson's score interval (Wilson 1927)."""
    if n_units < 1 or not 0 <= n_yes <= n_units:
        message = f"a share of {n_yes} in {n_units} is none"
        raise InvalidArgumentError(message, code="invalid_argument")
    share = n_yes / n_units
    z2_n = _Z * _Z / n_units
    centre = (share + z2_n / 2) / (1 + z2_n)
    half = (z2_n * share * (1 - share) + z2_n * z2_n / 4) ** 0.5 / (1 + z2_n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def share_change_interval(n_gained: int, n_lost: int, n_units: int) -> Interval:
    """Change of a share when `n_gained` answers became yes and `n_lost` no, of n_units pairs: the
    adjusted Wald interval of Agresti and Min (2005), with 1/2 added to each of the four counts."""
    if n_units < 1 or min(n_gained, n_lost) < 0 or n_gained + n_lost > n_units:
        message = f"{n_gained} gained and {n_lost} lost of {n_units} is no change of a share"
        raise InvalidArgumentError(message, code="invalid_argument")
    n = n_units + 2
    centre = (n_gained - n_lost) / n
    half = _Z * ((n_gained + n_lost + 1) - (n_gained - n_lost) ** 2 / n) ** 0.5 / n
    return Interval(
        (n_gained - n_lost) / n_units, max(-1.0, centre - half), min(1.0, centre + half)
    )


def resampled_means(units: Floats, n_resamples: int, seed: int) -> Floats:
    """Column means of `n_resamples` draws of n_units rows: [n_resamples, n_columns]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n_units = len(units)
    weights = np.full(n_units, 1 / n_units)
    step = max(1, _CHUNK_COUNTS // n_units)
    parts: Sequence[Floats] = [
        rng.multinomial(n_units, weights, size=min(step, n_resamples - done)) @ units / n_units
        for done in range(0, n_resamples, step)
    ]
    return np.concatenate(parts)
