"""GPT-2: learned positions, LayerNorms, biases everywhere, an ungated GELU, and matrices stored as
[inputs, outputs]."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..layout import Slot
from ..spec import LayerSpec, ModelSpec
from ..views import Part
from . import register
from ._config import Config
from ._family import ACTIVATIONS, EQUAL_HEADS, Family, TensorSource
from ._rope import Rope

_FUSED = ("attn_q", "attn_k", "attn_v")
_LAYER = "h.{layer}."
_NAMES = {
    "token_embd": "wte.weight",
    "position_embd": "wpe.weight",
    "output_norm": "ln_f.weight",
    "output_norm_bias": "ln_f.bias",
    "attn_norm": _LAYER + "ln_1.weight",
    "attn_norm_bias": _LAYER + "ln_1.bias",
    **dict.fromkeys(_FUSED, _LAYER + "attn.c_attn.weight"),
    **{f"{role}_bias": _LAYER + "attn.c_attn.bias" for role in _FUSED},
    "attn_o": _LAYER + "attn.c_proj.weight",
    "attn_o_bias": _LAYER + "attn.c_proj.bias",
    "ffn_norm": _LAYER + "ln_2.weight",
    "ffn_norm_bias": _LAYER + "ln_2.bias",
    "ffn_up": _LAYER + "mlp.c_fc.weight",
    "ffn_up_bias": _LAYER + "mlp.c_fc.bias",
    "ffn_down": _LAYER + "mlp.c_proj.weight",
    "ffn_down_bias": _LAYER + "mlp.c_proj.bias",
}
# Its names of what other families call otherwise.
_KEYS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "activation_function": "hidden_act",
}
_SUMMARY = ("activation", "first_dropout", "proj_to_labels", "type", "use_proj")


@register("GPT2LMHeadModel", "gpt2")
class Gpt2(Family):
    """Defaults are those of transformers' GPT2Config."""

    arch = "gpt2"
    defaults = {
        **EQUAL_HEADS,
        **dict.fromkeys(_KEYS),
        **dict.fromkeys(f"summary_{key}" for key in _SUMMARY),  # of another head
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "hidden_act": "gelu_new",
        "hidden_size": 768,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 1024,
        "n_ctx": None,  # as n_positions
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "reorder_and_upcast_attn": False,  # the same sums
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "vocab_size": 50257,
    }
    names = {role: (name, f"transformer.{name}") for role, name in _NAMES.items()} | {
        "output": "lm_head.weight"
    }
    ignored = r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"
    norm = "layer"
    eps_key = "layer_norm_epsilon"

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        return super().to_spec(_usual(config), generation)

    def tensors(
        self, spec: ModelSpec, config: Mapping[str, Any], stored: Collection[str]
    ) -> list[TensorSource]:
        return super().tensors(spec, _usual(config), stored)

    def layer(self, config: Config, index: int) -> LayerSpec:
        n_inner = config.optional_integer("intermediate_size")
        n_heads, d_model = config.integer("num_attention_heads"), config.integer("hidden_size")
        head_dim = self.head_dim(config)
        scale = head_dim**-0.5 if config.boolean("scale_attn_weights") else 1.0
        if config.boolean("scale_attn_by_inverse_layer_idx"):
            scale /= index + 1
        return LayerSpec(
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=head_dim,
            d_ffn=4 * d_model if n_inner is None else n_inner,
            qkv_bias=True,
            o_bias=True,
            ffn_bias=True,
            attn_scale=scale,
            ffn_act=config.one_of("hidden_act", ACTIVATIONS),
            ffn_gated=False,
        )

    def whole(self, config: Config) -> dict[str, Any]:
        return {"n_positions": config.integer("max_position_embeddings")}

    def rope(self, config: Config) -> Rope | None:
        return None

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        """Matrices but the embeddings are stored transposed; q, k and v stand side by side."""
        role = slot.role.removesuffix("_bias")
        if slot.layer is None or role.endswith("_norm"):
            return super().parts(slot, name, config)
        n_rows = slot.shape[0]
        n_stored, row0 = n_rows, 0
        if role in _FUSED:
            n_stored, row0 = 3 * n_rows, n_rows * _FUSED.index(role)
        if len(slot.shape) == 1:
            return (Part(name, (n_stored,), n_rows, row0),)
        return (Part(name, (slot.shape[1], n_stored), n_rows, row0, transposed=True),)


def _usual(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the keys that other families have."""
    return {_KEYS.get(key, key): value for key, value in config.items()}
