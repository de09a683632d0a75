"""Mistral: Llama with a sliding window in every layer, where config.json gives one."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import DEFAULTS, Family


@register("MistralForCausalLM", "mistral")
class Mistral(Family):
    """Defaults are those of transformers' MistralConfig."""

    arch = "mistral"
    defaults = {
        **DEFAULTS,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "intermediate_size": 14336,
        "max_position_embeddings": 4096 * 32,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    }
    only = {"attention_bias": (False, None), "mlp_bias": (False, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        window = config.optional_integer("sliding_window") or 0
        return replace(super().layer(config, index), window=window)
