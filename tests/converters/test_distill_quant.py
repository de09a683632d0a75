"""What learns in a weight format is what the packer stores, to the bit; and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edgellm.converters.distill.fake_quant import QuantizedMatrix, rounded_inputs
from edgellm.converters.quant import decode_matrix, encode_matrix
from edgellm.converters.quant.activations import rounded

FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32")
SHAPE = (21, 70)  # neither whole strips nor whole tiles


def matrix(format: str, with_codes: bool) -> tuple[QuantizedMatrix, np.ndarray]:
    weights = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
    weights[3] = 0  # a row without a scale
    strips = encode_matrix(format, weights, None, 1)
    return QuantizedMatrix(format, strips, *SHAPE, with_codes=with_codes), strips


@pytest.mark.parametrize("with_codes", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_the_start_is_the_file_and_what_is_learnt_is_what_is_stored(
    format: str, with_codes: bool
) -> None:
    learning, strips = matrix(format, with_codes)
    start = decode_matrix(format, strips, *SHAPE)
    assert np.array_equal(learning.weights().detach().numpy(), start)
    assert np.array_equal(decode_matrix(format, learning.strips(), *SHAPE), start)
    if with_codes:
        original = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)
        for firmness in (0.5, 0.0):
            learning.begin_near(torch.from_numpy(original), firmness)
            assert np.array_equal(learning.weights().detach().numpy(), start)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in (learning.row_factor, learning.group_factor):
            factor += 0.05 * torch.randn(factor.shape, generator=generator)
        if learning.latent is not None:
            learning.latent += 2 * torch.randn(learning.latent.shape, generator=generator)
    moved = learning.strips()
    now = learning.weights().detach().numpy()
    assert np.array_equal(now, decode_matrix(format, moved, *SHAPE))
    assert (now != start).mean() > 0.5


@pytest.mark.parametrize("format", ["E3_32", "E4_16", "E8_32"])
def test_gradients_of_latent_weights_pass_straight_through_inside_the_levels(format: str) -> None:
    learning, _ = matrix(format, with_codes=True)
    assert learning.latent is not None
    with torch.no_grad():
        learning.latent[0, 0] = 1000.0  # far beyond the outermost level
    pull = torch.from_numpy(np.random.default_rng(6).standard_normal(SHAPE).astype(np.float32))
    (learning.weights() * pull).sum().backward()
    grad = learning.latent.grad
    assert grad is not None
    assert float(grad[0, 0]) == 0
    # By a weight's place among the levels: its group's step, of either sign.
    gains = step_signs(learning)[1:]
    can_gain = gains != 0  # not on the uppermost level
    assert float(can_gain.float().mean()) > 0.8
    assert torch.equal((grad * pull)[1:].sign()[can_gain], gains[can_gain])


def step_signs(learning: QuantizedMatrix) -> torch.Tensor:
    """Of a matrix that has not learnt: what a weight gains where its latent one does."""
    with torch.no_grad():
        before = learning.weights()
        assert learning.latent is not None
        kept = learning.latent.clone()
        learning.latent += 2.0
        after = learning.weights()
        learning.latent.copy_(kept)
    return (after - before).sign()


@pytest.mark.parametrize("format", ["E3_32", "E4_16", "E8_32"])
def test_gradients_of_scales_are_those_of_the_dequantized_weights(format: str) -> None:
    learning, strips = matrix(format, with_codes=False)
    start = torch.from_numpy(decode_matrix(format, strips, *SHAPE))
    pull = torch.from_numpy(np.random.default_rng(6).standard_normal(SHAPE).astype(np.float32))
    (learning.weights() * pull).sum().backward()
    products = start * pull
    assert learning.row_factor.grad is not None
    assert learning.group_factor.grad is not None
    torch.testing.assert_close(learning.row_factor.grad, products.sum(1), rtol=1e-4, atol=1e-5)
    group = -(-SHAPE[1] // learning.group_factor.shape[1])
    group = 16 if group <= 16 else 32
    first = products[:, :group].sum(1)
    torch.testing.assert_close(learning.group_factor.grad[:, 0], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("act", ["a8", "a8x2"])
def test_rounded_inputs_are_the_runtimes(act: str) -> None:
    rng = np.random.default_rng(8)
    inputs = rng.standard_normal((2, 5, 70)).astype(np.float32)
    inputs[0, 1] = 0
    inputs[1, 2, 40] = 300
    inputs[1, 3] *= np.float32(2.0**-110)
    x = torch.from_numpy(inputs).requires_grad_()
    got = rounded_inputs(x, act)
    wanted = rounded(inputs.reshape(10, 70), act).reshape(inputs.shape)
    assert np.array_equal(got.detach().numpy(), wanted)
    assert not np.array_equal(wanted, inputs)
    got.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))
