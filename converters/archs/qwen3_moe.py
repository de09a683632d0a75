"""Qwen 3 MoE: Qwen 3 with experts. A sliding window, where switched on, is that of every layer."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._experts import sparse_layer
from .qwen3 import Qwen3


@register("Qwen3MoeForCausalLM", "qwen3_moe")
class Qwen3Moe(Qwen3):
    """Defaults are those of transformers' Qwen3MoeConfig, which has no head_dim."""

    arch = "qwen3_moe"
    defaults = {
        **Qwen3.defaults,
        "decoder_sparse_step": 1,
        "head_dim": None,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "mlp_only_layers": None,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 24,
        "num_key_value_heads": 4,
        "num_local_experts": None,
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        is_sliding = config.boolean("use_sliding_window")
        window = (config.optional_integer("sliding_window") or 0) if is_sliding else 0
        return sparse_layer(config, index, replace(super().layer(config, index), window=window))
