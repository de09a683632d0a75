"""K4_32: linear groups with 8-bit scales and minima, which hold Q4_K."""

from __future__ import annotations

import numpy as np
import pytest
from edgellm.converters.quant import decode_matrix, encode_matrix
from edgellm.converters.quant.k4 import pack_k4_32

from edgellm.edgefile import tensor_bytes
from edgellm.errors import NumericError


def random_parts(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, ...]:
    """(d and dmin of both signs, some subnormal; scales and minima of whole bytes; codes)."""
    rng = np.random.default_rng(seed)
    n_rows, n_cols = shape
    heads, groups = (n_rows, -(-n_cols // 256)), (n_rows, -(-n_cols // 32))
    d, dmin = (rng.normal(0, 0.01, heads).astype(np.float16) for _ in range(2))
    d[0, 0] = -6e-8  # the smallest there is
    sc, mins = (rng.integers(0, 256, groups).astype(np.uint8) for _ in range(2))
    return d, dmin, sc, mins, rng.integers(0, 16, shape).astype(np.uint8)


def meant(
    d: np.ndarray, dmin: np.ndarray, sc: np.ndarray, mins: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """In the order of ggml's dequantize_row_q4_K: two products, their difference."""
    n_cols = codes.shape[1]

    def products(heads: np.ndarray, multiples: np.ndarray) -> np.ndarray:
        wide = np.repeat(heads.astype(np.float32), 8, axis=1)[:, : multiples.shape[1]]
        return np.repeat(wide * multiples, 32, axis=1)[:, :n_cols]

    return products(d, sc) * codes.astype(np.float32) - products(dmin, mins)


@pytest.mark.parametrize("shape", [(1, 1), (16, 256), (17, 260), (40, 812)])
def test_packed_parts_decode_to_their_weights_in_python_and_natively(
    shape: tuple[int, int],
) -> None:
    from edgellm._native import decode_rows

    parts = random_parts(shape)
    data = pack_k4_32(*parts)
    assert data.size == tensor_bytes("K4_32", *shape)
    ours = decode_matrix("K4_32", data, *shape)
    np.testing.assert_array_equal(ours.view(np.uint32), meant(*parts).view(np.uint32))
    theirs = decode_rows("K4_32", data, *shape, 0, shape[0])
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_the_bytes_lie_where_the_format_says() -> None:
    d, dmin, sc, mins, codes = random_parts((16, 320))
    data = pack_k4_32(d, dmin, sc, mins, codes)
    assert data[:64].view("<f4").tolist() == [1.0] * 16
    head = data[128:192]  # columns 256 and more
    assert head[:32].view("<f2").tolist() == d[:, 1].tolist()
    assert head[32:].view("<f2").tolist() == dmin[:, 1].tolist()
    tile = data[192 + 9 * 288 : 192 + 10 * 288]  # columns 288 to 319
    assert tile[:16].tolist() == sc[:, 9].tolist()
    assert tile[16:32].tolist() == mins[:, 9].tolist()
    row, column = 5, 22  # quad 5: the high nibbles of group 2
    assert tile[32 + 2 * 64 + 4 * row + column % 4] >> 4 == codes[row, 288 + column]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 4e4])
def test_the_encoder_searches_scale_and_minimum_whatever_their_size(scale: float) -> None:
    rng = np.random.default_rng(3)
    weights = np.float32(scale) * rng.standard_normal((48, 600), dtype=np.float32)
    weights[:, ::5] += np.float32(2 * scale)  # not symmetric
    error = _rms(weights, encoded(weights))
    groups = np.pad(weights, ((0, 0), (0, 8))).reshape(-1, 32)
    low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    step = (high - low) / 15  # the plain minimum and maximum
    assert error < 0.97 * _rms(groups, np.round((groups - low) / step) * step + low)
    importance = np.where(np.arange(600) % 7 == 0, 100, 1).astype(np.float32)
    assert _rms(weights[:, ::7], encoded(weights, importance)[:, ::7]) < 0.8 * error


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.7])
def test_groups_of_one_value_keep_it(value: float) -> None:
    weights = np.full((3, 40), value, dtype=np.float32)
    np.testing.assert_allclose(encoded(weights), weights, rtol=2e-3)


@pytest.mark.parametrize("largest", [np.nan, np.inf, 3e5])
def test_weights_that_no_f16_scale_reaches_are_refused(largest: float) -> None:
    weights = np.ones((20, 40), dtype=np.float32)
    weights[17, 5] = largest
    with pytest.raises(NumericError, match="row 17, column 5"):
        encode_matrix("K4_32", weights, None, 1)


def encoded(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    return decode_matrix("K4_32", encode_matrix("K4_32", weights, importance, 1), *weights.shape)


def _rms(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(np.sqrt(np.square(wanted - got).mean() / np.square(wanted).mean()))
