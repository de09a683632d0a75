"""A family of archs/ whose tensors stand in a GGUF file: the names, and what llama.cpp's converters
have done to the weights already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import FormatError, UnsupportedError

from .. import archs
from ..archs import TensorSource
from ..archs._config import Config
from ..archs._family import Family
from ..layout import tensor_slots
from ..packed import F32Array
from ..spec import LayerSpec, ModelSpec
from ..views import Part, View
from .reader import GgufFile
from .tensors import stored_name


class GgufArch:
    """What archs.Architecture promises. names: what our tensors are called in the file. family:
    the one of archs/ whose configuration the file's keys have become."""

    def __init__(
        self, config: Mapping[str, Any], file: GgufFile, rope_factors: F32Array | None
    ) -> None:
        family = archs.find(config)
        assert isinstance(family, Family)
        self.family, self._file, self._rope_factors = family, file, rope_factors
        self.names: dict[str, str] = {}
        _check_known(file.path, config, family)

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        spec = self.family.to_spec(config, generation)
        if not self._file.tensors:
            return spec
        layers = [self._with_biases(layer, index) for index, layer in enumerate(spec.layers)]
        return replace(spec, layers=tuple(layers))

    def scales(self, config: Mapping[str, Any]) -> dict[str, float] | None:
        return self.family.scales(config)

    def tables(self, config: Mapping[str, Any]) -> dict[str, F32Array]:
        tables = self.family.tables(config)
        factors = self._rope_factors
        if factors is None:
            return tables
        table = tables.get("rope_inv_freq")
        if table is None or table.shape != factors.shape:
            raise FormatError(
                f"{self._file.path}: tensor 'rope_freqs.weight' has {factors.size} factors, which "
                "is not one for each rotary frequency",
                code="tensor_shape",
            )
        with np.errstate(all="ignore"):
            divided = table / factors
        if not (np.isfinite(divided).all() and (divided > 0).all()):
            raise FormatError(
                f"{self._file.path}: tensor 'rope_freqs.weight' gives frequencies that are 0 or "
                "infinite",
                code="spec_invalid",
            )
        return {**tables, "rope_inv_freq": divided}

    def tensors(
        self, spec: ModelSpec, config: Mapping[str, Any], stored: Collection[str]
    ) -> list[TensorSource]:
        known = Config(config, self.family.defaults)
        sources = []
        for slot in tensor_slots(spec):
            name = self.names.get(slot.name) or stored_name(slot.role, slot.layer)
            # What a family adds (Gemma's one) is in the file; what it multiplies by is not.
            scale, _ = self.family.changed(slot.role, known)
            view = View((Part(name, slot.shape, slot.shape[0]),), scale)
            source = name if view.is_plain else f"{name} * {scale:.6g}"
            sources.append(TensorSource(slot.name, slot.role, source, slot.shape, view))
        return sources

    def ignorable(self, spec: ModelSpec, stored: Collection[str]) -> set[str]:
        return set()

    def left_out(self, stored: Collection[str]) -> set[str]:
        return set()

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        return []

    def _with_biases(self, layer: LayerSpec, index: int) -> LayerSpec:
        def has(*roles: str) -> bool:
            return any(stored_name(role, index) in self._file.tensors for role in roles)

        return replace(
            layer,
            qkv_bias=has("attn_q_bias", "attn_qkv_bias"),
            o_bias=has("attn_o_bias"),
            ffn_bias=has("ffn_up_bias") and not layer.n_experts,
        )


def _check_known(path: Path, config: Mapping[str, Any], family: Family) -> None:
    """A family without a key has one value in its place; the file must have that, too."""
    n_heads = config["num_attention_heads"]
    fixed = {
        "head_dim": config["hidden_size"] // n_heads,
        "num_key_value_heads": n_heads,
    }
    for key, value in fixed.items():
        if key not in family.defaults and config[key] != value:
            raise UnsupportedError(
                f"{path}: {key} {config[key]} with this architecture is not supported (supported: "
                f"{value})",
                code="spec_unsupported",
            )
    share = config.get("partial_rotary_factor")
    if share is not None and not {"partial_rotary_factor", "rotary_pct"} & set(family.defaults):
        raise UnsupportedError(
            f"{path}: rope.dimension_count is not the size of a head, which this architecture does "
            "not support",
            code="spec_unsupported",
        )
