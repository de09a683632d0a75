"""archs/llama.py: every field of config.json is honoured, harmless, reported or refused."""

from __future__ import annotations

from typing import Any

import pytest
from edgellm.converters import archs

from edgellm.errors import EdgeError, FormatError, UnsupportedError
from golden.tiny import CASES, hf_config, shared_data

CONFIG = hf_config(CASES[0])


def spec_of(config: dict[str, Any], generation: dict[str, Any] | None = None) -> Any:
    return archs.find(config).to_spec(config, generation or {})


def test_a_plain_config_becomes_a_spec() -> None:
    spec = spec_of(CONFIG)
    assert (spec.n_vocab, spec.d_model, spec.n_ctx_train) == (101, 64, 256)
    assert (spec.tied_head, spec.n_rope, spec.bos_id, spec.eos_ids) == (True, 8, 1, (2,))
    layer = spec.layers[0]
    assert (layer.n_heads, layer.n_kv_heads, layer.head_dim, layer.d_ffn) == (8, 4, 8, 172)


def test_absent_keys_take_the_defaults_of_transformers() -> None:
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 64}
    spec = spec_of(config)
    assert (spec.d_model, spec.n_ctx_train, spec.norm_eps) == (4096, 2048, 1e-6)
    assert (len(spec.layers), spec.layers[0].head_dim) == (32, 128)
    assert spec.layers[0].n_kv_heads == 32
    assert not spec.tied_head


def test_generation_config_decides_where_a_text_ends() -> None:
    assert spec_of(CONFIG, {"eos_token_id": [0, 2, 0]}).eos_ids == (0, 2)
    assert spec_of({**CONFIG, "eos_token_id": [5, 6]}).eos_ids == (5, 6)
    assert spec_of({**CONFIG, "eos_token_id": None, "bos_token_id": None}).eos_ids == ()
    assert spec_of({**CONFIG, "bos_token_id": None}).bos_id == -1


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "quick_gelu"},
        {"partial_rotary_factor": 0.5},
        {"quantization_config": {"quant_method": "gptq"}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attn_factor": 1.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mscale": 1.0}},
        {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e4}},
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        spec_of({**CONFIG, **change})
    assert caught.value.code == "spec_unsupported"
    key, value = next(iter(change.items()))
    words = [key, *value.keys(), *map(str, value.values())] if isinstance(value, dict) else [key]
    assert any(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"num_attention_heads": 0},
        {"num_attention_heads": 7, "head_dim": None},
        {"num_key_value_heads": 3},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"vocab_size": 1 << 40},
        {"rms_norm_eps": "small"},
        {"tie_word_embeddings": 1},
        {"eos_token_id": [1, "2"]},
        {"eos_token_id": 101},
        {"rope_scaling": "llama3"},
        {"rope_theta": -1.0},
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        {"rope_scaling": {"rope_type": "linear"}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"head_dim": 7},
        {"architectures": None, "model_type": None},
        {"architectures": [3]},
    ],
)
def test_values_that_make_no_sense_are_format_errors(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        spec_of({**CONFIG, **change})


def test_an_unknown_architecture_is_refused_with_what_is_not_understood() -> None:
    config = {**CONFIG, "architectures": ["OtherForCausalLM"], "time_mix_rank": 50}
    with pytest.raises(UnsupportedError, match="OtherForCausalLM") as caught:
        archs.find(config)
    assert "LlamaForCausalLM" in str(caught.value)
    assert "time_mix_rank" in str(caught.value)


def test_keys_that_llama_does_not_know_are_listed() -> None:
    unread = archs.find(CONFIG).unread_keys({**CONFIG, "sliding_window": 4, "torch_dtype": "x"})
    assert unread == ["sliding_window"]


def test_every_published_config_converts_or_is_refused_with_a_reason() -> None:
    import json

    paths = sorted(shared_data("configs").rglob("*.json"))
    assert paths
    supported, reasons = 0, []
    for path in paths:
        config = json.loads(path.read_text(encoding="utf-8"))
        try:
            spec_of(config)
            supported += 1
        except EdgeError as error:
            reasons.append(str(error))
    assert supported >= 3
    assert supported + len(reasons) == len(paths)
    assert all("config.json" in reason for reason in reasons)
