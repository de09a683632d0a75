"""OLMo 2: Llama with norms after the sublayers, and an RMSNorm over all queries and all keys."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import DEFAULTS, NAMES, Family

_LAYER = "model.layers.{layer}."


@register("Olmo2ForCausalLM", "olmo2")
class Olmo2(Family):
    """Defaults are those of transformers' Olmo2Config."""

    arch = "olmo2"
    defaults = {
        **DEFAULTS,
        "attention_bias": False,
        "eos_token_id": 50279,
        "rms_norm_eps": 1e-5,
        "vocab_size": 50304,
    }
    names = {
        **NAMES,
        "attn_post_norm": _LAYER + "post_attention_layernorm.weight",
        "ffn_post_norm": _LAYER + "post_feedforward_layernorm.weight",
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        has_bias = config.boolean("attention_bias")
        return replace(
            super().layer(config, index),
            qkv_bias=has_bias,
            o_bias=has_bias,
            pre_norm=False,
            post_norm=True,
            qk_norm="full",
        )
