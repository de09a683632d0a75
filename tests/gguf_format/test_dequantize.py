"""Every type of GGUF against the package gguf, bit for bit, on random bytes."""

from __future__ import annotations

import numpy as np
import pytest
from edgellm.converters.gguf.dequantize import BLOCKS_AT_ONCE, dequantize
from edgellm.converters.gguf.exact import EXACT
from edgellm.converters.gguf.quantize import quantize
from edgellm.converters.gguf.types import BY_NAME, FORMATS, NUMBERS, PLAIN, ggml_type
from edgellm.converters.quant import QUANT_FORMATS, decode_matrix, encode_matrix

from edgellm import NumericError, UnsupportedError

gguf = pytest.importorskip("gguf", reason="the package gguf is the oracle here")


def random_bytes(name: str, n_rows: int, n_blocks: int) -> np.ndarray:
    """Any bytes: scales are anything, infinite, NaN and subnormal among them."""
    rng = np.random.default_rng(NUMBERS[name])
    n_bytes = BY_NAME[name].n_bytes
    if name in PLAIN:
        return rng.integers(0, 256, (n_rows, n_blocks * n_bytes), dtype=np.uint8)
    return rng.integers(0, 256, (n_rows, n_blocks, n_bytes), dtype=np.uint8).reshape(n_rows, -1)


def test_types_and_sizes_are_those_of_the_package() -> None:
    for name, kind in BY_NAME.items():
        number = gguf.GGMLQuantizationType[name]
        assert NUMBERS[name] == number
        assert gguf.GGML_QUANT_SIZES[number] == (kind.n_weights, kind.n_bytes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the package's own, of infinite scales
@pytest.mark.parametrize("name", BY_NAME)
def test_every_bit_is_the_packages(name: str) -> None:
    raw = random_bytes(name, 16, 24)
    wanted = gguf.dequantize(raw, gguf.GGMLQuantizationType[name])
    got = dequantize(raw, name)
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    is_nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(got), is_nan)
    # == and the sign of zero
    assert np.array_equal(
        got[~is_nan].view(np.uint32) | 0, wanted.astype(np.float32)[~is_nan].view(np.uint32) | 0
    )


def test_long_tensors_go_in_pieces() -> None:
    raw = random_bytes("Q8_0", 2, BLOCKS_AT_ONCE // 2 + 5)
    raw.reshape(2, -1, 34)[:, :, 1] &= 0x3B  # finite scales
    assert np.array_equal(dequantize(raw, "Q8_0")[1], dequantize(raw[1:], "Q8_0")[0])


def test_types_that_are_not_read_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="type IQ2_XXS cannot be read"):
        ggml_type(16, "model.gguf: tensor 'a'")
    with pytest.raises(UnsupportedError, match="number 77, which is not known"):
        ggml_type(77, "model.gguf: tensor 'a'")


def test_every_choice_is_a_format() -> None:
    for choice in FORMATS.values():
        assert choice.nearest in QUANT_FORMATS
    assert {name for name, choice in FORMATS.items() if choice.exact} == set(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_exact_formats_hold_the_very_numbers(name: str) -> None:
    exact = FORMATS[name].exact
    assert exact is not None
    raw = random_bytes(name, 21, 3)
    scales_at = {"TQ1_0": (52,), "TQ2_0": (64,), "Q4_K": (0, 2)}.get(name, (0,))
    for at in scales_at:
        raw.reshape(21, 3, -1)[:, :, at + 1] &= 0x3B  # finite scales
    n_cols = 3 * BY_NAME[name].n_weights
    wanted = dequantize(raw, name)
    assert np.array_equal(decode_matrix(exact, EXACT[name](raw), 21, n_cols), wanted)
    at = scales_at[-1]
    raw.reshape(21, 3, -1)[4, 1, at : at + 2] = 0xFF
    with pytest.raises(NumericError, match="not finite"):
        EXACT[name](raw)


def test_q8_0_and_l8_32_are_the_same_numbers_both_ways() -> None:
    weights = np.random.default_rng(8).standard_normal((21, 96)).astype(np.float32)
    weights[0, :32] = 0
    weights[1] *= np.float32(1e-4)  # subnormal scales
    weights[3, 33] = 127
    weights[3, 32:64:2] = 2.5  # a half between two levels
    raw = quantize(weights, "Q8_0")
    strips = EXACT["Q8_0"](raw)
    assert np.array_equal(encode_matrix("L8_32", weights, None, 1), strips)
    decoded = decode_matrix("L8_32", strips, 21, 96)
    assert np.array_equal(quantize(decoded, "Q8_0"), raw)
