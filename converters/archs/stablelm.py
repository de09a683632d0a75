"""StableLM: Llama with LayerNorms, a quarter of each head turning, biases of q, k and v, and, in
some models, attention and feed-forward side by side behind one norm."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import EQUAL_HEADS, Family

_PARALLEL = "use_parallel_residual"


@register("StableLmForCausalLM", "stablelm")
class StableLm(Family):
    """Defaults are those of transformers' StableLmConfig."""

    arch = "stablelm"
    defaults = {
        **EQUAL_HEADS,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_size": 2560,
        "intermediate_size": 6912,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.25,
        _PARALLEL: False,
        "use_qkv_bias": False,
        "vocab_size": 50304,
    }
    # The norm of every single head, a LayerNorm in the larger models.
    only = {"qk_layernorm": (False, None)}
    norm = "layer"
    eps_key = "layer_norm_eps"

    def layer(self, config: Config, index: int) -> LayerSpec:
        return replace(
            super().layer(config, index),
            parallel=config.boolean(_PARALLEL),
            qkv_bias=config.boolean("use_qkv_bias"),
        )

    def stored_role(self, role: str, config: Config) -> str:
        shared = config.boolean(_PARALLEL) and role.startswith("ffn_norm")
        return role.replace("ffn_norm", "attn_norm") if shared else role
