"""Llama 2 to 3.2 and what is made like it (SmolLM2, TinyLlama, Vicuna): RMSNorm, grouped-query
attention, rotary positions, gated SiLU; biases where config.json asks for them."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import DEFAULTS, Family


@register("LlamaForCausalLM", "llama")
class Llama(Family):
    """Defaults are those of transformers' LlamaConfig."""

    defaults = {
        **DEFAULTS,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mlp_bias": False,
    }
    only = {"partial_rotary_factor": (1.0, 1, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        attention_bias = config.boolean("attention_bias")
        return replace(
            super().layer(config, index),
            qkv_bias=attention_bias,
            o_bias=attention_bias,
            ffn_bias=config.boolean("mlp_bias"),
        )
