"""Intervals: they cover the truth as often as they claim, and pairs stay pairs."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm.errors import InvalidArgumentError
from edgellm.evaluation.bootstrap import (
    interval,
    mean_interval,
    resampled_means,
    share_change_interval,
    share_interval,
)


def windows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mean losses of correlated tokens: a window has a level of its own."""
    return 3 + rng.standard_normal(n) + 0.1 * rng.standard_normal((n, 64)).mean(axis=1)


def test_about_95_of_100_intervals_hold_the_true_mean():
    rng = np.random.default_rng(1)
    n_trials = 300
    found = [
        interval(windows(rng, 40), lambda m: m[..., 0], n_resamples=500, seed=i)
        for i in range(n_trials)
    ]
    share = sum(one.low <= 3 <= one.high for one in found) / n_trials
    assert 0.90 < share < 0.98  # the percentile method at 40 windows: 0.94; 3 sigma: 0.04


def test_intervals_over_tokens_would_cover_far_too_seldom():
    """Why windows are drawn: tokens of a window are alike."""
    rng = np.random.default_rng(2)
    covered = []
    for i in range(60):
        level = rng.standard_normal((20, 1))
        tokens = level + 0.3 * rng.standard_normal((20, 16))
        wrong = interval(tokens.ravel(), lambda m: m[..., 0], n_resamples=300, seed=i)
        right = interval(tokens.mean(axis=1), lambda m: m[..., 0], n_resamples=300, seed=i)
        covered.append((wrong.low <= 0 <= wrong.high, right.low <= 0 <= right.high))
    wrong_share, right_share = np.mean(covered, axis=0)
    assert wrong_share < 0.6
    assert right_share > 0.85


def test_a_constant_shift_between_pairs_has_no_interval():
    rng = np.random.default_rng(3)
    a = windows(rng, 30)
    pair = np.stack([a + np.log(1.01), a], axis=1)
    ratio = interval(pair, lambda m: np.exp(m[..., 0] - m[..., 1]))
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.01, 1.01, 1.01))
    alone = interval(pair[:, 0], lambda m: np.exp(m[..., 0]))
    assert alone.high / alone.low > 1.5


def test_the_spread_of_draws_is_that_of_a_mean():
    values = np.random.default_rng(4).standard_normal((50, 2)) * [1, 10]
    draws = resampled_means(values, 20_000, 0)
    assert draws.shape == (20_000, 2)
    assert draws.std(axis=0) == pytest.approx(values.std(axis=0) / 50**0.5, rel=0.03)
    assert draws.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.1)


def test_the_same_seed_gives_the_same_interval_and_one_window_none():
    values = windows(np.random.default_rng(5), 25)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)
    assert mean_interval(values[:1]).low is None
    with pytest.raises(InvalidArgumentError):
        mean_interval(values[:0])


def test_shares_of_all_and_of_few_are_not_certain():
    assert share_interval(81, 263).value == 81 / 263
    assert share_interval(81, 263).low == pytest.approx(0.2553, abs=1e-4)  # Newcombe 1998, table I
    assert share_interval(81, 263).high == pytest.approx(0.3662, abs=1e-4)
    assert share_interval(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    assert share_interval(29, 29).low == pytest.approx(0.8830, abs=1e-4)
    assert (share_interval(0, 1).low, share_interval(5, 5).high) == (0, 1)
    with pytest.raises(InvalidArgumentError):
        share_interval(0, 0)


def test_changes_of_shares_cover_the_truth_also_where_nothing_changed():
    rng = np.random.default_rng(6)
    gain, loss, n = 0.08, 0.03, 120
    covered = 0
    for _ in range(400):
        gained, lost, _ = rng.multinomial(n, [gain, loss, 1 - gain - loss])
        found = share_change_interval(int(gained), int(lost), n)
        assert found.low <= found.value == (gained - lost) / n <= found.high
        covered += found.low <= gain - loss <= found.high
    assert 0.91 < covered / 400 < 0.99
    nothing = share_change_interval(0, 0, 3)
    assert nothing.value == 0
    assert nothing.low < -0.3
    assert nothing.high > 0.3
    assert share_change_interval(0, 0, 10_000).high < 0.001
    with pytest.raises(InvalidArgumentError):
        share_change_interval(2, 2, 3)
