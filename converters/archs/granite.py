"""Granite 3: Llama with multipliers of embedding, scores, residual and logits. Those of residual
and logits are folded into the weights that they multiply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..spec import LayerSpec
from . import register
from ._config import Config, as_positive
from .llama import Llama

MULTIPLIERS = {
    "attention_multiplier": 1.0,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
}
_ADDED = ("attn_o", "attn_o_bias", "ffn_down", "ffn_down_bias")  # to the residual stream


@register("GraniteForCausalLM", "granite")
class Granite(Llama):
    """Defaults are those of transformers' GraniteConfig."""

    arch = "granite"
    defaults = {**Llama.defaults, **MULTIPLIERS}

    def layer(self, config: Config, index: int) -> LayerSpec:
        scale = positive(config, "attention_multiplier")
        return replace(super().layer(config, index), attn_scale=scale)

    def whole(self, config: Config) -> dict[str, Any]:
        checked = {key: positive(config, key) for key in MULTIPLIERS}
        return {"embed_scale": checked["embedding_multiplier"]}

    def changed(self, role: str, config: Config) -> tuple[float, float]:
        if role in _ADDED:
            return positive(config, "residual_multiplier"), 0.0
        if role == "output_norm":
            return 1 / positive(config, "logits_scaling"), 0.0
        return 1.0, 0.0

    def scales(self, config: Mapping[str, Any]) -> dict[str, float]:
        factor = positive(Config(config, self.defaults), "residual_multiplier")
        return {role: factor for role in _ADDED if not role.endswith("_bias")}


def positive(config: Config, key: str) -> float:
    return as_positive(config.number(key), key)
