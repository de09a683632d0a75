"""Qwen 3: Qwen 2 without its biases and with an RMSNorm of every head's query and key."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import Family
from .qwen2 import QWEN_DEFAULTS, qwen_window


@register("Qwen3ForCausalLM", "qwen3")
class Qwen3(Family):
    """Defaults are those of transformers' Qwen3Config."""

    arch = "qwen3"
    defaults = {**QWEN_DEFAULTS, "attention_bias": False, "head_dim": 128}
    only = {"mlp_bias": (False, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        has_bias = config.boolean("attention_bias")
        return replace(
            super().layer(config, index),
            qkv_bias=has_bias,
            o_bias=has_bias,
            qk_norm="head",
            window=qwen_window(self, config, index),
        )
