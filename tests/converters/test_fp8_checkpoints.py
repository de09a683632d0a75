"""FP8 checkpoints: every convention of scales is read as torch would, every contradiction named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgellm.converters import convert
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.packed.float8 import encode_float8
from edgellm.converters.quant import decode_matrix
from safetensors.torch import save_file

from edgellm import edgefile
from edgellm.errors import EdgeError, FormatError, NumericError, UnsupportedError
from golden.tiny import CASES, hf_config, llama_shapes, named_weights

CASE = {**CASES[1], "hidden_size": 160, "intermediate_size": 200, "head_dim": 32}
CONFIG = hf_config(CASE)
NAME = "model.layers.1.mlp.down_proj"
BLOCK = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
BLOCK |= {"activation_scheme": "dynamic", "modules_to_not_convert": ["lm_head"]}


def compressed(**weights: Any) -> dict[str, Any]:
    scheme = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    return {**config, "config_groups": groups, "ignore": ["lm_head"]}


# name: quantization_config, name of the scales, block (None: all), shape of one matrix' scales
Case = tuple[dict[str, Any], str, tuple[int | None, int | None], str]
SCHEMES: dict[str, Case] = {
    "blocks": (BLOCK, "weight_scale_inv", (128, 128), "grid"),
    "odd blocks": ({**BLOCK, "weight_block_size": [48, 33]}, "weight_scale_inv", (48, 33), "grid"),
    "tensor": ({"quant_method": "fp8"}, "weight_scale", (None, None), "number"),
    "tensor of one": ({"quant_method": "fp8"}, "weight_scale", (None, None), "vector"),
    "rows": ({"quant_method": "fp8"}, "weight_scale", (1, None), "grid"),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, "weight_scale", (1, None), "grid"),
    "ct tensor": (compressed(strategy="tensor"), "weight_scale", (None, None), "vector"),
    "ct channel": (compressed(strategy="channel"), "weight_scale", (1, None), "grid"),
    "ct channel 1-d": (compressed(strategy="channel"), "weight_scale", (1, None), "vector"),
    "ct group": (compressed(strategy="group", group_size=32), "weight_scale", (1, 32), "grid"),
    "ct block": (
        compressed(strategy="block", block_structure=[128, 128]),
        "weight_scale",
        (128, 128),
        "grid",
    ),
    "ct block, older": (
        compressed(strategy="block", block_structure="64x128"),
        "weight_scale",
        (64, 128),
        "grid",
    ),
}
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def packed_tensors(
    case: Case, dtype: str = "F8_E4M3", scale_dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], dict[str, npt.NDArray[np.float32]]]:
    """(what the files hold, what that means): layer matrices packed, all else in bfloat16."""
    _, leaf, (block_rows, block_cols), form = case
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in llama_shapes(CONFIG).items():
        values = torch.from_numpy(named_weights(name, shape))
        if "proj" not in name:
            stored[name] = values.to(torch.bfloat16)
            meant[name] = stored[name].float().numpy()
            continue
        codes = (values * 100).to(FLOAT8[dtype])
        n_rows, n_cols = block_rows or shape[0], block_cols or shape[1]
        grid = (-(-shape[0] // n_rows), -(-shape[1] // n_cols))
        scales = (torch.rand(grid, generator=torch.manual_seed(3)) / 64 + 0.01).to(scale_dtype)
        whole = scales.float().repeat_interleave(n_rows, 0).repeat_interleave(n_cols, 1)
        stored[name] = codes
        stored[name.replace("weight", leaf)] = {
            "grid": scales,
            "vector": scales.reshape(-1),
            "number": scales.reshape(-1)[0].clone(),
        }[form]
        meant[name] = (codes.float() * whole[: shape[0], : shape[1]]).numpy()
    return stored, meant


def write(directory: Path, quantization: Any, tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "quantization_config": quantization}
    if quantization is None:
        del config["quantization_config"]
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("name", SCHEMES)
def test_every_convention_reads_as_torch_multiplies(name: str, dtype: str, tmp_path: Path) -> None:
    stored, meant = packed_tensors(SCHEMES[name], dtype)
    with Checkpoint(write(tmp_path / "src", SCHEMES[name][0], stored)) as checkpoint:
        assert set(checkpoint.tensors) == set(meant)
        for tensor, wanted in meant.items():
            n_rows = wanted.shape[0] if wanted.ndim == 2 else 1
            parts = [checkpoint.read_rows(tensor, 0, n_rows)]
            if n_rows > 40:  # rows read from the middle of a block meet the same scales
                parts = [checkpoint.read_rows(tensor, *part) for part in ((0, 7), (7, n_rows - 7))]
            np.testing.assert_array_equal(np.concatenate(parts).reshape(wanted.shape), wanted)


@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float16])
def test_scales_may_be_of_16_bits(scale_dtype: torch.dtype, tmp_path: Path) -> None:
    stored, meant = packed_tensors(SCHEMES["blocks"], scale_dtype=scale_dtype)
    with Checkpoint(write(tmp_path / "src", BLOCK, stored)) as checkpoint:
        got = checkpoint.read_rows(NAME + ".weight", 0, 160)
    np.testing.assert_array_equal(got, meant[NAME + ".weight"])


def test_a_cast_without_scales_is_read_as_it_is(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["tensor"], "F8_E5M2")
    stored = {name: value for name, value in stored.items() if not name.endswith("_scale")}
    with Checkpoint(write(tmp_path / "src", None, stored)) as checkpoint:
        got = checkpoint.read_rows(NAME + ".weight", 0, 160)
    np.testing.assert_array_equal(got, stored[NAME + ".weight"].float().numpy())


def test_an_fp8_checkpoint_converts_and_says_which_scales_it_left_out(tmp_path: Path) -> None:
    stored, meant = packed_tensors(SCHEMES["blocks"])
    stored[NAME + ".input_scale"] = torch.tensor(0.5)
    stored["model.layers.0.self_attn.k_scale"] = torch.tensor([0.5])
    source = write(tmp_path / "src", {**BLOCK, "activation_scheme": "static"}, stored)
    report = convert(source, tmp_path / "model.edge", format="F16")
    left_out = [warning for warning in report.warnings if "activations" in warning]
    assert left_out == ["scales of activations left out: 1 x input_scale, 1 x k_scale"]
    header = edgefile.read_header(tmp_path / "model.edge")
    info = header.tensors["layers.1.ffn_down"]
    data = np.frombuffer(edgefile.read_tensor(header, info.name), np.uint8)
    got = decode_matrix("F16", data, *info.shape)
    np.testing.assert_array_equal(got, meant[NAME + ".weight"].astype(np.float16))


def test_a_key_nobody_knows_is_named(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["blocks"])
    with Checkpoint(write(tmp_path / "src", {**BLOCK, "novel": 1}, stored)) as checkpoint:
        assert any("novel" in warning for warning in checkpoint.warnings)


@pytest.mark.parametrize(
    ("quantization", "named"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": ["fp8"]}, "fp8"),
        ({"bits": 8}, "without a name"),
        ({**BLOCK, "fmt": "e3m4"}, "e3m4"),
        ({**BLOCK, "expert_dtype": "fp4"}, "fp4"),
        ({**compressed(strategy="tensor"), "format": "nvfp4-pack-quantized"}, "nvfp4"),
        (compressed(strategy="tensor", type="int"), "compressed-tensors"),
        (compressed(strategy="tensor", dynamic=True), "dynamic"),
        (compressed(strategy="tensor_group"), "tensor_group"),
        ({**compressed(strategy="tensor"), "transform_config": {"a": 1}}, "transform_config"),
        ({**compressed(strategy="tensor"), "sparsity_config": {"format": "x"}}, "sparsity"),
    ],
)
def test_a_scheme_that_is_not_understood_is_named(
    quantization: Any, named: str, tmp_path: Path
) -> None:
    stored, _ = packed_tensors(SCHEMES["tensor"])
    with pytest.raises(UnsupportedError, match=named) as caught:
        Checkpoint(write(tmp_path / "src", quantization, stored))
    assert caught.value.code == "spec_unsupported"


@pytest.mark.parametrize(
    ("quantization", "code"),
    [
        ("fp8", "json_type"),
        ({**BLOCK, "weight_block_size": [128, 0]}, "json_type"),
        ({**BLOCK, "weight_block_size": [128, True]}, "json_type"),
        ({**BLOCK, "weight_block_size": 128}, "json_type"),
        (compressed(strategy="block", block_structure="128x"), "json_type"),
        (compressed(strategy="group"), "json_type"),
        ({**BLOCK, "weight_block_size": [64, 128]}, "tensor_shape"),
        ({"quant_method": "fp8"}, "tensor_shape"),
        (compressed(strategy="channel"), "tensor_shape"),
    ],
)
def test_a_config_that_contradicts_itself_or_the_scales_is_refused(
    quantization: Any, code: str, tmp_path: Path
) -> None:
    stored, _ = packed_tensors(SCHEMES["blocks"])
    renamed = {name.replace("_scale_inv", "_scale"): value for name, value in stored.items()}
    with pytest.raises(FormatError) as caught:
        Checkpoint(write(tmp_path / "src", quantization, renamed))
    assert caught.value.code == code


def changed(change: str) -> dict[str, torch.Tensor]:
    stored, _ = packed_tensors(SCHEMES["blocks"])
    scale = stored[NAME + ".weight_scale_inv"]
    if change == "no scale":
        del stored[NAME + ".weight_scale_inv"]
    elif change == "two scales":
        stored[NAME + ".weight_scale"] = scale.clone()
    elif change == "whole numbers":
        stored[NAME + ".weight_scale_inv"] = scale.to(torch.int32)
    elif change == "a vector":
        stored["model.norm.weight"] = stored["model.norm.weight"].to(torch.float8_e4m3fn)
    else:
        stored = {
            name: value.to(torch.bfloat16) if "proj.weight" in name else value
            for name, value in stored.items()
            if "scale" not in name
        }
    return stored


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("no scale", "tensor_missing"),
        ("two scales", "tensor_missing"),
        ("whole numbers", "tensor_dtype"),
        ("a vector", "tensor_dtype"),
        ("nothing packed", "tensor_dtype"),
    ],
)
def test_tensors_that_do_not_fit_the_scheme_are_refused(
    change: str, code: str, tmp_path: Path
) -> None:
    with pytest.raises(EdgeError) as caught:
        Checkpoint(write(tmp_path / "src", BLOCK, changed(change)))
    assert caught.value.code == code


def test_scales_without_a_scheme_are_not_ignored(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["tensor"])
    with pytest.raises(UnsupportedError, match="weight_scale"):
        convert(write(tmp_path / "src", None, stored), tmp_path / "model.edge")


def test_a_scale_or_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["blocks"])
    stored[NAME + ".weight_scale_inv"][1, 1] = float("inf")
    with pytest.raises(NumericError, match=NAME):
        convert(write(tmp_path / "scale", BLOCK, stored), tmp_path / "model.edge")
    stored, _ = packed_tensors(SCHEMES["blocks"])
    nan = encode_float8(np.array([np.nan], np.float32), "F8_E4M3")
    stored[NAME + ".weight"].view(torch.uint8)[5, 5] = int(nan[0])
    with pytest.raises(NumericError, match=NAME):
        convert(write(tmp_path / "weight", BLOCK, stored), tmp_path / "model.edge")
