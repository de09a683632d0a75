"""PEFT directories: what is honoured, and that everything else is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters.adapter import convert_adapter
from edgellm.converters.peft import read_peft
from safetensors.numpy import load_file, save_file

from edgellm.errors import EdgeError, FormatError, NumericError, UnsupportedError
from golden.adapters import write_peft

# Of the tiny model of tests/tiny_model.py.
MODULES = {
    "model.layers.0.self_attn.q_proj": (64, 40),
    "model.layers.1.self_attn.v_proj": (32, 40),
    "model.layers.1.mlp.down_proj": (40, 56),
}
WEIGHTS = "adapter_model.safetensors"


def directory(tmp_path: Path, modules: Any = None, **config: Any) -> Path:
    return write_peft(tmp_path / "peft", modules or MODULES, **config)


def refused(tmp_path: Path, **config: Any) -> EdgeError:
    with pytest.raises(EdgeError) as error:
        read_peft(directory(tmp_path, **config))
    return error.value


def test_alpha_over_rank_is_what_peft_makes_of_the_configuration(tmp_path):
    ranks = {"q_proj": 4, "v_proj": 9, "down_proj": 36}  # rank_pattern says the last two
    alphas = {"q_proj": 8.0, "v_proj": 4.5, "down_proj": 18.0}
    for rslora in (False, True):
        pairs = read_peft(directory(tmp_path, use_rslora=rslora)).pairs
        assert set(pairs) == set(MODULES)
        for module, pair in pairs.items():
            rank, alpha = ranks[module.split(".")[-1]], alphas[module.split(".")[-1]]
            assert pair.scale == alpha / (math.sqrt(rank) if rslora else rank)
            _, b = pair.read()
            stored = load_file(tmp_path / "peft" / WEIGHTS)
            name = f"base_model.model.{module}.lora_B.weight"
            assert np.array_equal(b, stored[name] * np.float32(pair.scale))


def test_patterns_match_the_end_of_a_name_or_all_of_it(tmp_path):
    whole = "^model.layers.1.self_attn.v_proj"
    alphas = {"layers.0.self_attn.q_proj": 1.0, whole: 18.0, "proj": 7.0}
    pairs = read_peft(directory(tmp_path, alpha_pattern=alphas)).pairs
    assert [pairs[module].scale for module in MODULES] == [1 / 4, 18 / 9, 8 / 36]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "LOHA"),
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [5]),
        ("layer_replication", [[0, 1]]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("alora_invocation_tokens", [1, 2]),
        ("init_lora_weights", "pissa"),
        ("megatron_config", {"x": 1}),
        ("something_new", 1),
        ("rank_pattern", {"(a+)+$": 3}),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(key, value, tmp_path):
    error = refused(tmp_path, **{key: value})
    assert isinstance(error, UnsupportedError)
    assert key in error.message


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"r": 0}, "json_type"),
        ({"r": True}, "json_type"),
        ({"lora_alpha": float("inf")}, "json_type"),
        ({"lora_alpha": "16"}, "json_type"),
        ({"use_rslora": 1}, "json_type"),
        ({"rank_pattern": [1]}, "json_type"),
        ({"r": 5}, "tensor_shape"),
        ({"rank_pattern": {}}, "tensor_shape"),
    ],
)
def test_a_configuration_that_is_wrong_has_a_typed_error(config, code, tmp_path):
    error = refused(tmp_path, **config)
    assert isinstance(error, FormatError)
    assert error.code == code


def test_pickles_are_not_read(tmp_path):
    path = directory(tmp_path)
    (path / WEIGHTS).rename(path / "adapter_model.bin")
    with pytest.raises(UnsupportedError, match="pickled"):
        read_peft(path)
    (path / "adapter_model.bin").unlink()
    with pytest.raises(FormatError, match="no such file"):
        read_peft(path)


def change_tensors(path: Path, changes: dict[str, Any]) -> None:
    """None takes a tensor out."""
    tensors = load_file(path / WEIGHTS) | changes
    kept = {name: value for name, value in tensors.items() if value is not None}
    save_file(kept, path / WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base_model.model.model.embed_tokens.lora_embedding_A": 1}, "feature_unsupported"),
        ({"base_model.model.a.lora_magnitude_vector": 1}, "feature_unsupported"),
        ({"base_model.model.lm_head.weight": 1}, "feature_unsupported"),
        (
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": None},
            "tensor_missing",
        ),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": 5}, "tensor_shape"),
    ],
)
def test_tensors_that_are_no_whole_pair_are_refused(changes, code, tmp_path):
    path = directory(tmp_path)
    rows = {k: v if v is None else np.zeros((v, 40), np.float32) for k, v in changes.items()}
    change_tensors(path, rows)
    with pytest.raises(EdgeError) as error:
        read_peft(path)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("module", "sizes", "code"),
    [
        ("model.layers.2.self_attn.q_proj", (64, 40), "adapter_mismatch"),
        ("model.layers.0.self_attn.qkv_proj", (64, 40), "adapter_mismatch"),
        ("model.layers.0.self_attn.k_proj", (64, 40), "adapter_mismatch"),
        ("model.embed_tokens", (258, 40), "feature_unsupported"),
    ],
)
def test_an_adapter_of_another_model_is_refused(module, sizes, code, tiny_edge, tmp_path):
    path = directory(tmp_path, {**MODULES, module: sizes})
    with pytest.raises(EdgeError) as error:
        convert_adapter(path, tmp_path / "a.edge", base=tiny_edge)
    assert error.value.code == code
    assert module in error.value.message
    assert not (tmp_path / "a.edge").exists()


def test_values_that_f16_does_not_hold_are_refused(tiny_edge, tmp_path):
    path = directory(tmp_path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    change_tensors(path, {name: np.full((64, 4), 40000, np.float32)})
    with pytest.raises(NumericError, match="F16"):
        convert_adapter(path, tmp_path / "a.edge", base=tiny_edge)


def test_a_base_with_channel_scales_is_refused(tiny_checkpoint, tmp_path):
    """They would have to be folded into A and B, and the file does not keep them."""
    from edgellm.converters import convert

    from edgellm.edgefile import EdgeWriter, read_header, read_tensor

    base, scaled = tmp_path / "base.edge", tmp_path / "scaled.edge"
    convert(tiny_checkpoint, base, format="F16")
    header = read_header(base)
    recipe = json.loads(bytes(read_tensor(header, "recipe")))
    recipe["rules"][-1]["scale"] = "awq"
    with EdgeWriter(scaled, spec=header.spec) as writer:
        writer.append("recipe", "recipe", json.dumps(recipe).encode())
    with pytest.raises(UnsupportedError, match="channel scales"):
        convert_adapter(directory(tmp_path), tmp_path / "a.edge", base=scaled)


def test_a_granite_that_does_not_say_its_multipliers_is_refused(tmp_path):
    from edgellm.converters.spec import LayerSpec, ModelSpec

    from edgellm.edgefile import EdgeWriter

    layers = (LayerSpec(4, 2, 16, 56),)
    spec = ModelSpec("granite", 258, 40, 128, 1e-5, True, 16, 1.0, 0, (1,), layers)
    with EdgeWriter(tmp_path / "base.edge", spec=spec.to_dict()) as writer:
        writer.append("report", "report", b"{}")
    path = directory(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 40)})
    with pytest.raises(UnsupportedError, match="multipliers"):
        convert_adapter(path, tmp_path / "a.edge", base=tmp_path / "base.edge")
