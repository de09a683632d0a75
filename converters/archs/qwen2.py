"""Qwen 2 and 2.5: Llama with biases of q, k and v, and sliding windows in the upper layers where
config.json switches them on."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import DEFAULTS, SLIDING, Family

QWEN_DEFAULTS = {
    **DEFAULTS,
    "intermediate_size": 22016,
    "layer_types": None,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


@register("Qwen2ForCausalLM", "qwen2")
class Qwen2(Family):
    """Defaults are those of transformers' Qwen2Config."""

    arch = "qwen2"
    defaults = QWEN_DEFAULTS
    only = {"attention_bias": (True, None), "mlp_bias": (False, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        layer = super().layer(config, index)
        return replace(layer, qkv_bias=True, window=qwen_window(self, config, index))


def qwen_window(family: Family, config: Config, index: int) -> int:
    """The layers named, else those from max_window_layers on."""
    window = config.optional_integer("sliding_window") or 0
    if not config.boolean("use_sliding_window"):
        return 0
    kind = family.layer_type(config, index)
    is_sliding = kind == SLIDING if kind else index >= config.integer("max_window_layers")
    return window if is_sliding else 0
