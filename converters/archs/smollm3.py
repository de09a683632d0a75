"""SmolLM 3: Llama whose every fourth layer has no positions (NoPE)."""

from __future__ import annotations

from dataclasses import replace

from edgellm.errors import FormatError

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import SLIDING
from .llama import Llama


@register("SmolLM3ForCausalLM", "smollm3")
class SmolLM3(Llama):
    """Defaults are those of transformers' SmolLM3Config."""

    arch = "smollm3"
    defaults = {
        **Llama.defaults,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "hidden_size": 2048,
        "layer_types": None,
        "max_position_embeddings": 32768,
        "no_rope_layer_interval": 4,
        "no_rope_layers": None,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 4,
        "rope_theta": 2000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": 128256,
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        has_rope = self._has_rope(config, index)
        window = config.optional_integer("sliding_window") or 0
        kind = self.layer_type(config, index)
        is_sliding = kind == SLIDING if kind else not has_rope
        if not config.boolean("use_sliding_window") or not is_sliding:
            window = 0
        layer = super().layer(config, index)
        return replace(layer, rope="full" if has_rope else "none", window=window)

    def _has_rope(self, config: Config, index: int) -> bool:
        flags = config.items("no_rope_layers", config.integer("num_hidden_layers"), int)
        if flags is not None:
            return bool(flags[index])
        interval = config.integer("no_rope_layer_interval")
        if interval < 1:
            raise FormatError(
                f"config.json: 'no_rope_layer_interval' is {interval}, it must be >= 1",
                code="spec_invalid",
            )
        return (index + 1) % interval != 0
