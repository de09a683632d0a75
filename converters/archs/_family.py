"""What decoder families have in common; a family states, as data, in what it differs from Llama.

A subclass gives its defaults of absent keys, which are also the keys that it reads, its tensor
names, and what its layers are. Everything else is here. The oracle is transformers' modeling code.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError

from ..layout import Shape, Slot, padded_rows, tensor_slots
from ..spec import MAX_LAYERS, LayerSpec, ModelSpec
from ..views import Part, View
from ._config import CHANGES_NOTHING, HONOURED_ONLY_AS, Config, is_bare, not_supported
from ._rope import Rope, read_rope

F32Array = npt.NDArray[np.float32]

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
MAX_PARTS = 1 << 20  # as many tensors as a checkpoint may have
FULL, SLIDING = "full_attention", "sliding_attention"
DEFAULTS: Mapping[str, Any] = {
    "bos_token_id": None,
    "eos_token_id": None,
    "head_dim": None,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": None,
    "original_max_position_embeddings": None,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
# Of families with as many key heads as query heads, which divide the width.
EQUAL_HEADS = {k: v for k, v in DEFAULTS.items() if k not in ("head_dim", "num_key_value_heads")}
_LAYER = "model.layers.{layer}."
# Role -> name in the checkpoint, or several that it may have, the newest last.
NAMES: Mapping[str, str | tuple[str, ...]] = {
    "token_embd": "model.embed_tokens.weight",
    "output_norm": "model.norm.weight",
    "output_norm_bias": "model.norm.bias",
    "output": "lm_head.weight",
    "attn_norm": _LAYER + "input_layernorm.weight",
    "attn_norm_bias": _LAYER + "input_layernorm.bias",
    "attn_q": _LAYER + "self_attn.q_proj.weight",
    "attn_k": _LAYER + "self_attn.k_proj.weight",
    "attn_v": _LAYER + "self_attn.v_proj.weight",
    "attn_o": _LAYER + "self_attn.o_proj.weight",
    "attn_q_bias": _LAYER + "self_attn.q_proj.bias",
    "attn_k_bias": _LAYER + "self_attn.k_proj.bias",
    "attn_v_bias": _LAYER + "self_attn.v_proj.bias",
    "attn_o_bias": _LAYER + "self_attn.o_proj.bias",
    "attn_q_norm": _LAYER + "self_attn.q_norm.weight",
    "attn_k_norm": _LAYER + "self_attn.k_norm.weight",
    "ffn_norm": _LAYER + "post_attention_layernorm.weight",
    "ffn_norm_bias": _LAYER + "post_attention_layernorm.bias",
    "ffn_gate": _LAYER + "mlp.gate_proj.weight",
    "ffn_up": _LAYER + "mlp.up_proj.weight",
    "ffn_down": _LAYER + "mlp.down_proj.weight",
    "ffn_gate_bias": _LAYER + "mlp.gate_proj.bias",
    "ffn_up_bias": _LAYER + "mlp.up_proj.bias",
    "ffn_down_bias": _LAYER + "mlp.down_proj.bias",
    "ffn_router": _LAYER + "mlp.gate.weight",
    "ffn_gate_exps": _LAYER + "mlp.experts.{expert}.gate_proj.weight",
    "ffn_up_exps": _LAYER + "mlp.experts.{expert}.up_proj.weight",
    "ffn_down_exps": _LAYER + "mlp.experts.{expert}.down_proj.weight",
    "ffn_gate_shexp": _LAYER + "mlp.shared_expert.gate_proj.weight",
    "ffn_up_shexp": _LAYER + "mlp.shared_expert.up_proj.weight",
    "ffn_down_shexp": _LAYER + "mlp.shared_expert.down_proj.weight",
    "ffn_gate_inp_shexp": _LAYER + "mlp.shared_expert_gate.weight",
}
# All experts of a layer in one tensor each, gate above up: [n_experts, rows, columns].
_STACKED = {
    "ffn_gate_exps": _LAYER + "mlp.experts.gate_up_proj",
    "ffn_up_exps": _LAYER + "mlp.experts.gate_up_proj",
    "ffn_down_exps": _LAYER + "mlp.experts.down_proj",
}
# Prefixes of a language model inside of a model that also sees or hears.
_WRAPPED = ("language_model.", "model.language_model.", "lm_head.")


@dataclass(frozen=True)
class TensorSource:
    """One tensor of the file and where it comes from. source: a name in the checkpoint, or, of a
    view, the name that the view shall have there. shape: (n,) of a vector."""

    name: str
    role: str
    source: str
    shape: Shape
    view: View

    @property
    def stored(self) -> Mapping[str, Shape]:
        """The tensors of the checkpoint that it is made of, and their shapes."""
        return self.view.stored


class Family:
    """Llama's blocks and Hugging Face's usual names. Nothing here keeps state."""

    arch: ClassVar[str] = "llama"
    defaults: ClassVar[Mapping[str, Any]] = DEFAULTS
    names: ClassVar[Mapping[str, str | tuple[str, ...]]] = NAMES
    # Key -> the values under which it changes nothing; others are refused.
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    # What some checkpoints carry although it holds nothing of its own.
    ignored: ClassVar[str] = r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
    norm: ClassVar[str] = "rms"
    eps_key: ClassVar[str] = "rms_norm_eps"
    act_key: ClassVar[str] = "hidden_act"
    is_wrapped = False

    # What a subclass overrides.

    def layer(self, config: Config, index: int) -> LayerSpec:
        """Layer `index`; here one of Llama's."""
        n_heads = config.integer("num_attention_heads", index)
        key = "num_key_value_heads"
        n_kv_heads = config.optional_integer(key, index) if config.knows(key) else None
        return LayerSpec(
            n_heads=n_heads,
            n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads,
            head_dim=self.head_dim(config),
            d_ffn=config.integer("intermediate_size", index),
            ffn_act=config.one_of(self.act_key, ACTIVATIONS),
        )

    def whole(self, config: Config) -> dict[str, Any]:
        """Fields of ModelSpec that are not Llama's."""
        return {}

    def rope(self, config: Config) -> Rope | None:
        """None: no rotation in any layer."""
        return read_rope(config, self.head_dim(config))

    def local_rope(self, config: Config) -> Rope | None:
        """Of layers whose rope is "local"."""
        return None

    def stored_role(self, role: str, config: Config) -> str:
        """The role under whose name a tensor is stored: another one of those that are shared."""
        return role

    def parts(self, slot: Slot, name: str, config: Config) -> tuple[Part, ...]:
        """What a tensor is made of. name: what `names` says; {expert} is still in it."""
        return (Part(name, slot.shape, slot.shape[0]),)

    def changed(self, role: str, config: Config) -> tuple[float, float]:
        """(scale, offset) of the values of a tensor on their way into the file."""
        return 1.0, 0.0

    # What archs/__init__.py promises of every architecture.

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        known = Config(config, self.defaults)
        known.check_honoured({**HONOURED_ONLY_AS, **self.only})
        n_layers = known.integer("num_hidden_layers")
        if not 1 <= n_layers <= MAX_LAYERS:
            raise FormatError(f"config.json: {n_layers} layers", code="spec_invalid")
        bos_ids = known.token_ids("bos_token_id", generation)
        rope, local = self.rope(known), self.local_rope(known)
        is_tied = known.boolean("tie_word_embeddings")
        fields: dict[str, Any] = {
            "arch": self.arch,
            "n_vocab": known.integer("vocab_size"),
            "d_model": known.integer("hidden_size"),
            "n_ctx_train": known.integer("max_position_embeddings"),
            "norm_eps": known.number(self.eps_key),
            "norm": self.norm,
            "tied_head": is_tied,
            "headless": is_bare(config) and not is_tied,
            "n_rope": rope.n_rope if rope else 0,
            "rope_factor": rope.factor if rope else 1.0,
            "rope_local_factor": local.factor if local else 1.0,
            "n_ctx_original": rope.n_ctx_original if rope else 0,
            "bos_id": bos_ids[0] if bos_ids else -1,
            "eos_ids": known.token_ids("eos_token_id", generation),
            "layers": tuple(self.layer(known, index) for index in range(n_layers)),
        }
        return ModelSpec(**(fields | self.whole(known)))

    def tables(self, config: Mapping[str, Any]) -> dict[str, F32Array]:
        known = Config(config, self.defaults)
        rope, local = self.rope(known), self.local_rope(known)
        tables = {} if rope is None else {"rope_inv_freq": rope.table()}
        if local is not None:
            tables["rope_inv_freq_local"] = local.table()
        if rope is not None and rope.n_ctx_original:
            tables["rope_inv_freq_long"] = rope.table(long=True)
        return tables

    def tensors(
        self, spec: ModelSpec, config: Mapping[str, Any], stored: Collection[str]
    ) -> list[TensorSource]:
        known = Config(config, self.defaults)
        # Three tensors of each expert with padding, or of each head with biases.
        if sum(6 * max(layer.n_experts, layer.n_heads) for layer in spec.layers) > MAX_PARTS:
            raise FormatError(
                f"config.json: its model is made of more than {MAX_PARTS} parts of tensors",
                code="too_many_tensors",
            )
        return [self._source(slot, spec, known, stored) for slot in tensor_slots(spec)]

    def ignorable(self, spec: ModelSpec, stored: Collection[str]) -> set[str]:
        names = {name for name in stored if re.fullmatch(self.ignored, name)}
        # Tied: transformers uses the embedding whatever the head's tensor holds.
        return names | ({self._name("output", None, stored)} if spec.tied_head else set())

    def left_out(self, stored: Collection[str]) -> set[str]:
        if not self.is_wrapped:
            return set()
        own = _WRAPPED if any(_is_inside(name) for name in stored) else ("model.", "lm_head.")
        others = ("model.visual.", "model.vision", "model.audio", "model.multi_modal")
        return {name for name in stored if not name.startswith(own) or name.startswith(others)}

    def scales(self, config: Mapping[str, Any]) -> dict[str, float] | None:
        return None

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        known = CHANGES_NOTHING | set(self.defaults) | set(self.only) | set(HONOURED_ONLY_AS)
        return sorted(set(config) - known)

    def wrapped(self) -> Family:
        """The same inside of a model that also sees or hears."""
        inner = copy.copy(self)
        inner.is_wrapped = True
        return inner

    # Helpers of several families.

    def head_dim(self, config: Config) -> int:
        given = config.optional_integer("head_dim") if config.knows("head_dim") else None
        first = None if given is None else 0  # layers of different heads need it given
        n_heads = config.integer("num_attention_heads", first)
        d_model = config.integer("hidden_size")
        if n_heads < 1:
            raise FormatError(
                "config.json: 'num_attention_heads' must be >= 1", code="spec_invalid"
            )
        if given is None and d_model % n_heads:
            raise FormatError(
                f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads "
                f"{n_heads} and there is no head_dim",
                code="spec_invalid",
            )
        head_dim = d_model // n_heads if given is None else given
        if head_dim < 1:
            raise FormatError(f"config.json: heads of {head_dim} dimensions", code="spec_invalid")
        return head_dim

    def layer_type(self, config: Config, index: int) -> str | None:
        """ "full_attention" or "sliding_attention", None where config.json does not list them."""
        n_layers = config.integer("num_hidden_layers")
        types = config.items("layer_types", n_layers, str)
        if types is None:
            return None
        if types[index] not in (FULL, SLIDING):
            raise not_supported("layer_types", types[index], (FULL, SLIDING))
        return str(types[index])

    def _source(
        self, slot: Slot, spec: ModelSpec, config: Config, stored: Collection[str]
    ) -> TensorSource:
        name = self._name(self.stored_role(slot.role, config), slot.layer, stored)
        if slot.role.endswith("_exps"):
            assert slot.layer is not None
            parts = self._expert_parts(slot, spec, spec.layers[slot.layer], name, stored)
        else:
            parts = self.parts(slot, name, config)
        view = View(parts, *self.changed(slot.role, config))
        source = name if view.is_plain else f"{next(iter(view.stored))} -> {slot.name}"
        return TensorSource(slot.name, slot.role, source, slot.shape, view)

    def _name(self, role: str, layer: int | None, stored: Collection[str]) -> str:
        """The first of the names that a tensor may have that is there."""
        return _first(self.names[role], layer, stored, self.is_wrapped)

    def _expert_parts(
        self, slot: Slot, spec: ModelSpec, layer: LayerSpec, name: str, stored: Collection[str]
    ) -> tuple[Part, ...]:
        n_rows, n_cols = layer.d_expert, spec.d_model
        n_above, n_stacked = (n_rows if slot.role == "ffn_up_exps" else 0), 2 * n_rows
        if slot.role == "ffn_down_exps":
            n_rows, n_cols, n_stacked = n_cols, n_rows, n_cols
        stacked = _first(_STACKED[slot.role], slot.layer, stored, self.is_wrapped)
        shape = (layer.n_experts, n_stacked, n_cols)
        padding = padded_rows(n_rows) - n_rows
        parts: list[Part] = []
        for expert in range(layer.n_experts):
            if stacked in stored:
                parts.append(Part(stacked, shape, n_rows, expert * n_stacked + n_above))
            else:
                one = name.replace("{expert}", str(expert))
                parts.append(Part(one, (n_rows, n_cols), n_rows))
            if padding:
                parts.append(Part(None, (padding, n_cols), padding))
        return tuple(parts)


def _first(
    names: str | tuple[str, ...], layer: int | None, stored: Collection[str], is_wrapped: bool
) -> str:
    candidates = [
        variant.replace("{layer}", str(layer))
        for name in ((names,) if isinstance(names, str) else names)
        for variant in (_variants(name) if is_wrapped else _bare_variants(name))
    ]
    there = (name for name in candidates if name.replace("{expert}", "0") in stored)
    return next(there, candidates[-1])


def _variants(name: str) -> tuple[str, ...]:
    inside = name.replace("model.", "model.language_model.", 1)
    return (f"language_model.{name}", inside, name)


def _bare_variants(name: str) -> tuple[str, ...]:
    """Saved without its head, a model has no part of its own and the names none in front."""
    return (name.removeprefix("model.").removeprefix("gpt_neox."), name)


def _is_inside(name: str) -> bool:
    return name.startswith(("language_model.", "model.language_model."))
