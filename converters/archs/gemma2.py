"""Gemma 2: norms before and after both sublayers with weights around zero, capped scores and
logits, a scaled embedding, a sliding window in every other layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..spec import LayerSpec
from . import register
from ._config import Config, as_positive
from ._family import DEFAULTS, NAMES, SLIDING, Family

GEMMA_DEFAULTS = {
    **DEFAULTS,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_act": None,  # an older name of hidden_activation, without effect beside it
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "layer_types": None,
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_attention_size": None,  # as some configurations call it
    "sliding_window_size": None,
    "tie_word_embeddings": True,
}
_LAYER = "model.layers.{layer}."
GEMMA_NAMES = {
    **NAMES,
    "attn_post_norm": _LAYER + "post_attention_layernorm.weight",
    "ffn_norm": _LAYER + "pre_feedforward_layernorm.weight",
    "ffn_post_norm": _LAYER + "post_feedforward_layernorm.weight",
}


@register("Gemma2ForCausalLM", "gemma2")
class Gemma2(Family):
    """Defaults are those of transformers' Gemma2Config."""

    arch = "gemma2"
    defaults = {
        **GEMMA_DEFAULTS,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 8192,
        "vocab_size": 256000,
    }
    names = GEMMA_NAMES
    act_key = "hidden_activation"

    def layer(self, config: Config, index: int) -> LayerSpec:
        has_bias = config.boolean("attention_bias")
        scalar = as_positive(config.number("query_pre_attn_scalar"), "query_pre_attn_scalar")
        return replace(
            super().layer(config, index),
            qkv_bias=has_bias,
            o_bias=has_bias,
            post_norm=True,
            attn_scale=scalar**-0.5,
            attn_softcap=optional_cap(config, "attn_logit_softcapping"),
            window=self.window(config) if self.is_sliding(config, index) else 0,
        )

    def whole(self, config: Config) -> dict[str, Any]:
        return {
            "embed_scale": config.integer("hidden_size") ** 0.5,
            "final_softcap": optional_cap(config, "final_logit_softcapping"),
        }

    def changed(self, role: str, config: Config) -> tuple[float, float]:
        return 1.0, 1.0 if role.endswith("_norm") else 0.0

    def is_sliding(self, config: Config, index: int) -> bool:
        kind = self.layer_type(config, index)
        return kind == SLIDING if kind else index % 2 == 0

    def window(self, config: Config) -> int:
        """Of the layers that have one. A null: none has."""
        keys = ("sliding_window", "sliding_window_attention_size", "sliding_window_size")
        named = [key for key in keys if key in config.values]
        return config.optional_integer(named[0] if named else keys[0]) or 0


def optional_cap(config: Config, key: str) -> float:
    """A positive number, 0 for none."""
    return 0.0 if config.get(key) is None else as_positive(config.get(key), key)
