"""L4_32: the linear 4-bit format, and finding the grid that trained weights lie on."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.calibrate import CalibrationTokens
from edgellm.converters.quant import decode_matrix, encode_matrix
from edgellm.converters.quant.l4 import pack_l4_32
from edgellm.converters.quant.methods import Method, quantize
from edgellm.converters.quant.methods.grid import find_grid
from edgellm.converters.recipe import CalibrationOptions, Recipe, matrix_rule, vector_rules
from safetensors.numpy import load_file, save_file

from edgellm.edgefile import read_header, read_tensor, tensor_bytes
from edgellm.errors import InvalidArgumentError, NumericError, UnsupportedError
from golden.tiny import CASE_NAMES, case_named, tiny_checkpoint

F32Array = npt.NDArray[np.float32]
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
SHAPES = ((1, 1), (16, 32), (17, 33), (40, 172))


def random_parts(
    shape: tuple[int, int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scales of both signs, zero points of a whole byte, codes)."""
    rng = np.random.default_rng(seed)
    n_rows, n_cols = shape
    groups = (n_rows, -(-n_cols // 32))
    scales = rng.normal(0, 0.01, groups).astype(np.float16)
    zeros = rng.integers(0, 256, groups).astype(np.uint8)
    return scales, zeros, rng.integers(0, 16, shape).astype(np.uint8)


def meant(scales: np.ndarray, zeros: np.ndarray, codes: np.ndarray) -> F32Array:
    n_cols = codes.shape[1]
    s, z = (np.repeat(x.astype(np.float32), 32, axis=1)[:, :n_cols] for x in (scales, zeros))
    return s * (codes.astype(np.float32) - z)


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_parts_decode_to_their_products_in_python_and_natively(
    shape: tuple[int, int],
) -> None:
    from edgellm._native import decode_rows

    parts = random_parts(shape)
    data = pack_l4_32(*parts)
    assert data.size == tensor_bytes("L4_32", *shape)
    ours = decode_matrix("L4_32", data, *shape)
    np.testing.assert_array_equal(ours, meant(*parts))
    theirs = decode_rows("L4_32", data, *shape, 0, shape[0])
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


def test_the_bytes_lie_where_the_format_says() -> None:
    scales, zeros, codes = random_parts((16, 64))
    data = pack_l4_32(scales, zeros, codes)
    assert data[:64].view("<f4").tolist() == [1.0] * 16
    tile = data[64 + 304 : 64 + 2 * 304]  # columns 32 to 63
    assert tile[:32].view("<f2").tolist() == scales[:, 1].tolist()
    assert tile[32:48].tolist() == zeros[:, 1].tolist()
    row, column = 5, 22  # quad 5: the high nibbles of group 2
    assert tile[48 + 2 * 64 + 4 * row + column % 4] >> 4 == codes[row, 32 + column]


def test_the_encoder_searches_scale_and_zero_point() -> None:
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((64, 256), dtype=np.float32)
    weights[:, ::5] += 2  # not symmetric
    error = _rms(weights, decode_matrix("L4_32", encode_matrix("L4_32", weights, None, 1), 64, 256))
    groups = weights.reshape(-1, 32)
    low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    step = (high - low) / 15  # the plain minimum and maximum
    zero = np.round(-low / step)
    plain = (np.clip(np.round(groups / step) + zero, 0, 15) - zero) * step
    assert error < 0.97 * _rms(groups, plain)
    importance = np.where(np.arange(256) % 7 == 0, 100, 1).astype(np.float32)
    weighted = decode_matrix("L4_32", encode_matrix("L4_32", weights, importance, 1), 64, 256)
    assert _rms(weights[:, ::7], weighted[:, ::7]) < 0.8 * error


def _rms(wanted: F32Array, got: F32Array) -> float:
    return float(np.sqrt(np.square(wanted - got).mean() / np.square(wanted).mean()))


@pytest.mark.parametrize("format", ["L4_32", "L8_32"])
@pytest.mark.parametrize("largest", [np.nan, np.inf, 3e5])
def test_weights_that_no_f16_scale_reaches_are_refused(largest: float, format: str) -> None:
    weights = np.ones((20, 40), dtype=np.float32)
    weights[17, 5] = largest
    with pytest.raises(NumericError, match="row 17, column 5"):
        encode_matrix(format, weights, None, 1)


@pytest.mark.parametrize(
    ("format", "method"), [("L4_32", "gptq"), ("L4_32", "gptaq"), ("L8_32", "importance")]
)
def test_methods_that_linear_formats_do_not_have_are_refused(format: str, method: str) -> None:
    with pytest.raises(UnsupportedError, match="its method must be 'rtn'"):
        matrix_rule("*", format, None, Method(method))
    with pytest.raises(UnsupportedError, match="'grid' is for L4_32"):
        matrix_rule("*", "E4_16", None, Method("grid"))


# ---- grids


def grid_weights(dtype: str, shape: tuple[int, int], scale_dtype: str, seed: int = 1) -> F32Array:
    """As a trainer stores them: scale * (code - zero), rounded to dtype, and a group of zeros."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.001, 0.1, (shape[0], -(-shape[1] // 32)))
    scales = scales.astype(DTYPES[scale_dtype]).astype(np.float32)
    scales[0, 0] = 0
    zeros = rng.integers(0, 16, scales.shape).astype(np.float32)
    codes = rng.integers(0, 16, shape).astype(np.uint8)
    return meant(scales, zeros, codes).astype(DTYPES[dtype]).astype(np.float32)


@pytest.mark.parametrize(
    ("dtype", "scale_dtype"),
    [("F32", "F16"), ("F16", "F16"), ("BF16", "F16"), ("BF16", "BF16"), ("F32", "BF16")],
)
@pytest.mark.parametrize("shape", [(16, 32), (33, 100), (64, 256)])
def test_a_grid_is_found_to_the_last_bit_of_the_stored_dtype(
    dtype: str, scale_dtype: str, shape: tuple[int, int]
) -> None:
    weights = grid_weights(dtype, shape, scale_dtype)
    strips = quantize(weights, "L4_32", Method("grid"), None, 1, dtype)
    decoded = decode_matrix("L4_32", strips, *shape)
    np.testing.assert_array_equal(decoded.astype(DTYPES[dtype]).astype(np.float32), weights)
    if dtype == "F32":
        np.testing.assert_array_equal(decoded, weights)


def test_q4_0_style_groups_keep_their_zero_point_of_eight() -> None:
    rng = np.random.default_rng(2)
    scales = rng.uniform(0.001, 0.1, (8, 4)).astype(np.float16)
    scales[3] *= -1  # Q4_0's scale is negative where the extreme weight is positive
    codes = rng.integers(0, 16, (8, 128)).astype(np.uint8)
    codes[:, ::32], codes[:, 1::32] = 0, 13
    weights = meant(scales, np.full((8, 4), 8), codes)
    found = find_grid(weights, "F32")
    assert found.is_on.all()
    np.testing.assert_array_equal(found.scales, np.abs(scales))
    assert (found.zeros[:3] == 8).all()
    np.testing.assert_array_equal(decode_matrix("L4_32", found.strips(), 8, 128), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_off_the_grid_are_counted(dtype: str) -> None:
    weights = grid_weights(dtype, (32, 64), "F16")
    weights[4, 40] *= 1.0 + 2.0**-6
    weights[9, 3] = np.nan
    noise = np.random.default_rng(5).standard_normal(32).astype(DTYPES[dtype])
    weights[20, :32] = noise.astype(np.float32)
    is_on = find_grid(weights, dtype).is_on
    assert sorted(map(tuple, np.argwhere(~is_on))) == [(4, 1), (9, 0), (20, 0)]
    with pytest.raises(UnsupportedError, match=r"3 of its 64 groups of 32 weights \(4.69 %\)"):
        quantize(weights, "L4_32", Method("grid"), None, 1, dtype)


def test_a_scale_that_f16_cannot_hold_is_off_the_grid_of_float32() -> None:
    scale = np.float32(0.1)  # 24 bits of it
    weights = np.arange(-8, 8, dtype=np.float32).repeat(2)[None] * scale
    assert not find_grid(weights, "F32").is_on.any()
    rounded = weights.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert find_grid(rounded, "BF16").is_on.all()


# ---- conversions


GRID = Recipe(
    "qat",
    (
        *vector_rules(),
        matrix_rule("layers.*", "L4_32", None, Method("grid")),
        matrix_rule("*", "F16", None),
    ),
)


def trained_on_a_grid(directory: Path) -> Path:
    """A tiny checkpoint in bfloat16 whose layers' matrices lie on a Q4_0-like grid."""
    tiny_checkpoint(directory, case_named(CASE_NAMES[0]))
    source = next(directory.rglob("model.safetensors")).parent
    weights = load_file(source / "model.safetensors")
    for seed, (name, value) in enumerate(weights.items()):
        if "proj" in name:
            weights[name] = grid_weights("BF16", value.shape, "F16", seed)
    stored = {name: value.astype(ml_dtypes.bfloat16) for name, value in weights.items()}
    save_file(stored, source / "model.safetensors")
    return source


def test_a_checkpoint_on_a_grid_converts_without_rounding(tmp_path: Path) -> None:
    source = trained_on_a_grid(tmp_path)
    report = convert(source, tmp_path / "out.edge", recipe=GRID)
    stored = load_file(source / "model.safetensors")
    header = read_header(tmp_path / "out.edge")
    n_checked = 0
    for name, info in header.tensors.items():
        if info.format != "L4_32":
            continue
        data = np.frombuffer(read_tensor(header, name), dtype=np.uint8)
        decoded = decode_matrix("L4_32", data, *info.shape).astype(ml_dtypes.bfloat16)
        leaf = {"attn_q": "self_attn.q_proj", "ffn_down": "mlp.down_proj"}.get(info.role)
        if leaf is not None:
            layer = name.split(".")[1]
            wanted = stored[f"model.layers.{layer}.{leaf}.weight"]
            np.testing.assert_array_equal(decoded.astype(np.float32), wanted.astype(np.float32))
            n_checked += 1
    assert n_checked >= 4
    assert {t.format for t in report.tensors} == {"L4_32", "F16"}
    recipe = json.loads(bytes(read_tensor(header, "recipe")))
    assert [rule["method"]["name"] for rule in recipe["rules"] if "method" in rule] == ["grid"]


def test_a_tensor_off_the_grid_is_named_with_its_share(tmp_path: Path) -> None:
    source = trained_on_a_grid(tmp_path)
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][7, 5] *= 1.02
    save_file(weights, source / "model.safetensors")
    n_rows, n_cols = weights[name].shape
    n_groups = n_rows * -(-n_cols // 32)
    with pytest.raises(UnsupportedError, match=rf"'{name}'.*: 1 of its {n_groups} groups"):
        convert(source, tmp_path / "out.edge", recipe=GRID)
    assert not (tmp_path / "out.edge").exists()


def test_a_calibrated_conversion_keeps_the_grid_beside_gptq(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = trained_on_a_grid(tmp_path)
    rules = (
        *vector_rules(),
        matrix_rule("ffn_down", "L4_32", None, Method("grid")),
        matrix_rule("attn_q", "E4_16", None, Method("gptq", n_passes=0)),
        matrix_rule("*", "E8_32", None),
    )
    recipe = Recipe("mixed", rules, CalibrationOptions(n_windows=2, window_tokens=8))
    tokens = CalibrationTokens(np.arange(3, 19, dtype=np.int32).reshape(2, 8))
    convert(source, tmp_path / "out.edge", recipe=recipe, calibration=tokens)
    stored = load_file(source / "model.safetensors")
    header = read_header(tmp_path / "out.edge")
    info = header.tensors["layers.0.ffn_down"]
    data = np.frombuffer(read_tensor(header, info.name), dtype=np.uint8)
    decoded = decode_matrix("L4_32", data, *info.shape).astype(ml_dtypes.bfloat16)
    wanted = stored["model.layers.0.mlp.down_proj.weight"]
    np.testing.assert_array_equal(decoded.astype(np.float32), wanted.astype(np.float32))


def test_text_for_calibration_is_refused_where_nothing_uses_it(tmp_path: Path) -> None:
    source = trained_on_a_grid(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("text", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="uses no calibration text"):
        convert(source, tmp_path / "out.edge", recipe=GRID, calibration=[text])
