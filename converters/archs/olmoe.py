"""OLMoE: Llama with experts and an RMSNorm over all queries and all keys."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._experts import routed
from ._family import DEFAULTS, Family


@register("OlmoeForCausalLM", "olmoe")
class Olmoe(Family):
    """Defaults are those of transformers' OlmoeConfig."""

    arch = "olmoe"
    defaults = {
        **DEFAULTS,
        "attention_bias": False,
        "eos_token_id": 50279,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "max_position_embeddings": 4096,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 16,
        "num_local_experts": None,
        "rms_norm_eps": 1e-5,
        "vocab_size": 50304,
    }
    only = {"clip_qkv": (None,)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        layer, has_bias = super().layer(config, index), config.boolean("attention_bias")
        layer = replace(layer, qkv_bias=has_bias, o_bias=has_bias, qk_norm="full")
        return routed(config, layer, d_expert=layer.d_ffn)
