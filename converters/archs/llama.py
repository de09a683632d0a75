"""Llama: RMSNorm, grouped-query attention, RoPE (also linear and llama3 scaling), SwiGLU.

Every key of config.json is either read, known to change nothing, or refused. Keys outside all three
lists are ignored by the model class this file mirrors, too; the conversion report names them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ..spec import LayerSpec, ModelSpec
from . import TensorSource, register

F32Array = npt.NDArray[np.float32]

_READ = {
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
}
_CHANGES_NOTHING = {
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "dtype",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",  # splits the same matrices; the result is the same sum
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# Key -> the values under which it changes nothing.
_HONOURED_ONLY_AS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, 1, None),
    "quantization_config": (None,),
    "is_decoder": (False, True, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_encoder_decoder": (False, None),
}
_ROPE_KEYS = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
}
_LAYER_TENSORS = (
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_o", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
)


@register("LlamaForCausalLM")
class Llama:
    """Defaults of absent keys are those of transformers' LlamaConfig."""

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        for key, allowed in _HONOURED_ONLY_AS.items():
            value = config.get(key, allowed[0])
            if not any(value == item and type(value) is type(item) for item in allowed):
                raise UnsupportedError(
                    f"config.json: {key} = {_short(value)} is not supported (supported: "
                    f"{', '.join(map(str, allowed))})",
                    code="spec_unsupported",
                )
        n_heads = _integer(config, "num_attention_heads", 32)
        n_kv_heads = _integer(config, "num_key_value_heads", n_heads)
        d_model = _integer(config, "hidden_size", 4096)
        n_layers = _integer(config, "num_hidden_layers", 32)
        head_dim = _head_dim(config)
        layer = LayerSpec(
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            d_ffn=_integer(config, "intermediate_size", 11008),
        )
        if n_layers > 1024:
            raise FormatError(f"config.json: {n_layers} layers", code="spec_invalid")
        bos_ids = _token_ids(config, generation, "bos_token_id", default=1)
        _rope(config)
        return ModelSpec(
            arch="llama",
            n_vocab=_integer(config, "vocab_size", 32000),
            d_model=d_model,
            n_ctx_train=_integer(config, "max_position_embeddings", 2048),
            norm_eps=_number(config, "rms_norm_eps", 1e-6),
            tied_head=_boolean(config, "tie_word_embeddings", False),
            n_rope=head_dim,
            rope_factor=1.0,
            bos_id=bos_ids[0] if bos_ids else -1,
            eos_ids=_token_ids(config, generation, "eos_token_id", default=2),
            layers=(layer,) * n_layers,
        )

    def inv_freq(self, config: Mapping[str, Any]) -> F32Array:
        """transformers' formula, operation by operation in float32.

        The power is taken in float64 and rounded once; torch's own float32 power differs from it
        in the last bit for about one base and exponent in 200.
        """
        rope = _rope(config)
        head_dim = _head_dim(config)
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        power = np.power(np.float64(rope["rope_theta"]), exponents.astype(np.float64))
        inv_freq = np.float32(1.0) / power.astype(np.float32)
        if rope["rope_type"] == "linear":
            return inv_freq / np.float32(rope["factor"])
        if rope["rope_type"] == "llama3":
            return _llama3_scaled(inv_freq, rope)
        return inv_freq

    def tensors(self, spec: ModelSpec) -> list[TensorSource]:
        vocab_shape = (spec.n_vocab, spec.d_model)
        result = [
            TensorSource("token_embd", "token_embd", "model.embed_tokens.weight", vocab_shape)
        ]
        for index, layer in enumerate(spec.layers):
            shapes = _layer_shapes(spec.d_model, layer)
            for role, source in _LAYER_TENSORS:
                hf_name = f"model.layers.{index}.{source}.weight"
                result.append(TensorSource(f"layers.{index}.{role}", role, hf_name, shapes[role]))
        result.append(
            TensorSource("output_norm", "output_norm", "model.norm.weight", (spec.d_model,))
        )
        if not spec.tied_head:
            result.append(TensorSource("output", "output", "lm_head.weight", vocab_shape))
        return result

    def ignorable(self, spec: ModelSpec) -> set[str]:
        names = {
            f"model.layers.{index}.self_attn.rotary_emb.inv_freq"
            for index in range(len(spec.layers))
        }
        # Tied: transformers uses the embedding whatever lm_head.weight holds.
        return names | ({"lm_head.weight"} if spec.tied_head else set())

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        return sorted(set(config) - _READ - _CHANGES_NOTHING - set(_HONOURED_ONLY_AS))


