"""Layers of experts, as several families describe them in config.json."""

from __future__ import annotations

from dataclasses import replace

from edgellm.errors import FormatError

from ..spec import LayerSpec
from ._config import Config


def sparse_layer(config: Config, index: int, layer: LayerSpec, d_shared: int = 0) -> LayerSpec:
    """`layer` with experts, unless config.json says that layer `index` has none. A shared expert
    stands behind a gate."""
    dense = config.items("mlp_only_layers", 0, int) or []
    step = config.integer("decoder_sparse_step")
    if step < 1:
        raise FormatError(
            f"config.json: 'decoder_sparse_step' is {step}, it must be >= 1", code="spec_invalid"
        )
    if index in dense or n_experts(config) == 0 or (index + 1) % step:
        return layer
    layer = routed(config, layer, d_expert=config.integer("moe_intermediate_size"))
    return replace(layer, d_shared=d_shared, shared_gate=d_shared > 0)


def routed(config: Config, layer: LayerSpec, d_expert: int) -> LayerSpec:
    """`layer` with experts that a softmax over all of them chooses from."""
    return replace(
        layer,
        d_ffn=0,
        n_experts=n_experts(config),
        n_experts_used=config.integer("num_experts_per_tok"),
        d_expert=d_expert,
        norm_topk=config.boolean("norm_topk_prob"),
    )


def n_experts(config: Config) -> int:
    """Two names of one key."""
    other = config.optional_integer("num_local_experts")
    return config.integer("num_experts") if other is None else other
