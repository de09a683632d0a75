"""GPTQ, AWQ and compressed-tensors checkpoints: every weight of the file is the checkpoint's own.

The packers here are written from the layouts' descriptions, one nibble at a time, not from the
reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert, plan_conversion
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.quant import decode_matrix
from safetensors.numpy import save_file

import edgellm
from edgellm.edgefile import read_header, read_tensor
from edgellm.errors import EdgeError, FormatError, NumericError, UnsupportedError
from golden.tiny import CASES, case_ids, hf_config, llama_shapes, named_weights

CASE = {**CASES[1], "hidden_size": 128, "intermediate_size": 192, "head_dim": 32}
CASE |= {"num_attention_heads": 4, "num_key_value_heads": 2}
CONFIG = hf_config(CASE)
NAME = "model.layers.1.mlp.down_proj"  # 192 inputs
ROLES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_o",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Arrays = dict[str, npt.NDArray[Any]]


def words(nibbles: list[npt.NDArray[np.uint32]]) -> npt.NDArray[np.int32]:
    """Eight arrays, the first in the lowest bits."""
    packed = np.zeros_like(nibbles[0], dtype=np.uint32)
    for j, part in enumerate(nibbles):
        packed |= part.astype(np.uint32) << np.uint32(4 * j)
    return packed.view(np.int32)


def gptq(stem: str, scales: Any, zeros: Any, codes: Any, *, stored: int = -1) -> Arrays:
    """stored: what is added to zero points. codes [n, k]; scales, zeros [n, groups]."""
    n_cols = codes.shape[1]
    z = (zeros.astype(np.int64) + stored).T
    index = np.arange(n_cols) // (n_cols // scales.shape[1])
    return {
        f"{stem}.qweight": words([codes.T[j::8] for j in range(8)]),
        f"{stem}.qzeros": words([z[:, j::8] for j in range(8)]),
        f"{stem}.scales": np.ascontiguousarray(scales.T),
        f"{stem}.g_idx": index.astype(np.int32),
    }


def awq(stem: str, scales: Any, zeros: Any, codes: Any) -> Arrays:
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {
        f"{stem}.qweight": words([codes.T[:, j::8] for j in order]),
        f"{stem}.qzeros": words([zeros.T[:, j::8] for j in order]),
        f"{stem}.scales": np.ascontiguousarray(scales.T),
    }


def compressed(stem: str, scales: Any, zeros: Any, codes: Any) -> Arrays:
    arrays: Arrays = {
        f"{stem}.weight_packed": words([codes[:, j::8] for j in range(8)]),
        f"{stem}.weight_scale": scales,
        f"{stem}.weight_shape": np.array(codes.shape, dtype=np.int64),
    }
    if (zeros != 8).any():
        arrays[f"{stem}.weight_zero_point"] = words([zeros[j::8] for j in range(8)])
    return arrays


def gptq_config(group: int, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False, **more}


def awq_config(group: int, **more: Any) -> dict[str, Any]:
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True}
    return {**config, "version": "gemm", **more}


def compressed_config(group: int, **weights: Any) -> dict[str, Any]:
    scheme = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": group}
    scheme |= {"strategy": "channel" if group == -1 else "group", "dynamic": False, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return {**config, "config_groups": groups, "ignore": ["lm_head"]}


def v2(stem: str, scales: Any, zeros: Any, codes: Any) -> Arrays:
    return gptq(stem, scales, zeros, codes, stored=0)


# name: quantization_config for a group size, packer, lowest and highest zero point
Scheme = tuple[Callable[[int], dict[str, Any]], Callable[..., Arrays], int, int]
SCHEMES: dict[str, Scheme] = {
    "gptq sym": (gptq_config, gptq, 8, 8),
    "gptq asym": (gptq_config, gptq, 1, 16),
    "gptq v2": (lambda g: gptq_config(g, checkpoint_format="gptq_v2"), v2, 0, 15),
    "awq": (awq_config, awq, 0, 15),
    "compressed sym": (compressed_config, compressed, 8, 8),
    "compressed asym": (lambda g: compressed_config(g, symmetric=False), compressed, 0, 15),
}


def packed_tensors(
    scheme: Scheme, group: int, scale_dtype: Any = np.float16
) -> tuple[Arrays, dict[str, npt.NDArray[np.float32]]]:
    """(what the files hold, what that means): layer matrices packed, all else in bfloat16."""
    _, pack, lowest, highest = scheme
    stored: Arrays = {}
    meant: dict[str, npt.NDArray[np.float32]] = {}
    rng = np.random.default_rng(7)
    for name, shape in llama_shapes(CONFIG).items():
        if "proj" not in name:
            stored[name] = named_weights(name, shape).astype(ml_dtypes.bfloat16)
            meant[name] = stored[name].astype(np.float32)
            continue
        n_rows, n_cols = shape
        grid = (n_rows, 1 if group == -1 else n_cols // group)
        scales = rng.uniform(0.005, 0.02, grid).astype(scale_dtype)
        zeros = rng.integers(lowest, highest + 1, grid)
        codes = rng.integers(0, 16, shape)
        stored |= pack(name.removesuffix(".weight"), scales, zeros, codes)
        s, z = (np.repeat(x, n_cols // grid[1], axis=1) for x in (scales, zeros))
        meant[name] = s.astype(np.float32) * (codes - z).astype(np.float32)
    return stored, meant


def write(directory: Path, quantization: Any, tensors: Arrays) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, directory / "model.safetensors")
    return directory


def checkpoint_of(tmp_path: Path, name: str, group: int = 64) -> tuple[Path, Any]:
    stored, meant = packed_tensors(SCHEMES[name], group)
    return write(tmp_path / "src", SCHEMES[name][0](group), stored), meant


@pytest.mark.parametrize("group", [32, 64, -1])
@pytest.mark.parametrize("name", SCHEMES)
def test_every_weight_of_the_file_is_that_of_the_checkpoint(
    name: str, group: int, tmp_path: Path
) -> None:
    source, meant = checkpoint_of(tmp_path, name, group)
    with Checkpoint(source) as checkpoint:
        assert set(checkpoint.tensors) == set(meant)
        for tensor, wanted in meant.items():
            rows = len(wanted) if wanted.ndim == 2 else 1
            parts = [checkpoint.read_rows(tensor, 0, min(5, rows))]
            if rows > 5:
                parts.append(checkpoint.read_rows(tensor, 5, rows - 5))
            np.testing.assert_array_equal(np.concatenate(parts).reshape(wanted.shape), wanted)
    report = convert(source, tmp_path / "out.edge")
    header = read_header(tmp_path / "out.edge")
    for index in range(CASE["num_hidden_layers"]):
        for leaf, role in ROLES.items():
            info = header.tensors[f"layers.{index}.{role}"]
            assert info.format == "L4_32"
            data = np.frombuffer(read_tensor(header, info.name), dtype=np.uint8)
            got = decode_matrix("L4_32", data, *info.shape)
            np.testing.assert_array_equal(got, meant[f"model.layers.{index}.{leaf}.weight"])
    assert header.tensors["token_embd"].format == "E6_16"
    assert {t.rel_rms_error for t in report.tensors if t.format == "L4_32"} == {0.0}
    assert not any("rounded" in warning for warning in report.warnings)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
def test_scales_of_other_dtypes_are_held_where_f16_can(dtype: Any, tmp_path: Path) -> None:
    scheme = SCHEMES["compressed sym"]
    stored, meant = packed_tensors(scheme, 32, ml_dtypes.bfloat16)
    stored = {k: v.astype(dtype) if k.endswith("weight_scale") else v for k, v in stored.items()}
    source = write(tmp_path / "src", scheme[0](32), stored)
    convert(source, tmp_path / "out.edge")
    header = read_header(tmp_path / "out.edge")
    data = np.frombuffer(read_tensor(header, "layers.1.ffn_down"), dtype=np.uint8)
    got = decode_matrix("L4_32", data, *header.tensors["layers.1.ffn_down"].shape)
    np.testing.assert_array_equal(got, meant[f"{NAME}.weight"])


def test_a_converted_gptq_model_runs(tmp_path: Path) -> None:
    from edgellm.converters.reference import Reference

    source, _ = checkpoint_of(tmp_path, "gptq asym")
    convert(source, tmp_path / "out.edge", act="f32")
    ids = case_ids(CASE)
    wanted = Reference.from_edge(tmp_path / "out.edge").logits(ids, kv="F16").numpy()
    with edgellm.load(tmp_path / "out.edge", kv="F16", verify="never") as model:
        got = model.logits(ids)
    assert float(np.square(wanted - got).mean() / np.square(wanted).mean()) <= 1e-6


def test_sorted_inputs_are_read_where_tiles_hold_them_and_refused_where_not(tmp_path: Path) -> None:
    scheme = SCHEMES["gptq asym"]
    stored, meant = packed_tensors(scheme, 32)
    order = [3, 0, 1, 5, 4, 2]  # whole tiles in another order: groups are only renumbered
    for part in ("scales", "qzeros"):
        stored[f"{NAME}.{part}"] = stored[f"{NAME}.{part}"][np.argsort(order)]
    stored[f"{NAME}.g_idx"] = np.array(order, dtype=np.int32).repeat(32)
    config = gptq_config(32, desc_act=True)
    with Checkpoint(write(tmp_path / "tiles", config, stored)) as checkpoint:
        got = checkpoint.read_rows(f"{NAME}.weight", 0, len(meant[f"{NAME}.weight"]))
    np.testing.assert_array_equal(got, meant[f"{NAME}.weight"])

    stored[f"{NAME}.g_idx"] = np.random.default_rng(1).permutation(stored[f"{NAME}.g_idx"])
    source = write(tmp_path / "sorted", config, stored)
    with pytest.raises(UnsupportedError, match=f"{NAME}.g_idx.*desc_act=false"):
        convert(source, tmp_path / "out.edge")
    assert not (tmp_path / "out.edge").exists()


def test_another_format_rounds_again_and_says_so(tmp_path: Path) -> None:
    source, _ = checkpoint_of(tmp_path, "awq")
    plan = plan_conversion(source, format="E6_16")
    assert {t.format for t in plan.tensors if t.act} == {"E6_16"}
    n_packed = CASE["num_hidden_layers"] * len(ROLES)
    (warning,) = [w for w in plan.warnings if "rounded again" in w]
    assert warning.startswith(f"{n_packed} matrices")
    exact = plan_conversion(source)
    assert {t.format for t in exact.tensors if t.name.startswith("layers.") and t.act} == {"L4_32"}
    assert not [w for w in exact.warnings if "rounded again" in w]


def _edit(tensors: Arrays, name: str, value: npt.NDArray[Any] | None) -> Arrays:
    changed = {key: array for key, array in tensors.items() if key != f"{NAME}.{name}"}
    return changed if value is None else {**changed, f"{NAME}.{name}": value}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (gptq_config(64, bits=8), r"bits = 8 is not supported \(supported: 4\)"),
        (gptq_config(48), "group_size = 48 is not supported"),
        (gptq_config(0), "group_size is 0"),
        (gptq_config(64, checkpoint_format="marlin"), "checkpoint_format = 'marlin'"),
        (gptq_config(64, dynamic={"x": {}}), "dynamic"),
        (gptq_config(128), "192 inputs are not whole groups"),
        (gptq_config(32), "scales.*asks for"),
        (awq_config(64, version="gemv"), "version = 'gemv'"),
        ({"quant_method": "awq", "bits": 3}, "bits = 3"),
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes' is not understood.*gptq"),
        ({**compressed_config(64), "format": "marlin-24"}, "'marlin-24' is not understood"),
    ],
)
def test_a_scheme_that_is_not_understood_is_named(config: Any, wanted: str, tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["gptq sym"], 64)
    with pytest.raises(EdgeError, match=wanted):
        Checkpoint(write(tmp_path / "src", config, stored))


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"num_bits": 8}, "num_bits = 8"),
        ({"type": "float"}, "type = 'float'"),
        ({"strategy": "block"}, "strategy = 'block'"),
    ],
)
def test_compressed_tensors_of_other_kinds_are_refused(
    weights: Any, wanted: str, tmp_path: Path
) -> None:
    stored, _ = packed_tensors(SCHEMES["compressed sym"], 64)
    config = compressed_config(64, **weights)
    with pytest.raises(UnsupportedError, match=wanted):
        Checkpoint(write(tmp_path / "src", config, stored))
    config = compressed_config(64)
    config["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    with pytest.raises(UnsupportedError, match="input_activations"):
        Checkpoint(write(tmp_path / "acts", config, stored))


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["gptq sym"], 64)
    scales, zeros = stored[f"{NAME}.scales"], stored[f"{NAME}.qzeros"]
    cases: list[tuple[str, npt.NDArray[Any] | None, str]] = [
        ("scales", None, "has no"),
        ("qzeros", None, "has no"),
        ("scales", scales[:-1], "asks for"),
        ("qzeros", zeros[:, :-1], "asks for"),
        ("scales", scales.astype(np.int32), "asks for"),
        ("g_idx", np.zeros(5, dtype=np.int32), "asks for"),
        ("qweight", np.zeros((24, 128), dtype=np.int16), "must be a matrix of I32"),
        ("weight", np.zeros((128, 192), dtype=np.float16), "packed and unpacked"),
    ]
    for number, (part, value, wanted) in enumerate(cases):
        source = write(tmp_path / str(number), gptq_config(64), _edit(stored, part, value))
        with pytest.raises(FormatError, match=wanted):
            Checkpoint(source)
    source = write(tmp_path / "none", gptq_config(64), {"model.norm.weight": scales[0]})
    with pytest.raises(FormatError, match="no tensor is packed so"):
        Checkpoint(source)


def test_what_the_data_says_wrong_is_refused_when_it_is_read(tmp_path: Path) -> None:
    stored, _ = packed_tensors(SCHEMES["gptq sym"], 64)
    scales, index = stored[f"{NAME}.scales"], stored[f"{NAME}.g_idx"]
    infinite = scales.copy()
    infinite[1, 3] = np.inf
    fine = scales.astype(np.float32)
    fine[0, 0] = 0.1
    cases: list[tuple[str, npt.NDArray[Any], type[EdgeError], str]] = [
        ("scales", infinite, NumericError, "not finite"),
        ("scales", fine, UnsupportedError, "1 of 384 scales are not exact in f16"),
        ("g_idx", index + 1, FormatError, "names a group that there is not"),
        ("g_idx", index - 1, FormatError, "names a group that there is not"),
    ]
    for number, (part, value, error, wanted) in enumerate(cases):
        source = write(tmp_path / str(number), gptq_config(64), _edit(stored, part, value))
        with pytest.raises(error, match=wanted):
            convert(source, tmp_path / "out.edge")
        assert not (tmp_path / "out.edge").exists()
