"""The numpy decoders: equal to a packer written from the layout, and to the native ones."""

from __future__ import annotations

import numpy as np
import pytest
from edgellm.converters.quant import QUANT_FORMATS, decode_matrix, encode_matrix, quant_format
from edgellm.converters.quant import tiles as t

from edgellm.edgefile import FORMATS, tensor_bytes
from edgellm.errors import FormatError, NumericError, UnsupportedError
from golden import packers

E_FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32")
ENCODED = (*E_FORMATS, "K4_32", "L4_32", "L8_32", "F16")
# Relative RMS error of plain rounding for normal weights; a wrong nibble or scale order costs ~1.
ROUNDING_ERROR = {
    "E2_16": 0.45,
    "E3_32": 0.22,
    "E4_16": 0.11,
    "E4_32": 0.13,
    "E6_16": 0.03,
    "E8_32": 0.01,
    "K4_32": 0.11,
    "L4_32": 0.11,
    "L8_32": 0.01,
    "F16": 4e-4,
}


def random_weights(n_rows: int, n_cols: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.1, 3.0, (n_rows, 1))
    return (rows * rng.standard_normal((n_rows, n_cols))).astype(np.float32)


def relative_rms(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(np.sqrt(np.square(got - wanted).sum() / np.square(wanted).sum()))


def test_the_formats_here_are_those_of_the_container() -> None:
    assert set(QUANT_FORMATS) == set(FORMATS)


@pytest.mark.parametrize("shape", [(1, 1), (16, 32), (17, 33), (40, 172), (3, 500)])
@pytest.mark.parametrize("format", E_FORMATS)
def test_decoding_what_the_packer_wrote_gives_the_weights_back(
    format: str, shape: tuple[int, int]
) -> None:
    weights = random_weights(*shape)
    data = packers.encode(format, weights)
    assert data.size == tensor_bytes(format, *shape)
    assert relative_rms(weights, decode_matrix(format, data, *shape)) < ROUNDING_ERROR[format]


@pytest.mark.parametrize("format", ENCODED)
@pytest.mark.parametrize("shape", [(16, 32), (37, 172), (5, 96)])
def test_the_encoder_in_use_is_at_least_as_good_as_plain_rounding(
    format: str, shape: tuple[int, int]
) -> None:
    weights = random_weights(*shape)
    data = encode_matrix(format, weights, None, 1)
    error = relative_rms(weights, decode_matrix(format, data, *shape))
    assert error < ROUNDING_ERROR[format]
    if format in E_FORMATS:  # those that packers.py has
        plain = decode_matrix(format, packers.encode(format, weights), *shape)
        assert error <= 1.02 * relative_rms(weights, plain)


@pytest.mark.parametrize("format", ENCODED)
def test_python_and_native_decode_the_same_bytes_to_the_same_bits(format: str) -> None:
    from edgellm._native import decode_rows

    shape = (37, 172)
    data = encode_matrix(format, random_weights(*shape), None, 1)
    ours = decode_matrix(format, data, *shape)
    theirs = decode_rows(format, data, *shape, 0, shape[0])
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("format", ENCODED)
def test_blocks_of_whole_strips_concatenate_to_the_tensor(format: str) -> None:
    weights = random_weights(53, 70)
    whole = encode_matrix(format, weights, None, 2)
    parts = [encode_matrix(format, weights[a : a + 16], None, 1) for a in range(0, 53, 16)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("format", ENCODED)
def test_all_zero_rows_stay_zero(format: str) -> None:
    weights = random_weights(20, 40)
    weights[3] = 0
    decoded = decode_matrix(format, encode_matrix(format, weights, None, 1), 20, 40)
    assert not decoded[3].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", ENCODED)
def test_weights_that_are_not_finite_are_refused(format: str, bad: float) -> None:
    weights = random_weights(20, 40)
    weights[17, 5] = bad
    with pytest.raises(NumericError, match="17"):
        encode_matrix(format, weights, None, 1)


def test_weights_too_large_for_f16_are_refused_with_their_place() -> None:
    weights = random_weights(20, 40)
    weights[2, 7] = 70000.0
    with pytest.raises(NumericError, match="row 2, column 7"):
        encode_matrix("F16", weights, None, 1)


def test_wrong_sizes_and_names_are_typed_errors() -> None:
    with pytest.raises(FormatError):
        decode_matrix("E4_16", np.zeros(100, np.uint8), 16, 32)
    with pytest.raises(UnsupportedError, match="E5_99"):
        quant_format("E5_99")


def test_tile_packing_is_a_permutation() -> None:
    """Element (row, column) of a tile lands where tiles.h says."""
    values = np.arange(512, dtype=np.uint16).reshape(16, 32)
    nibbles = (values % 16).astype(np.uint8)
    packed = t.pack_nibbles(nibbles)
    for row, column in [(0, 0), (15, 31), (3, 5), (9, 20)]:
        quad, c = divmod(column, 4)
        byte = packed[(quad // 2) * 64 + row * 4 + c]
        assert (byte >> 4 if quad % 2 else byte & 15) == nibbles[row, column]
    np.testing.assert_array_equal(t.unpack_nibbles(packed), nibbles)
    pairs = (values % 4).astype(np.uint8)
    packed = t.pack_pairs(pairs)
    for row, column in [(0, 0), (15, 31), (3, 5), (9, 20)]:
        quad, c = divmod(column, 4)
        byte = packed[(quad // 4) * 64 + row * 4 + c]
        assert byte >> (2 * (quad % 4)) & 3 == pairs[row, column]
    np.testing.assert_array_equal(t.unpack_pairs(packed), pairs)
    triples = (values % 8).astype(np.uint8)
    packed = t.pack_triples(triples)
    for row, column in [(0, 0), (15, 23), (3, 5), (9, 25), (15, 31)]:
        quad, c = divmod(column, 4)
        groups = packed.reshape(3, 64)[:, row * 4 + c]
        if quad < 6:
            found = groups[quad // 2] >> (4 * (quad % 2)) & 7
        else:
            found = sum((int(groups[j]) >> (4 * (quad % 2) + 3) & 1) << j for j in range(3))
        assert found == triples[row, column]
    np.testing.assert_array_equal(t.unpack_triples(packed), triples)
    np.testing.assert_array_equal(t.unpack_bytes(t.pack_bytes(nibbles)), nibbles)
