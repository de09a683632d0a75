"""Hyper-parameters of a GGUF file as the config.json that the families in archs/ read.

What llama.cpp assumes of a model where its file says nothing (src/models/*.cpp there) is written
out here, so that no default of a family takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ..archs._family import FULL, SLIDING
from ..archs.lfm2 import CONV
from ..spec import MAX_LAYERS
from .architectures import ARCHITECTURES
from .keys import Keys

Json = dict[str, Any]
F32Array = npt.NDArray[np.float32]
Reader = Callable[[str], F32Array]


@dataclass(frozen=True)
class Stored:
    """What the tensors say of a model: their shapes by name, and how to read a small one."""

    shapes: Mapping[str, tuple[int, ...]]
    vector: Reader


def read_config(keys: Keys, stored: Stored, n_tokens: int) -> Json:
    """n_tokens: of the vocabulary, for files without tensors. UnsupportedError, FormatError: a key
    that cannot be honoured, or is missing."""
    kind = ARCHITECTURES[keys.arch]
    n_layers, n_heads = keys.integer("block_count"), keys.integer("attention.head_count")
    if not 1 <= n_layers <= MAX_LAYERS or n_heads < 1:
        raise FormatError(f"{keys.path}: {n_layers} layers of {n_heads} heads", code="spec_invalid")
    d_model = keys.integer("embedding_length")
    head_dim = keys.integer("attention.key_length", d_model // n_heads)
    keys.same("attention.value_length", head_dim, "the length of keys")
    for key in ("attention.key_length_swa", "attention.value_length_swa"):
        keys.same(key, head_dim, "the length of keys")
    embedding = stored.shapes.get("token_embd.weight", (n_tokens, d_model))
    eps = "attention.layer_norm_rms_epsilon" if kind.rms else "attention.layer_norm_epsilon"
    config: Json = {
        "architectures": [kind.name],
        "hidden_size": d_model,
        "head_dim": head_dim,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": keys.integer("context_length"),
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": _n_kv_heads(keys, n_heads, n_layers),
        "rms_norm_eps" if kind.rms else "layer_norm_eps": keys.number(eps),
        "tie_word_embeddings": "output.weight" not in stored.shapes,
        "vocab_size": embedding[0],
    }
    if keys.arch != "gpt2":
        config |= _rope(keys, stored, head_dim, config["max_position_embeddings"])
    special = _FAMILIES.get(keys.arch)
    return config if special is None else config | special(keys, stored, config)


def _n_kv_heads(keys: Keys, n_heads: int, n_layers: int) -> int:
    """Of layers with attention; those of LFM2 without have none."""
    if keys.arch != "lfm2":
        return keys.integer("attention.head_count_kv", n_heads)
    counts = {n for n in keys.by_layer("attention.head_count_kv", n_heads, n_layers) if n}
    if len(counts) > 1:
        raise UnsupportedError(
            f"{keys.path}: layers of {sorted(counts)} kv heads are not supported",
            code="spec_unsupported",
        )
    return counts.pop() if counts else n_heads


def _lfm2(keys: Keys, _stored: Stored, config: Json) -> Json:
    n_heads, n_layers = config["num_attention_heads"], config["num_hidden_layers"]
    counts = keys.by_layer("attention.head_count_kv", n_heads, n_layers)
    return {
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": keys.integer("shortconv.l_cache"),
        "layer_types": [FULL if n else CONV for n in counts],
        "norm_eps": config["rms_norm_eps"],
    }


def _rope(keys: Keys, stored: Stored, head_dim: int, n_ctx: int) -> Json:
    n_rope = keys.integer("rope.dimension_count", head_dim)
    keys.same("rope.dimension_count_swa", n_rope, "rope.dimension_count")
    config: Json = {"rope_theta": keys.number("rope.freq_base", 10000.0)}
    if n_rope != head_dim:
        share = n_rope / max(head_dim, 1)
        config["partial_rotary_factor"] = (
            share if int(head_dim * share) == n_rope else math.nextafter(share, 2)
        )
    scaling = _scaling(keys, stored, n_ctx)
    return config | ({"rope_scaling": scaling} if scaling else {})


def _scaling(keys: Keys, stored: Stored, n_ctx: int) -> Json:
    kind = keys.text("rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", 0.0) or keys.number("rope.scale_linear", 0.0)
    n_original = keys.integer("rope.scaling.original_context_length", n_ctx)
    attention = keys.number("rope.scaling.attn_factor", 1.0)
    if "rope_factors_long.weight" in stored.shapes:
        return _longrope(stored, n_ctx, n_original, attention)
    if kind == "longrope":
        raise FormatError(
            f"{keys.path}: rope scaling 'longrope' without tensor 'rope_factors_long.weight'",
            code="tensor_missing",
        )
    if kind == "yarn" and attention == 1.0:
        values: Json = {
            "rope_type": "yarn",
            "factor": factor or 1.0,
            "original_max_position_embeddings": n_original,
            "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
        }
        if keys.has("rope.scaling.yarn_attn_factor"):
            values["attention_factor"] = keys.number("rope.scaling.yarn_attn_factor")
        return values
    if kind not in ("none", "linear") or attention != 1.0:
        raise UnsupportedError(
            f"{keys.path}: {keys.arch}.rope.scaling.type '{kind[:40]}' with attn_factor "
            f"{attention:g} is not supported (supported: none, linear, yarn, longrope)",
            code="spec_unsupported",
        )
    if kind == "none" or factor in (0.0, 1.0):
        return {}
    return {"rope_type": "linear", "factor": factor}


def _longrope(stored: Stored, n_ctx: int, n_original: int, attention: float) -> Json:
    factors = {
        f"{name}_factor": [float(item) for item in stored.vector(f"rope_factors_{name}.weight")]
        for name in ("long", "short")
    }
    values: Json = {
        "rope_type": "longrope",
        "original_max_position_embeddings": n_original,
        **factors,
    }
    scale = n_ctx / max(n_original, 1)
    usual = 1.0
    if scale > 1 and n_original > 1:
        usual = math.sqrt(1 + math.log(scale) / math.log(n_original))
    # The file has 32 bits of it; where it is what follows from the contexts, it follows here, too.
    if not math.isclose(usual, attention, rel_tol=1e-6):
        values["attention_factor"] = attention
    return values


def _llama(keys: Keys, _stored: Stored, _config: Json) -> Json:
    n_experts = keys.integer("expert_count", 0)
    if not n_experts:
        return {}
    return {
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": n_experts,
        "num_experts_per_tok": keys.integer("expert_used_count"),
        "sliding_window": None,
    }


def _dense_qwen(_keys: Keys, _stored: Stored, _config: Json) -> Json:
    return {"use_sliding_window": False}


def _experts(keys: Keys, stored: Stored, config: Json, norm_topk: bool) -> Json:
    n_used = keys.integer("expert_used_count")
    n_layers = config["num_hidden_layers"]
    dense = [
        index
        for index in range(n_layers)
        if stored.shapes and f"blk.{index}.ffn_gate_inp.weight" not in stored.shapes
    ]
    of_all = config["intermediate_size"] // max(n_used, 1)
    return {
        "mlp_only_layers": dense,
        "moe_intermediate_size": keys.integer("expert_feed_forward_length", of_all),
        "norm_topk_prob": keys.flag("expert_weights_norm", norm_topk),
        "num_experts": keys.integer("expert_count"),
        "num_experts_per_tok": n_used,
        "use_sliding_window": False,
    }


def _qwen2moe(keys: Keys, stored: Stored, config: Json) -> Json:
    n_shared = keys.integer("expert_shared_feed_forward_length", config["intermediate_size"])
    shared = {"shared_expert_intermediate_size": n_shared}
    return _experts(keys, stored, config, norm_topk=False) | shared


def _qwen3moe(keys: Keys, stored: Stored, config: Json) -> Json:
    return _experts(keys, stored, config, norm_topk=True)


def _olmoe(keys: Keys, _stored: Stored, _config: Json) -> Json:
    return {
        "norm_topk_prob": keys.flag("expert_weights_norm", False),
        "num_experts": keys.integer("expert_count"),
        "num_experts_per_tok": keys.integer("expert_used_count"),
    }


def _layer_types(keys: Keys, config: Json, period: int) -> list[str]:
    n_layers = config["num_hidden_layers"]
    flags = keys.period_or_flags("attention.sliding_window_pattern", period, n_layers)
    return [SLIDING if is_sliding else FULL for is_sliding in flags]


def _scalar(config: Json, n_layers_of_largest: int) -> float:
    """What scores are divided by the root of: the largest Gemmas have one of their own."""
    if config["num_hidden_layers"] == n_layers_of_largest:
        return float(config["hidden_size"] // config["num_attention_heads"])
    return float(config["head_dim"])


def _gemma2(keys: Keys, _stored: Stored, config: Json) -> Json:
    keys.same("rope.freq_base_swa", config["rope_theta"], "rope.freq_base")
    return {
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0) or None,
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0) or None,
        "layer_types": _layer_types(keys, config, period=2),
        "query_pre_attn_scalar": _scalar(config, 46),
        "sliding_window": keys.integer("attention.sliding_window", 4096),
    }


def _gemma3(keys: Keys, _stored: Stored, config: Json) -> Json:
    window = keys.integer("attention.sliding_window", 0)
    types = _layer_types(keys, config, period=6)
    return {
        "final_logit_softcapping": keys.number("final_logit_softcapping", 0.0) or None,
        "layer_types": types if window else [FULL] * len(types),
        "query_pre_attn_scalar": _scalar(config, 62),
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10000.0),
        "sliding_window": window or None,
    }


def _phi3(keys: Keys, _stored: Stored, _config: Json) -> Json:
    return {
        "original_max_position_embeddings": None,
        "sliding_window": keys.integer("attention.sliding_window", 0) or None,
    }


def _granite(keys: Keys, _stored: Stored, config: Json) -> Json:
    if not keys.flag("rope.scaling.finetuned", True):
        raise UnsupportedError(
            f"{keys.path}: a Granite without rotary positions cannot be read from GGUF; convert "
            "its Hugging Face directory",
            code="spec_unsupported",
        )
    scale = keys.number("attention.scale", 0.0)
    return {
        "attention_multiplier": scale or config["head_dim"] ** -0.5,
        "embedding_multiplier": keys.number("embedding_scale", 1.0),
        "logits_scaling": keys.number("logit_scale"),
        "residual_multiplier": keys.number("residual_scale", 1.0),
    }


def _stablelm(_keys: Keys, stored: Stored, _config: Json) -> Json:
    # The key use_parallel_residual of its files is not always right; the norm's absence is.
    return {"use_parallel_residual": "blk.0.ffn_norm.weight" not in stored.shapes}


def _gptneox(keys: Keys, _stored: Stored, config: Json) -> Json:
    return {
        "rotary_emb_base": config["rope_theta"],
        "rotary_pct": config.get("partial_rotary_factor", 1.0),
        "use_parallel_residual": keys.flag("use_parallel_residual", True),
    }


def _gpt2(_keys: Keys, _stored: Stored, config: Json) -> Json:
    return {"layer_norm_epsilon": config["layer_norm_eps"]}


def _smollm3(_keys: Keys, _stored: Stored, _config: Json) -> Json:
    return {"no_rope_layer_interval": 4, "use_sliding_window": False}


_FAMILIES: Mapping[str, Callable[[Keys, Stored, Json], Json]] = {
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
    "gptneox": _gptneox,
    "granite": _granite,
    "lfm2": _lfm2,
    "llama": _llama,
    "olmoe": _olmoe,
    "phi3": _phi3,
    "qwen2": _dense_qwen,
    "qwen2moe": _qwen2moe,
    "qwen3": _dense_qwen,
    "qwen3moe": _qwen3moe,
    "smollm3": _smollm3,
    "stablelm": _stablelm,
}
