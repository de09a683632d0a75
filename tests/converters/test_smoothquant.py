"""Smoothing: the formula of the paper, the same model after folding, int8 rows as torch rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters.export.smoothquant import (
    input_scale,
    int8_rows,
    smoothed_layer,
    smoothing_factors,
)
from edgellm.converters.reference import Reference
from hypothesis import given
from hypothesis import strategies as st

from golden.measures import max_abs
from golden.tiny import CASE_NAMES, case_ids, case_named, tiny_checkpoint

X = np.array([8.0, 0.5, 100.0, 3.0], np.float32)
W = np.array([0.5, 2.0, 0.01, 3.0], np.float32)


def test_alpha_shares_the_range_between_input_and_weights() -> None:
    np.testing.assert_allclose(smoothing_factors(X, W, 1.0), X)
    np.testing.assert_allclose(smoothing_factors(X, W, 0.0), 1 / W, rtol=1e-6)
    half = smoothing_factors(X, W, 0.5)
    np.testing.assert_allclose(X / half, W * half, rtol=1e-6)


def test_a_dead_channel_is_left_alone() -> None:
    x, w = X.copy(), W.copy()
    x[0] = w[1] = 0
    factors = smoothing_factors(x, w, 0.5)
    assert factors[:2].tolist() == [1.0, 1.0]
    assert np.isfinite(factors).all()


@pytest.mark.parametrize("name", CASE_NAMES)
def test_folding_changes_no_logit_and_balances_what_it_folds(name: str, tmp_path: Path) -> None:
    case = case_named(name)
    reference = Reference.from_checkpoint(tiny_checkpoint(tmp_path, case))
    ids = case_ids(case)
    wanted = reference.logits(ids).numpy()
    rng = np.random.default_rng(4)
    for index, layer in enumerate(reference.spec.layers):
        prefix = f"layers.{index}."
        own = {n: w for n, w in reference.weights.items() if n.startswith(prefix)}
        weights = {n.removeprefix(prefix): w.numpy() for n, w in own.items()}
        amax = {
            role: np.exp(rng.normal(0, 2, weights[role].shape[1])).astype(np.float32)
            for role in ("attn_q", "attn_o", "ffn_gate", "ffn_down")
        }
        smoothed = smoothed_layer(layer, weights, amax, 0.5)
        for role, value in smoothed.weights.items():
            assert not np.array_equal(value, weights[role]), role
            reference.weights[prefix + role] = torch.from_numpy(value)
        down = np.abs(smoothed.weights["ffn_down"]).max(0)
        np.testing.assert_allclose(smoothed.input_amax["ffn_down"], down, rtol=1e-5)
        # A norm's channels times their largest inputs so far are what the norm now gives.
        ratio = smoothed.weights["attn_norm"] / weights["attn_norm"]
        np.testing.assert_allclose(smoothed.input_amax["attn_q"], amax["attn_q"] * ratio, rtol=1e-5)
    assert max_abs(wanted, reference.logits(ids).numpy()) <= 1e-5 * np.abs(wanted).max()


@given(seed=st.integers(0, 1 << 30), spread=st.floats(0, 6))
def test_rows_round_to_int8_as_in_torch(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((5, 33)) * np.exp(rng.normal(0, spread, (5, 1)))
    weights = weights.astype(np.float32)
    weights[2] = 0
    matrix = int8_rows(weights)
    rows = torch.from_numpy(weights)
    scales = rows.abs().amax(1) / 127
    scales[2] = 1
    assert torch.equal(torch.from_numpy(matrix.scales), scales)
    wanted = torch.round(rows / scales[:, None]).to(torch.int8)
    np.testing.assert_array_equal(matrix.codes, wanted.numpy())
    assert np.abs(matrix.codes.astype(int)).max() == 127
    assert matrix.rel_rms_error(weights) < 0.02


def test_a_scale_is_finite_and_positive_whatever_the_magnitude() -> None:
    amax = np.array([0, 1e-45, 127, 3e38], np.float32)
    scales = input_scale(amax)
    assert scales[[0, 2]].tolist() == [1.0, 1.0]
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