def _layer_shapes(d_model: int, layer: LayerSpec) -> dict[str, tuple[int, ...]]:
    d_q = layer.n_heads * layer.head_dim
    d_kv = layer.n_kv_heads * layer.head_dim
    return {
        "attn_norm": (d_model,),
        "attn_q": (d_q, d_model),
        "attn_k": (d_kv, d_model),
        "attn_v": (d_kv, d_model),
        "attn_o": (d_model, d_q),
        "ffn_norm": (d_model,),
        "ffn_gate": (layer.d_ffn, d_model),
        "ffn_up": (layer.d_ffn, d_model),
        "ffn_down": (d_model, layer.d_ffn),
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys (rope_theta, rope_scaling) or the newer rope_parameters, as one checked dict."""
    scaling = config.get("rope_scaling")
    parameters = config.get("rope_parameters")
    merged: dict[str, Any] = {"rope_theta": config.get("rope_theta", 10000.0)}
    for key, value in (("rope_scaling", scaling), ("rope_parameters", parameters)):
        if value is None:
            continue
        if not isinstance(value, dict):
            raise FormatError(f"config.json: '{key}' must be an object", code="json_type")
        merged.update(value)
    rope_type = merged.pop("rope_type", None) or merged.get("type") or "default"
    merged.pop("type", None)
    if rope_type not in _ROPE_KEYS:
        raise UnsupportedError(
            f"config.json: rope type {_short(rope_type)} is not supported (supported: "
            f"{', '.join(_ROPE_KEYS)})",
            code="spec_unsupported",
        )
    needed = _ROPE_KEYS[rope_type]
    if merged.pop("partial_rotary_factor", 1.0) not in (1, None):
        raise UnsupportedError(
            "config.json: partial_rotary_factor other than 1 is not supported for Llama",
            code="spec_unsupported",
        )
    if "original_max_position_embeddings" in needed:
        merged.setdefault(
            "original_max_position_embeddings",
            config.get(
                "original_max_position_embeddings", config.get("max_position_embeddings", 2048)
            ),
        )
    unknown = sorted(set(merged) - needed - {"rope_theta", "original_max_position_embeddings"})
    if unknown:
        raise UnsupportedError(
            f"config.json: rope parameter '{unknown[0]}' is not supported for type '{rope_type}'",
            code="spec_unsupported",
        )
    values = {key: _positive(merged, key) for key in sorted(needed | {"rope_theta"})}
    if rope_type == "llama3" and values["high_freq_factor"] <= values["low_freq_factor"]:
        raise FormatError(
            "config.json: high_freq_factor must be greater than low_freq_factor",
            code="spec_invalid",
        )
    return {"rope_type": rope_type, **values}


def _llama3_scaled(inv_freq: F32Array, rope: Mapping[str, Any]) -> F32Array:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    f32 = np.float32
    n_old, low, high = (
        rope["original_max_position_embeddings"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
    )
    factor = f32(rope["factor"])
    wavelen = f32(2 * math.pi) / inv_freq
    slowed = np.where(wavelen > f32(n_old / low), inv_freq / factor, inv_freq)
    smooth = (f32(n_old) / wavelen - f32(low)) / f32(high - low)
    between = (f32(1) - smooth) * slowed / factor + smooth * slowed
    is_between = ~(wavelen < f32(n_old / high)) & ~(wavelen > f32(n_old / low))
    return np.where(is_between, between, slowed).astype(np.float32)


def _head_dim(config: Mapping[str, Any]) -> int:
    n_heads = _integer(config, "num_attention_heads", 32)
    d_model = _integer(config, "hidden_size", 4096)
    if n_heads < 1:
        raise FormatError("config.json: 'num_attention_heads' must be >= 1", code="spec_invalid")
    if config.get("head_dim") is None and d_model % n_heads:
        raise FormatError(
            f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads "
            f"{n_heads} and there is no head_dim",
            code="spec_invalid",
        )
    return _integer(config, "head_dim", d_model // n_heads)


def _short(value: object) -> str:
    return repr(value)[:80]


def _integer(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"config.json: '{key}' must be an integer", code="json_type")
    return value


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise FormatError(f"config.json: '{key}' must be a number", code="json_type")
    return float(value)


def _positive(rope: Mapping[str, Any], key: str) -> float:
    if key not in rope:
        raise FormatError(
            f"config.json: rope parameter '{key}' is missing", code="json_missing_key"
        )
    value = _number(rope, key, 0.0)
    if not (math.isfinite(value) and value > 0):
        raise FormatError(
            f"config.json: rope parameter '{key}' is {value}, it must be positive",
            code="spec_invalid",
        )
    return value


def _boolean(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise FormatError(f"config.json: '{key}' must be true or false", code="json_type")
    return value


def _token_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], key: str, default: int
) -> tuple[int, ...]:
    """generation_config.json wins over config.json, as in generate(); null means none."""
    value = generation[key] if key in generation else config.get(key, default)
    if value is None:
        value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise FormatError(
                f"config.json: '{key}' must hold token ids, not {_short(token_id)}",
                code="json_type",
            )
    return tuple(dict.fromkeys(ids))
