"""A model whose spec is there already, as the family that a checkpoint has."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.edgefile import EdgeHeader, read_tensor

from ..archs import TensorSource
from ..layout import tensor_slots
from ..spec import ModelSpec
from ..views import Part, View

F32Array = npt.NDArray[np.float32]

_TABLES = ("rope_inv_freq", "rope_inv_freq_local", "rope_inv_freq_long")


class EdgeArch:
    """What archs.Architecture promises, of a model whose spec is there already."""

    def __init__(self, spec: ModelSpec, header: EdgeHeader) -> None:
        self._spec, self._header = spec, header

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        return self._spec

    def tables(self, config: Mapping[str, Any]) -> dict[str, F32Array]:
        there = [name for name in _TABLES if name in self._header.tensors]
        return {
            name: np.frombuffer(read_tensor(self._header, name), dtype="<f4").astype(np.float32)
            for name in there
        }

    def tensors(
        self, spec: ModelSpec, config: Mapping[str, Any], stored: Collection[str]
    ) -> list[TensorSource]:
        return [
            TensorSource(
                slot.name,
                slot.role,
                slot.name,
                slot.shape,
                View((Part(slot.name, slot.shape, slot.shape[0]),)),
            )
            for slot in tensor_slots(spec)
        ]

    def ignorable(self, spec: ModelSpec, stored: Collection[str]) -> set[str]:
        return set()

    def left_out(self, stored: Collection[str]) -> set[str]:
        return set()

    def scales(self, config: Mapping[str, Any]) -> dict[str, float] | None:
        """Those that the file names, if they are numbers; without them the weights stand as they
        are, which is the same model."""
        found = self._header.source.get("scales") if self._header.source else None
        if not isinstance(found, dict) or not found:
            return None
        values = [value for value in found.values() if isinstance(value, float)]
        good = len(values) == len(found) and all(0 < value < math.inf for value in values)
        return dict(zip(found, values, strict=True)) if good and len(set(values)) == 1 else None

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        return []
