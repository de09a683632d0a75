"""Gemma 1: Llama with norm weights around zero, a scaled embedding and GELU in place of SiLU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import DEFAULTS, Family


@register("GemmaForCausalLM", "gemma")
class Gemma(Family):
    """Defaults are those of transformers' GemmaConfig."""

    arch = "gemma"
    defaults = {
        **DEFAULTS,
        "attention_bias": False,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "max_position_embeddings": 8192,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 16,
        "tie_word_embeddings": True,
        "vocab_size": 256000,
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        layer, has_bias = super().layer(config, index), config.boolean("attention_bias")
        # The first releases say "gelu" and mean its approximation by tanh, as transformers knows.
        act = "gelu_tanh" if layer.ffn_act == "gelu" else layer.ffn_act
        return replace(layer, qkv_bias=has_bias, o_bias=has_bias, ffn_act=act)

    def whole(self, config: Config) -> dict[str, Any]:
        return {"embed_scale": config.integer("hidden_size") ** 0.5}

    def changed(self, role: str, config: Config) -> tuple[float, float]:
        return 1.0, 1.0 if role.endswith("_norm") else 0.0
