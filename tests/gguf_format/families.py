"""Tiny models of transformers as GGUF files, written with the package gguf: what llama.cpp's own
converters do to a checkpoint, in the fewest words. An independent second opinion on the names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

gguf = pytest.importorskip("gguf", reason="the package gguf writes these files")

Array = npt.NDArray[Any]

# model_type -> general.architecture
ARCHS = {
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
IN_PAIRS = ("llama", "granite", "smollm3")
NORM_PLUS_ONE = ("gemma", "gemma2", "gemma3")
LAYER_NORM = ("gpt2", "gptneox", "stablelm")
# What the keys of a GGUF file cannot say, replaced in the rows of golden/families.toml.
WITHOUT: dict[str, dict[str, Any]] = {
    "llama_biases_yarn": {},
    "mistral_window": {"sliding_window": None},
    "qwen2_upper_windows_yarn": {
        "use_sliding_window": False,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
        },
    },
    "qwen3_head_norms": {"attention_bias": False},
    "smollm3_nope_layers": {"no_rope_layer_interval": 4, "use_sliding_window": False},
    "gemma_zero_centred_norms": {"hidden_act": "gelu_pytorch_tanh"},
    "gemma2_caps_windows": {"query_pre_attn_scalar": 12},
    "gemma3_two_bases": {"query_pre_attn_scalar": 20},
    "phi3_longrope": {},
    "granite_multipliers": {},
    "olmo2_post_norms": {},
    "stablelm_parallel": {},
    "stablelm_sequential": {},
    "gpt_neox_parallel": {},
    "gpt_neox_sequential": {"attention_bias": True, "hidden_act": "gelu"},
    "gpt2_learned_positions": {"scale_attn_by_inverse_layer_idx": False},
    "mixtral_window": {"sliding_window": None},
    "qwen2_moe_shared_expert": {"use_sliding_window": False, "mlp_only_layers": []},
    "qwen3_moe_sparse_step": {"use_sliding_window": False, "decoder_sparse_step": 1},
    "olmoe_full_norms": {},
    "lfm2_convolutions": {"block_auto_adjust_ff_dim": False},
}


def write_gguf(model: Any, path: Path, *, split_experts: bool = False) -> Path:
    """A model of transformers as llama.cpp's convert_hf_to_gguf.py would write it, without a
    vocabulary. split_experts: one tensor for each, as in early 2024."""
    config = model.config
    arch = ARCHS.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, arch)
    _add_keys(writer, config, arch)
    names = gguf.get_tensor_name_map(
        next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch),
        config.num_hidden_layers,
    )
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    for name, weights in _stored(state, config, arch):
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        if split_experts and found.endswith("_exps.weight"):
            for expert, own in enumerate(weights):
                writer.add_tensor(found.replace("_exps", f".{expert}"), np.ascontiguousarray(own))
            continue
        writer.add_tensor(found, weights.astype(np.float32))
    for name, factors in _rope_tensors(config, arch).items():
        writer.add_tensor(name, factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_keys(writer: Any, config: Any, arch: str) -> None:
    values = config.to_dict()
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    head_dim = values.get("head_dim") or d_model // n_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(d_model)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(values.get("intermediate_size") or 4 * d_model)
    writer.add_head_count(n_heads)
    if values.get("num_key_value_heads") is not None and arch not in ("gpt2", "gptneox"):
        n_kv = values["num_key_value_heads"]
        if arch == "lfm2":
            n_kv = [0 if kind == "conv" else n_kv for kind in values["layer_types"]]
            writer.add_shortconv_l_cache(values["conv_L_cache"])
        writer.add_head_count_kv(n_kv)
    if head_dim != d_model // n_heads:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    eps = values.get("rms_norm_eps") or values.get("layer_norm_eps") or values.get("norm_eps")
    add_eps = writer.add_layer_norm_eps if arch in LAYER_NORM else writer.add_layer_norm_rms_eps
    add_eps(eps or values["layer_norm_epsilon"])
    if values.get("bos_token_id") is not None:
        writer.add_bos_token_id(values["bos_token_id"])
        writer.add_eos_token_id(values["eos_token_id"])
    writer.add_vocab_size(config.vocab_size)
    if arch != "gpt2":
        _add_rope(writer, config, arch, head_dim)
    _add_family_keys(writer, values, arch)


def _add_rope(writer: Any, config: Any, arch: str, head_dim: int) -> None:
    rope = config.rope_parameters
    if arch == "gemma3":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * (rope.get("partial_rotary_factor") or 1)))
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("beta_fast"):
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    elif kind == "longrope":
        n_old, n_new = rope["original_max_position_embeddings"], config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(n_old)
        factor = (1 + np.log(n_new / n_old) / np.log(n_old)) ** 0.5
        writer.add_rope_scaling_attn_factors(float(factor))


def _add_family_keys(writer: Any, values: dict[str, Any], arch: str) -> None:
    if arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(values["sliding_window"])
        writer.add_final_logit_softcapping(values["final_logit_softcapping"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(values["attn_logit_softcapping"])
    if arch == "gemma3":
        writer.add_sliding_window_pattern(
            [kind == "sliding_attention" for kind in values["layer_types"]]
        )
    if arch == "phi3":
        writer.add_sliding_window(values["sliding_window"])
    if arch == "granite":
        writer.add_attention_scale(values["attention_multiplier"])
        writer.add_embedding_scale(values["embedding_multiplier"])
        writer.add_residual_scale(values["residual_multiplier"])
        writer.add_logit_scale(values["logits_scaling"])
    if arch in ("gptneox", "stablelm"):
        writer.add_parallel_residual(values["use_parallel_residual"])
    n_experts = values.get("num_local_experts") or values.get("num_experts")
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(values["num_experts_per_tok"])
    if "moe_intermediate_size" in values:
        writer.add_expert_feed_forward_length(values["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in values:
        writer.add_expert_shared_feed_forward_length(values["shared_expert_intermediate_size"])


def _stored(state: dict[str, Array], config: Any, arch: str) -> Iterator[tuple[str, Array]]:
    """Names that the package's map knows, with the weights as llama.cpp wants them."""
    n_heads = config.num_attention_heads
    n_kv = getattr(config, "num_key_value_heads", n_heads)
    for name, stored in state.items():
        weights = stored
        if arch in IN_PAIRS and ".q_proj." in name:
            weights = in_pairs(weights, n_heads)
        if arch in IN_PAIRS and ".k_proj." in name:
            weights = in_pairs(weights, n_kv)
        if arch in NORM_PLUS_ONE and name.endswith("norm.weight"):
            weights = weights + np.float32(1)
        if arch == "gpt2" and ".c_" in name and weights.ndim == 2:
            weights = weights.T
        if arch == "gptneox" and "query_key_value" in name:
            heads = weights.reshape(n_heads, 3, -1, *weights.shape[1:])
            weights = heads.swapaxes(0, 1).reshape(weights.shape)
        if arch == "stablelm" and config.use_parallel_residual and "post_attention" in name:
            continue
        if name.endswith("experts.gate_up_proj"):
            half = weights.shape[1] // 2
            stem = name.removesuffix("gate_up_proj").replace("block_sparse_moe", "mlp")
            yield f"{stem}gate_proj.weight", weights[:, :half]
            yield f"{stem}up_proj.weight", weights[:, half:]
            continue
        if name.endswith("experts.down_proj"):
            name = f"{name}.weight"
        if name.endswith("conv.conv.weight"):
            weights = weights.squeeze(1)
        if name.endswith("shared_expert_gate.weight"):
            weights = weights.reshape(-1)
        yield name, np.ascontiguousarray(weights)


def in_pairs(weights: Array, n_heads: int) -> Array:
    halves = weights.reshape(n_heads, 2, -1, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _rope_tensors(config: Any, arch: str) -> dict[str, Array]:
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return {}
    return {
        f"rope_factors_{name}.weight": np.array(rope[f"{name}_factor"], dtype=np.float32)
        for name in ("long", "short")
    }
