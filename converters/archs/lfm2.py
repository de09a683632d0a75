"""LFM2: most layers are gated short convolutions, the others attention with an RMSNorm of every
head's query and key."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.errors import FormatError

from ..layout import Slot
from ..spec import LayerSpec
from ..views import Part
from . import register
from ._config import Config, not_supported
from ._family import DEFAULTS, FULL, NAMES, Family

CONV = "conv"
_LAYER = "model.layers.{layer}."


@register("Lfm2ForCausalLM", "lfm2")
class Lfm2(Family):
    """Defaults are those of transformers' Lfm2Config."""

    arch = "lfm2"
    defaults = {
        **{k: v for k, v in DEFAULTS.items() if k not in ("hidden_act", "rms_norm_eps")},
        "block_auto_adjust_ff_dim": True,
        "block_ff_dim": None,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 256,
        "bos_token_id": 1,
        "conv_L_cache": 3,
        "eos_token_id": 2,
        "full_attn_idxs": None,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "layer_types": None,
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "vocab_size": 65536,
    }
    names = {
        **NAMES,
        "output_norm": "model.embedding_norm.weight",
        "attn_norm": _LAYER + "operator_norm.weight",
        "attn_o": _LAYER + "self_attn.out_proj.weight",
        "attn_q_norm": _LAYER + "self_attn.q_layernorm.weight",
        "attn_k_norm": _LAYER + "self_attn.k_layernorm.weight",
        "conv_in": _LAYER + "conv.in_proj.weight",
        "conv_taps": _LAYER + "conv.conv.weight",
        "conv_out": _LAYER + "conv.out_proj.weight",
        "ffn_norm": _LAYER + "ffn_norm.weight",
        "ffn_gate": _LAYER + "feed_forward.w1.weight",
        "ffn_up": _LAYER + "feed_forward.w3.weight",
        "ffn_down": _LAYER + "feed_forward.w2.weight",
    }
    only = {"conv_bias": (False, None), "tie_embedding": (True,)}
    eps_key = "norm_eps"

    def layer(self, config: Config, index: int) -> LayerSpec:
        d_ffn = _d_ffn(config, index)
        if self._kinds(config)[index] == CONV:
            n_taps = config.integer("conv_L_cache")
            return LayerSpec(0, 0, 0, d_ffn, mixer="short_conv", conv_kernel=n_taps)
        n_heads = config.integer("num_attention_heads", index)
        n_kv_heads = config.integer("num_key_value_heads", index)
        return LayerSpec(n_heads, n_kv_heads, self.head_dim(config), d_ffn, qk_norm="head")

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        if slot.role != "conv_taps":
            return super().parts(slot, name, config)
        shape = (config.integer("hidden_size"), 1, config.integer("conv_L_cache"))
        return (Part(name, shape, slot.shape[0], transposed=True),)

    def _kinds(self, config: Config) -> Sequence[str]:
        """ "conv" or "full_attention", of every layer."""
        n_layers = config.integer("num_hidden_layers")
        kinds = config.items("layer_types", n_layers, str)
        if kinds is not None:
            unknown = next((kind for kind in kinds if kind not in (CONV, FULL)), None)
            if unknown is not None:
                raise not_supported("layer_types", unknown, (CONV, FULL))
            return kinds
        indices = config.items("full_attn_idxs", 0, int)
        of_attention = range(n_layers) if indices is None else indices
        return [FULL if index in of_attention else CONV for index in range(n_layers)]


def _d_ffn(config: Config, index: int) -> int:
    given = config.optional_integer("block_ff_dim")
    width = config.integer("intermediate_size", index) if given is None else given
    if not config.boolean("block_auto_adjust_ff_dim"):
        return width
    width = int(2 * width / 3)
    if config.get("block_ffn_dim_multiplier") is None:
        return width
    unit = config.integer("block_multiple_of")
    if unit < 1:
        raise FormatError(
            f"config.json: 'block_multiple_of' is {unit}, it must be >= 1", code="spec_invalid"
        )
    width = int(config.number("block_ffn_dim_multiplier") * width)
    return unit * ((width + unit - 1) // unit)
