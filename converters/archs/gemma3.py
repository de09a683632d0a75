"""Gemma 3, the language model: Gemma 2 with a norm of queries and keys, five local layers to each
global one, and rotary tables of two bases: "local" for the former, scaled for the latter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgellm.errors import FormatError

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import FULL, SLIDING
from ._rope import Rope, rope_object, rope_of
from .gemma2 import GEMMA_DEFAULTS, Gemma2


@register("Gemma3ForCausalLM", "gemma3_text", "gemma3")
class Gemma3(Gemma2):
    """Defaults are those of transformers' Gemma3TextConfig."""

    arch = "gemma3"
    defaults = {
        **GEMMA_DEFAULTS,
        "max_position_embeddings": 131072,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1000000.0,
        "sliding_window_pattern": 6,
        "vocab_size": 262208,
    }
    only = {"use_res_clamp": (False, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        rope = "local" if self.is_sliding(config, index) else "full"
        return replace(super().layer(config, index), qk_norm="head", rope=rope)

    def is_sliding(self, config: Config, index: int) -> bool:
        kind = self.layer_type(config, index)
        if kind:
            return kind == SLIDING
        pattern = config.integer("sliding_window_pattern")
        if pattern < 1:
            raise FormatError(
                f"config.json: 'sliding_window_pattern' is {pattern}, it must be >= 1",
                code="spec_invalid",
            )
        return (index + 1) % pattern != 0

    def rope(self, config: Config) -> Rope:
        flat = {"rope_theta": config.get("rope_theta")} | rope_object(config, "rope_scaling")
        return rope_of(config, flat | self._nested(config, FULL), self.head_dim(config))

    def local_rope(self, config: Config) -> Rope | None:
        n_layers = config.integer("num_hidden_layers")
        if not any(self.is_sliding(config, index) for index in range(n_layers)):
            return None
        flat = {"rope_theta": config.get("rope_local_base_freq")}
        return rope_of(config, flat | self._nested(config, SLIDING), self.head_dim(config))

    @staticmethod
    def _nested(config: Config, kind: str) -> dict[str, Any]:
        """The newer spelling: one object for each type of layer."""
        value = rope_object(config, "rope_parameters").get(kind)
        if value is not None and not isinstance(value, dict):
            raise FormatError(
                f"config.json: rope_parameters: '{kind}' must be an object", code="json_type"
            )
        return dict(value or {})
