"""GPT-NeoX and Pythia: LayerNorms, biases everywhere, attention and feed-forward side by side, an
ungated GELU, and q, k and v of each head one below the other in one matrix."""

from __future__ import annotations

from dataclasses import replace

from ..layout import Slot
from ..spec import LayerSpec
from ..views import Part
from . import register
from ._config import Config
from ._family import EQUAL_HEADS, Family
from ._rope import Rope, rope_object, rope_of

_LAYER = "gpt_neox.layers.{layer}."
_FUSED = ("attn_q", "attn_k", "attn_v")


@register("GPTNeoXForCausalLM", "gpt_neox")
class GptNeoX(Family):
    """Defaults are those of transformers' GPTNeoXConfig."""

    arch = "gpt_neox"
    defaults = {
        **EQUAL_HEADS,
        "attention_bias": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 64,
        "num_hidden_layers": 44,
        "partial_rotary_factor": None,
        "rotary_emb_base": 10000.0,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
        "vocab_size": 50432,
    }
    names = {
        "token_embd": "gpt_neox.embed_in.weight",
        "output_norm": "gpt_neox.final_layer_norm.weight",
        "output_norm_bias": "gpt_neox.final_layer_norm.bias",
        "output": ("embed_out.weight", "lm_head.weight"),
        "attn_norm": _LAYER + "input_layernorm.weight",
        "attn_norm_bias": _LAYER + "input_layernorm.bias",
        **dict.fromkeys(_FUSED, _LAYER + "attention.query_key_value.weight"),
        **{f"{role}_bias": _LAYER + "attention.query_key_value.bias" for role in _FUSED},
        "attn_o": _LAYER + "attention.dense.weight",
        "attn_o_bias": _LAYER + "attention.dense.bias",
        "ffn_norm": _LAYER + "post_attention_layernorm.weight",
        "ffn_norm_bias": _LAYER + "post_attention_layernorm.bias",
        "ffn_up": _LAYER + "mlp.dense_h_to_4h.weight",
        "ffn_up_bias": _LAYER + "mlp.dense_h_to_4h.bias",
        "ffn_down": _LAYER + "mlp.dense_4h_to_h.weight",
        "ffn_down_bias": _LAYER + "mlp.dense_4h_to_h.bias",
    }
    ignored = r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"
    norm = "layer"
    eps_key = "layer_norm_eps"

    def layer(self, config: Config, index: int) -> LayerSpec:
        has_bias = config.boolean("attention_bias")
        return replace(
            super().layer(config, index),
            parallel=config.boolean("use_parallel_residual"),
            qkv_bias=has_bias,
            o_bias=has_bias,
            ffn_bias=True,
            ffn_gated=False,
        )

    def rope(self, config: Config) -> Rope:
        flat = {
            "rope_theta": config.get("rotary_emb_base"),
            "partial_rotary_factor": config.get("rotary_pct"),
        }
        flat |= rope_object(config, "rope_scaling") | rope_object(config, "rope_parameters")
        return rope_of(config, flat, self.head_dim(config))

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        role = slot.role.removesuffix("_bias")
        if role not in _FUSED:
            return super().parts(slot, name, config)
        n_heads, head_dim = config.integer("num_attention_heads"), self.head_dim(config)
        shape = (3 * slot.shape[0], *slot.shape[1:])
        starts = ((3 * head + _FUSED.index(role)) * head_dim for head in range(n_heads))
        return tuple(Part(name, shape, head_dim, row0) for row0 in starts)
