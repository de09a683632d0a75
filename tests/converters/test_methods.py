"""Packers, and the methods that choose codes: against the native decoder, a textbook GPTQ in
float64, and each other."""

from __future__ import annotations

import numpy as np
import pytest
from edgellm.converters.quant import QUANT_FORMATS
from edgellm.converters.quant.methods import InputStats, Method, quantize

from edgellm._native import decode_rows
from edgellm.errors import InvalidArgumentError, NumericError, UnsupportedError

torch = pytest.importorskip("torch")

E_FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32")
GROUP = {"E2_16": 16, "E3_32": 32, "E4_16": 16, "E4_32": 32, "E6_16": 16, "E8_32": 32}


def decoded(format: str, strips: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return decode_rows(format, strips, *shape, 0, shape[0])


def layer(n_rows: int, n_cols: int, seed: int = 0) -> tuple[np.ndarray, InputStats]:
    """Gaussian weights, and inputs of rank n_cols / 4 plus noise: columns that know each other."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((n_rows, n_cols)).astype(np.float32) * 0.02
    mix = rng.standard_normal((n_cols // 4, n_cols))
    x = rng.standard_normal((8 * n_cols, n_cols // 4)) @ mix
    x += rng.standard_normal(x.shape) * np.sqrt(n_cols) / 8
    return weights, InputStats((x.T @ x / len(x)).astype(np.float32))


def loss(weights: np.ndarray, quantized: np.ndarray, stats: InputStats) -> float:
    """trace((W - Q) H (W - Q)^T)."""
    error = (weights - quantized).astype(np.float64)
    return float(((error @ stats.moments) * error).sum())


def losses(weights: np.ndarray, stats: InputStats, format: str, *methods: Method) -> list[float]:
    found = []
    for method in methods:
        strips = quantize(weights, format, method, stats, 1)
        found.append(loss(weights, decoded(format, strips, weights.shape), stats))
    return found


@pytest.mark.parametrize("format", E_FORMATS)
@pytest.mark.parametrize("shape", [(16, 32), (5, 40), (33, 100)])
def test_packers_and_the_native_decoder_agree(format, shape):
    from edgellm.converters.quant.methods.levels import levels_of

    rng = np.random.default_rng(1)
    n_rows, n_cols = shape
    levels, group = levels_of(format), GROUP[format]
    n_groups = -(-n_cols // group)
    step = {"E2_16": 8, "E3_32": 4}.get(format, 2)
    scales = rng.integers(-128 // step, 128 // step, (n_rows, n_groups)) * step + step // 2
    luts = rng.integers(0, levels.n_luts, (n_rows, n_groups))
    n_codes = 2 * levels.zero if levels.lut is None else len(levels.lut)
    codes = rng.integers(0, n_codes, shape)
    d_row = rng.random(n_rows).astype(np.float32) + 0.5
    if levels.lut is not None:
        first, apart = {"E2_16": (24, 2), "E3_32": (40, 4)}.get(format, (64, 2))
        values = levels.lut[codes] - (first - apart * np.repeat(luts, group, axis=1)[:, :n_cols])
    else:
        values = codes - levels.zero
    expected = d_row[:, None] * (np.repeat(scales, group, axis=1)[:, :n_cols] * values).astype("f4")
    packer = QUANT_FORMATS[format].pack
    assert packer is not None
    sc = (scales + 128 - step // 2 | luts).astype(np.uint8)
    strips = packer(d_row, sc, codes.astype(np.uint8))
    np.testing.assert_array_equal(decoded(format, strips, shape), expected)
    stored = levels.codes(
        torch.from_numpy(np.pad(values, ((0, 0), (0, -n_cols % group))).astype("f4")),
        torch.from_numpy(luts),
    )
    np.testing.assert_array_equal(stored[:, :n_cols], codes)


def test_gptq_lowers_the_output_error():
    """Measured .18 of rtn's, which importance hardly changes (.99); the sweep alone .22."""
    weights, stats = layer(96, 128)
    rtn, importance, sweep, gptq = losses(
        weights,
        stats,
        "E4_16",
        Method("rtn"),
        Method("importance"),
        Method("gptq", n_passes=0),
        Method("gptq"),
    )
    assert importance < rtn
    assert sweep < 0.4 * min(rtn, importance)
    assert gptq < 0.95 * sweep


@pytest.mark.parametrize("format", E_FORMATS)
def test_gptq_of_uncorrelated_inputs_is_as_good_as_rounding_to_nearest(format):
    weights, _ = layer(64, 128)
    stats = InputStats(np.eye(128, dtype=np.float32))
    rtn, gptq = losses(weights, stats, format, Method("rtn"), Method("gptq", n_passes=0))
    # The native search of E8 tries six odd scales to either side, GPTQ one.
    assert gptq == pytest.approx(rtn, rel=0.1 if format == "E8_32" else 0.02)


def textbook_gptq(weights: np.ndarray, hessian: np.ndarray, codes: object, damping: float):
    """Levels by GPTQ as the paper writes it, in float64: invert, factor, one column at a time;
    scales and tables as given. O(n^3), no groups, no blocks."""
    n_cols = len(hessian)
    damped = hessian.astype(np.float64) + damping * np.diag(hessian).mean() * np.eye(n_cols)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = weights.astype(np.float64).copy()
    levels = np.empty_like(rest)
    group = n_cols // codes.scales.shape[1]
    lut = np.array([0, 12, 22, 32, 40, 46, 53, 59, 64, 70, 76, 83, 90, 98, 108, 120]) - 64.0
    for j in range(n_cols):
        table = lut[None] + 2.0 * codes.luts[:, j // group].numpy()[:, None]
        scale = codes.d_row.numpy() * codes.scales[:, j // group].numpy()
        nearest = np.abs(rest[:, j, None] - scale[:, None] * table).argmin(axis=1)
        levels[:, j] = np.take_along_axis(table, nearest[:, None], axis=1)[:, 0]
        error = (rest[:, j] - scale * levels[:, j]) / upper[j, j]
        rest[:, j:] -= error[:, None] * upper[j, j:]
    return levels


@pytest.mark.parametrize("format", ["E4_16", "E4_32"])
def test_the_sweep_is_textbook_gptq(format):
    from edgellm.converters.quant.methods.gptq import GptqOptions, factorize, quantize_rows
    from edgellm.converters.quant.methods.levels import levels_of

    weights, stats = layer(24, 64, seed=5)
    levels = levels_of(format)
    factors = factorize(torch.from_numpy(stats.moments), levels.group, 0.01)
    codes = quantize_rows(
        torch.from_numpy(weights), factors, levels, GptqOptions(n_passes=0), n_threads=1
    )
    wanted = textbook_gptq(weights, stats.moments, codes, 0.01)
    np.testing.assert_array_equal(codes.levels.numpy(), wanted)


@pytest.mark.parametrize("name", ["gptq", "gptaq"])
def test_bytes_do_not_depend_on_threads(name):
    weights, stats = layer(600, 64)
    stats = InputStats(stats.moments, 0.1 * stats.moments)
    one = quantize(weights, "E4_16", Method(name, n_passes=1), stats, 1)
    np.testing.assert_array_equal(
        quantize(weights, "E4_16", Method(name, n_passes=1), stats, 3), one
    )


def test_gptaq_makes_up_for_drifted_inputs():
    """Error of the outputs against the original model's, E |W x_full - Q x|^2."""
    rng = np.random.default_rng(7)
    weights, _ = layer(48, 64)
    mix = rng.standard_normal((16, 64))
    full = rng.standard_normal((2000, 16)) @ mix + 0.3 * rng.standard_normal((2000, 64))
    x = 0.9 * full + 0.1 * rng.standard_normal(full.shape)
    stats = InputStats(
        (x.T @ x / len(x)).astype(np.float32), ((full - x).T @ x / len(x)).astype(np.float32)
    )
    errors = []
    for method in (Method("gptq"), Method("gptaq", drift=1.0)):
        strips = quantize(weights, "E4_16", method, stats, 1)
        quantized = decoded("E4_16", strips, weights.shape)
        errors.append(np.square(full @ weights.T - x @ quantized.T).mean())
    assert errors[1] < 0.5 * errors[0]


def test_inputs_that_are_always_zero_and_rows_of_zeros_are_no_trouble():
    weights, stats = layer(20, 64)
    weights[3] = 0
    moments = stats.moments.copy()
    moments[:, 5] = moments[5, :] = 0
    strips = quantize(weights, "E4_16", Method("gptq"), InputStats(moments), 1)
    quantized = decoded("E4_16", strips, weights.shape)
    assert np.isfinite(quantized).all()
    assert not quantized[3].any()
    nothing = InputStats(np.zeros_like(moments))
    rtn, gptq = losses(
        weights, InputStats(np.eye(64, dtype="f4")), "E4_16", Method(), Method("gptq")
    )
    blind = decoded("E4_16", quantize(weights, "E4_16", Method("gptq"), nothing, 1), weights.shape)
    assert np.square(blind - weights).sum() < 1.05 * rtn
    assert gptq < 1.05 * rtn


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_scaling_the_weights_scales_the_result(scale):
    weights, stats = layer(16, 64)
    exponent = np.float32(2.0 ** round(np.log2(scale)))
    small = decoded("E4_16", quantize(weights, "E4_16", Method("gptq"), stats, 1), weights.shape)
    other = quantize(weights * exponent, "E4_16", Method("gptq"), stats, 1)
    np.testing.assert_array_equal(decoded("E4_16", other, weights.shape), small * exponent)


def test_bad_input_is_refused():
    weights, stats = layer(16, 64)
    with pytest.raises(InvalidArgumentError, match="needs calibration"):
        quantize(weights, "E4_16", Method("gptq"), None, 1)
    with pytest.raises(UnsupportedError, match="must be 'rtn'"):
        quantize(weights, "F16", Method("gptq"), stats, 1)
    with pytest.raises(InvalidArgumentError, match=r"moments are \[64, 64\]"):
        quantize(weights[:, :32], "E4_16", Method("gptq"), stats, 1)
    with pytest.raises(InvalidArgumentError, match="drift"):
        quantize(weights, "E4_16", Method("gptaq"), stats, 1)
    bad = weights.copy()
    bad[2, 7] = np.nan
    with pytest.raises(NumericError, match="row 2, column 7"):
        quantize(bad, "E4_16", Method("gptq"), stats, 1)
    spoiled = stats.moments.copy()
    spoiled[1, 1] = np.inf
    with pytest.raises(NumericError, match="not finite"):
        quantize(weights, "E4_16", Method("gptq"), InputStats(spoiled), 1)
    indefinite = stats.moments - 100 * np.eye(64, dtype=np.float32)
    with pytest.raises(NumericError, match="positive definite"):
        quantize(weights, "E4_16", Method("gptq"), InputStats(indefinite), 1)
    with pytest.raises(InvalidArgumentError, match="known: rtn"):
        Method("magic")


def test_the_native_search_refuses_what_does_not_fit_together():
    from edgellm._native import gptq_descend, gptq_sweep

    target, upper, d_row = np.ones((3, 32), "f4"), np.eye(32, dtype="f4"), np.ones(3, "f4")
    scale_bytes, levels, moved = gptq_sweep("E4_16", target, upper, d_row)
    assert (scale_bytes.shape, levels.shape, moved.shape) == ((3, 2), (3, 32), (3, 32))
    for format, match in (("F16", "no scales|not a format"), ("Q4_0", "not a format")):
        with pytest.raises(InvalidArgumentError, match=match):
            gptq_sweep(format, target, upper, d_row)
    with pytest.raises(InvalidArgumentError, match="groups of 32"):
        gptq_sweep("E4_32", target[:, :16], upper[:16, :16], d_row)
    with pytest.raises(InvalidArgumentError, match="upper: 256 given and 1024 needed"):
        gptq_sweep("E4_16", target, upper[:16, :16], d_row)
    with pytest.raises(InvalidArgumentError, match="d_row: 2 given and 3 needed"):
        gptq_sweep("E4_16", target, upper, d_row[:2])
    with pytest.raises(InvalidArgumentError, match="1 to 1024"):
        gptq_sweep("E4_16", np.ones((1, 2048), "f4"), upper, d_row)
    groups = np.ones((2, 16, 16), "f4")
    with pytest.raises(InvalidArgumentError, match="levels: 48 given and 96 needed"):
        gptq_descend(
            "E4_16", target, moved, moved, upper, groups, groups, d_row, scale_bytes, levels[:, :16]
        )
