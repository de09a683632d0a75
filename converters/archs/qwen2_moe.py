"""Qwen 2 MoE: Qwen 2 with experts, and one expert behind a gate that every token uses."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._experts import sparse_layer
from ._family import SLIDING
from .qwen2 import QWEN_DEFAULTS, Qwen2


@register("Qwen2MoeForCausalLM", "qwen2_moe")
class Qwen2Moe(Qwen2):
    """Defaults are those of transformers' Qwen2MoeConfig."""

    arch = "qwen2_moe"
    defaults = {
        **QWEN_DEFAULTS,
        "decoder_sparse_step": 1,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "mlp_only_layers": None,
        "moe_intermediate_size": 1408,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 16,
        "num_local_experts": None,
        "qkv_bias": True,
        "shared_expert_intermediate_size": 5632,
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        layer = replace(
            super().layer(config, index),
            qkv_bias=config.boolean("qkv_bias"),
            window=self._window(config, index),
        )
        return sparse_layer(
            config,
            index,
            layer,
            d_shared=config.integer("shared_expert_intermediate_size"),
        )

    def _window(self, config: Config, index: int) -> int:
        """Every other one of the lower layers, where none are named."""
        if not config.boolean("use_sliding_window"):
            return 0
        kind = self.layer_type(config, index)
        lower = index % 2 == 0 and index < config.integer("max_window_layers")
        is_sliding = kind == SLIDING if kind else lower
        return (config.optional_integer("sliding_window") or 0) if is_sliding else 0
