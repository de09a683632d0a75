"""Mixtral: Mistral with experts in place of the feed-forward, two of which each token uses."""

from __future__ import annotations

from dataclasses import replace

from ..spec import LayerSpec
from . import register
from ._config import Config
from ._family import NAMES
from .mistral import Mistral

_MOE = "model.layers.{layer}.block_sparse_moe."


@register("MixtralForCausalLM", "mixtral")
class Mixtral(Mistral):
    """Defaults are those of transformers' MixtralConfig."""

    arch = "mixtral"
    defaults = {
        **Mistral.defaults,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "sliding_window": None,
    }
    names = {
        **NAMES,
        "ffn_router": (_MOE + "gate.weight", "model.layers.{layer}.mlp.gate.weight"),
        "ffn_gate_exps": _MOE + "experts.{expert}.w1.weight",
        "ffn_up_exps": _MOE + "experts.{expert}.w3.weight",
        "ffn_down_exps": _MOE + "experts.{expert}.w2.weight",
    }

    def layer(self, config: Config, index: int) -> LayerSpec:
        layer = super().layer(config, index)
        return replace(
            layer,
            d_ffn=0,
            n_experts=config.integer("num_local_experts"),
            n_experts_used=config.integer("num_experts_per_tok"),
            d_expert=layer.d_ffn,
            norm_topk=True,
        )
