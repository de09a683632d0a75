"""Granite 4 without state space layers and experts: Granite 3 with gate and up in one matrix.
Its hybrid and sparse models are refused."""

from __future__ import annotations

from dataclasses import replace

from edgellm.errors import UnsupportedError

from ..layout import Slot
from ..spec import LayerSpec
from ..views import Part
from . import register
from ._config import Config, not_supported
from ._family import FULL, NAMES
from ._rope import Rope
from .granite import Granite

_LAYER = "model.layers.{layer}.shared_mlp."
_ATTENTION = (FULL, "attention")


@register("GraniteMoeHybridForCausalLM", "granitemoehybrid")
class GraniteHybrid(Granite):
    """Defaults are those of transformers' GraniteMoeHybridConfig."""

    arch = "granite"
    defaults = {
        **Granite.defaults,
        "layer_types": None,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "position_embedding_type": None,
        "shared_intermediate_size": 1024,
        # Of the state space layers, of which there are none.
        **dict.fromkeys(f"mamba_{key}" for key in ("chunk_size", "conv_bias", "d_conv", "d_head")),
        **dict.fromkeys(f"mamba_{key}" for key in ("d_state", "expand", "n_groups", "n_heads")),
        "mamba_proj_bias": None,
        "time_step_limit": None,
    }
    names = {
        **NAMES,
        "ffn_gate": _LAYER + "input_linear.weight",
        "ffn_up": _LAYER + "input_linear.weight",
        "ffn_down": _LAYER + "output_linear.weight",
    }
    only = {**Granite.only, "mlp_bias": (False, None)}

    def layer(self, config: Config, index: int) -> LayerSpec:
        n_experts = config.integer("num_local_experts")
        if n_experts:
            raise not_supported("num_local_experts", n_experts, ("0",))
        types = config.items("layer_types", config.integer("num_hidden_layers"), str)
        if types is None or types[index] not in _ATTENTION:
            kind = "linear_attention" if types is None else types[index]
            raise UnsupportedError(
                f"config.json: layer_types: layer {index} is '{kind[:40]}', a state space layer; "
                "of Granite 4 only models of attention layers can be converted",
                code="spec_unsupported",
            )
        d_ffn = config.integer("shared_intermediate_size")
        return replace(super().layer(config, index), d_ffn=d_ffn)

    def rope(self, config: Config) -> Rope | None:
        kind = config.get("position_embedding_type")
        if kind not in ("rope", "nope", None):
            raise not_supported("position_embedding_type", kind, ("rope", "nope"))
        return super().rope(config) if kind == "rope" else None

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        if slot.role not in ("ffn_gate", "ffn_up"):
            return super().parts(slot, name, config)
        d_ffn, d_model = slot.shape
        return (Part(name, (2 * d_ffn, d_model), d_ffn, d_ffn * (slot.role == "ffn_up")),)
