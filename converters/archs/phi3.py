"""Phi 3, 3.5 and 4-mini: Llama with q, k and v in one matrix, gate and up in another, a part of
each head turning, and LongRoPE."""

from __future__ import annotations

from dataclasses import replace

from ..layout import Slot
from ..spec import LayerSpec
from ..views import Part
from . import register
from ._config import Config
from ._family import DEFAULTS, NAMES, Family

_LAYER = "model.layers.{layer}."


@register("Phi3ForCausalLM", "phi3")
class Phi3(Family):
    """Defaults are those of transformers' Phi3Config."""

    arch = "phi3"
    defaults = {
        **DEFAULTS,
        "bos_token_id": 1,
        "eos_token_id": 32000,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": None,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "vocab_size": 32064,
    }
    names = {
        **NAMES,
        **dict.fromkeys(("attn_q", "attn_k", "attn_v"), _LAYER + "self_attn.qkv_proj.weight"),
        **dict.fromkeys(("ffn_gate", "ffn_up"), _LAYER + "mlp.gate_up_proj.weight"),
    }
    only = {
        "attention_bias": (False, None),
        "full_attn_mod": (1, None),
        "interpolate_factor": (1, None),
        "lm_head_bias": (False, None),
        "mlp_bias": (False, None),
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        window = config.optional_integer("sliding_window") or 0
        return replace(super().layer(config, index), window=window)

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        layer = self.layer(config, slot.layer or 0)
        d_q, d_kv = layer.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
        fused = {
            "attn_q": (0, d_q + 2 * d_kv),
            "attn_k": (d_q, d_q + 2 * d_kv),
            "attn_v": (d_q + d_kv, d_q + 2 * d_kv),
            "ffn_gate": (0, 2 * layer.d_ffn),
            "ffn_up": (layer.d_ffn, 2 * layer.d_ffn),
        }
        if slot.role not in fused:
            return super().parts(slot, name, config)
        row0, n_rows = fused[slot.role]
        return (Part(name, (n_rows, slot.shape[1]), slot.shape[0], row0),)
