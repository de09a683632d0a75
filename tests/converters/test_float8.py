"""8-bit floats: every code, every bfloat16 and random float32, against torch bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgellm.converters.packed.float8 import FLOAT8_DTYPES, LARGEST, decode_float8, encode_float8
from hypothesis import given
from hypothesis import strategies as st

TORCH = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
CODES = np.arange(256, dtype=np.uint8)
both = pytest.mark.parametrize("dtype", FLOAT8_DTYPES)


def torch_codes(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint8]:
    return torch.from_numpy(values.copy()).to(TORCH[dtype]).view(torch.uint8).numpy()


def assert_encoded_as_in_torch(values: npt.NDArray[np.float32], dtype: str) -> None:
    got, wanted = encode_float8(values, dtype), torch_codes(values, dtype)
    bad = np.flatnonzero(got != wanted)
    assert bad.size == 0, [(values[i], int(got[i]), int(wanted[i])) for i in bad[:5]]


@both
def test_all_codes_decode_to_the_bits_of_torch(dtype: str) -> None:
    wanted = torch.from_numpy(CODES.copy()).view(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(
        decode_float8(CODES, dtype).view(np.uint32), wanted.view(np.uint32)
    )
    finite = wanted[np.isfinite(wanted)]
    assert finite.max() == LARGEST[dtype]


@both
def test_all_codes_come_back_from_their_values(dtype: str) -> None:
    values = decode_float8(CODES, dtype)
    assert_encoded_as_in_torch(values, dtype)
    kept = np.isfinite(values)
    np.testing.assert_array_equal(encode_float8(values, dtype)[kept], CODES[kept])


@both
def test_every_bfloat16_encodes_as_in_torch(dtype: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    assert_encoded_as_in_torch(bits.view(np.float32), dtype)


@both
def test_random_float32_of_every_exponent_encode_as_in_torch(dtype: str) -> None:
    rng = np.random.default_rng(8)
    bits = rng.integers(0, 1 << 32, 1 << 20, dtype=np.uint64).astype(np.uint32)
    assert_encoded_as_in_torch(bits.view(np.float32), dtype)


@both
def test_ties_and_their_neighbours_encode_as_in_torch(dtype: str) -> None:
    """Half-way between all neighbouring values, and one float32 to either side."""
    levels = np.sort(decode_float8(CODES[:128], dtype))
    levels = levels[np.isfinite(levels)].astype(np.float64)
    step = levels[-1] - levels[-2]
    edges = np.append(levels, levels[-1] + step)
    ties = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    near = [ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf))]
    values = np.concatenate(near)
    assert_encoded_as_in_torch(np.concatenate([values, -values]), dtype)


@both
@given(bits=st.integers(0, (1 << 32) - 1))
def test_any_float32_encodes_as_in_torch(dtype: str, bits: int) -> None:
    assert_encoded_as_in_torch(np.array([bits], dtype=np.uint32).view(np.float32), dtype)


def test_what_is_too_large_saturates_in_e4m3_and_overflows_in_e5m2() -> None:
    large = np.array([465, 1e30, np.inf, -np.inf], dtype=np.float32)
    assert encode_float8(large, "F8_E4M3").tolist() == [0x7E, 0x7E, 0x7E, 0xFE]
    assert encode_float8(large * 200, "F8_E5M2").tolist() == [0x7C, 0x7C, 0x7C, 0xFC]
