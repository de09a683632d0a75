"""`convert --dry-run` on a configuration without weights, over those of published models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgellm.converters import archs, plan_conversion

from command_line import data_of, edgellm
from edgellm.errors import EdgeError
from golden.tiny import shared_data


def configs() -> list[Path]:
    paths = sorted(shared_data("configs").rglob("*.json"))
    assert paths
    return paths


def test_every_configuration_of_a_known_family_is_planned_and_others_are_refused() -> None:
    n_planned = 0
    for path in configs():
        if is_of_a_known_family(path):
            plan = plan_conversion(path)
            assert plan.file_bytes > plan.n_bytes > plan.n_weights // 2, path.name
            assert any("no weights" in warning for warning in plan.warnings)
            n_planned += 1
            continue
        with pytest.raises(EdgeError) as caught:
            plan_conversion(path)
        assert caught.value.code in ("spec_unsupported", "json_missing_key"), path.name
        assert "config.json" in str(caught.value)
    assert n_planned >= 48


def is_of_a_known_family(path: Path) -> bool:
    config = json.loads(path.read_text(encoding="utf-8"))
    inner = config.get("text_config", config)
    names = inner.get("architectures") or []
    # One of them names no class.
    return (names[:1] != [] and names[0] in archs.supported()) or inner.get("model_type") == "llama"


def test_an_encoder_is_refused_saying_so() -> None:
    path = shared_data("configs", "mlc_presets", "snowflake-arctic-embed-m.config.json")
    with pytest.raises(EdgeError, match=r"encoder-only models \(BERT's kind\)"):
        plan_conversion(path)


def test_the_sizes_are_those_of_the_published_model() -> None:
    """Qwen2.5-0.5B: 494,032,768 parameters, its tied head counted once; 2 kv heads of 64 in 24
    layers."""
    path = shared_data("configs", "Qwen2.5-0.5B-Instruct.config.json")
    plan = plan_conversion(path, format="F16")
    assert sum(t.n_weights for t in plan.tensors if t.source is not None) == 494_032_768
    assert 0 <= plan.file_bytes - 2 * 494_032_768 < 4 << 20


def test_short_convolutions_are_counted_and_their_states_planned(tmp_path: Path) -> None:
    """LFM2-1.2B: 1,170,340,608 parameters; states of 10 layers, 2,048 floats a token."""
    config = {
        "architectures": ["Lfm2ForCausalLM"],
        "block_auto_adjust_ff_dim": True,
        "block_ff_dim": 12288,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 256,
        "conv_L_cache": 3,
        "conv_bias": False,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "hidden_size": 2048,
        "max_position_embeddings": 128000,
        "model_type": "lfm2",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "rope_theta": 1000000.0,
        "vocab_size": 65536,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    plan = plan_conversion(path)
    assert sum(t.n_weights for t in plan.tensors if t.source is not None) == 1_170_340_608
    run = edgellm("convert", path, "--dry-run", cwd=tmp_path)
    assert "81,920 of them for the last 160 tokens only" in run.stdout
    path.write_text(json.dumps({**config, "conv_bias": True}))
    with pytest.raises(EdgeError, match="conv_bias = True is not supported"):
        plan_conversion(path)
    path.write_text(json.dumps({**config, "layer_types": ["conv", "mamba"] * 8}))
    with pytest.raises(EdgeError, match="layer_types = 'mamba' is not supported"):
        plan_conversion(path)
    path.write_text(json.dumps({**config, "block_multiple_of": 0}))
    with pytest.raises(EdgeError, match="'block_multiple_of' is 0"):
        plan_conversion(path)


def test_the_command_line_shows_sizes_and_memory(tmp_path: Path) -> None:
    source = shared_data("configs", "mlc_presets", "qwen2moe.config.json")
    run = edgellm("convert", source, "--dry-run", "--json", cwd=tmp_path)
    data = data_of(run, "convert")
    memory = data["memory"]
    assert memory["kv_bytes_per_token"] == 24 * 16 * (2 * 128 + 2 * 2 * 2)
    assert list(memory["bytes_by_context"]) == ["4096", "32768"]
    step = memory["bytes_by_context"]["32768"] - memory["bytes_by_context"]["4096"]
    assert step == memory["kv_bytes_per_token"] * (32768 - 4096)
    assert data["spec"]["layers"][0]["n_experts"] == 60
    assert {t["format"] for t in data["tensors"] if t["role"] == "ffn_router"} == {"F16"}
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_only_a_configuration_will_do(tmp_path: Path) -> None:
    text = shared_data("configs", "gemma3_1b_it.config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    plan = plan_conversion(tmp_path)
    assert plan.spec.eos_ids == (7,)
    run = edgellm("convert", tmp_path, "--dry-run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    kv = "13,728 bytes of KV a token, 11,616 of them for the last 656 tokens only"
    assert kv in run.stdout
    assert "memory with a context of 4,096" in run.stdout
    # 26 layers of 1 kv head of 256, of which 22 see 512 tokens. Without windows: 429 MiB.
    assert "of it KV 73.2 MiB" in run.stdout


def test_without_dry_run_weights_are_asked_for(tmp_path: Path) -> None:
    text = shared_data("configs", "gemma3_1b_it.config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    run = edgellm("convert", tmp_path, "x.edge", cwd=tmp_path)
    assert run.returncode != 0
    assert "model.safetensors" in run.stderr
