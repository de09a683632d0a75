"""Architectures: how a family's config.json and tensor names become a ModelSpec.

One file per family; a file registers the names that config.json's "architectures" uses for it.
Adding a family means adding a file here and a row in tests/golden/cases.toml.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ..spec import ModelSpec


@dataclass(frozen=True)
class TensorSource:
    """One tensor of the compact file and where it comes from."""

    name: str  # "layers.3.ffn_up"
    role: str  # "ffn_up"
    source: str  # name in the checkpoint
    shape: tuple[int, ...]  # (n,) for a vector, (rows, columns) for a matrix


class Architecture(Protocol):
    """What a family knows. All methods are pure functions of config.json."""

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        """Raises UnsupportedError for a field or value that could not be honoured."""

    def inv_freq(self, config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Rotary frequencies [n_rope / 2], scaling included."""

    def tensors(self, spec: ModelSpec) -> list[TensorSource]:
        """In execution order. inv_freq is not among them."""

    def ignorable(self, spec: ModelSpec) -> set[str]:
        """Tensors that some checkpoints carry and that hold nothing of their own."""

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Keys of config.json that this family does not know."""


_REGISTRY: dict[str, Architecture] = {}


def register(*names: str) -> Callable[[type], type]:
    """Class decorator: makes a family known under its config.json names."""

    def add(cls: type) -> type:
        for name in names:
            _REGISTRY[name] = cls()
        return cls

    return add


def supported() -> list[str]:
    """The names in config.json's "architectures" that can be converted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(_REGISTRY)


def find(config: Mapping[str, Any]) -> Architecture:
    """The family of a config.json; UnsupportedError says what is not understood."""
    known = supported()
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise FormatError(
            "config.json: 'architectures' is missing; it must name the model class, for example "
            f'["{known[0]}"]',
            code="json_missing_key",
        )
    for name in names:
        if name in _REGISTRY:
            return _REGISTRY[name]
    unread = _REGISTRY["LlamaForCausalLM"].unread_keys(config)
    also = f"; config keys beyond Llama's: {', '.join(unread[:12])}" if unread else ""
    raise UnsupportedError(
        f"config.json: architecture '{names[0][:80]}' is not supported (supported: "
        f"{', '.join(known)}){also}",
        code="spec_unsupported",
    )
