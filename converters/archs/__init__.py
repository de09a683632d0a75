"""Architectures: how a family's config.json and tensor names become a ModelSpec.

One file per family; a file registers the names that config.json's "architectures" and "model_type"
use for it. Adding a family means adding a file here and a row in tests/golden/families.toml.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ..spec import ModelSpec
from ._config import CHANGES_NOTHING, HONOURED_ONLY_AS, by_layer, is_bare
from ._family import Family, TensorSource
from ._wrapper import language_config

__all__ = [
    "Architecture",
    "TensorSource",
    "by_layer",
    "families_of",
    "find",
    "language_config",
    "register",
    "supported",
]

# Models of one pass over a whole text: they have no next token. By class name or model type.
_ENCODER = re.compile(
    r"bert|electra|mpnet|longformer|bigbird|ForMaskedLM$|EncoderModel$|^u?m?t5", re.IGNORECASE
)
_CLASSIFIER = re.compile(r"For(Sequence|Token)Classification$|ForReward$")


class Architecture(Protocol):
    """What a family knows. All methods are pure functions. config: of the language model, see
    language_config(). stored: names of the checkpoint's tensors, none if only its config is there.
    """

    def to_spec(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelSpec:
        """Raises UnsupportedError for a field or value that could not be honoured."""

    def tables(self, config: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Rotary frequencies [n_rope / 2], scaling included, by their names in the file."""

    def tensors(
        self, spec: ModelSpec, config: Mapping[str, Any], stored: Collection[str]
    ) -> list[TensorSource]:
        """In execution order, the rotary tables left out."""

    def ignorable(self, spec: ModelSpec, stored: Collection[str]) -> set[str]:
        """Tensors that some checkpoints carry and that hold nothing of their own."""

    def left_out(self, stored: Collection[str]) -> set[str]:
        """Tensors of what is not the language model."""

    def scales(self, config: Mapping[str, Any]) -> dict[str, float] | None:
        """What config.json multiplies the layers' matrices by on their way into the file, by role;
        None where nothing in it does."""

    def unread_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Keys of config.json that this family does not know."""


_REGISTRY: dict[str, Family] = {}
_MODEL_TYPES: dict[str, str] = {}
F = TypeVar("F", bound=Family)


def register(name: str, *model_types: str) -> Callable[[type[F]], type[F]]:
    """Class decorator: makes a family known by a name of config.json's "architectures" and, where
    that is missing, by its "model_type"."""

    def add(cls: type[F]) -> type[F]:
        _REGISTRY[name] = cls()
        _MODEL_TYPES.update(dict.fromkeys(model_types, name))
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
    inner = language_config(config)
    name = _class_name(inner, known)
    if name in _REGISTRY:
        return _REGISTRY[name] if inner is config else _REGISTRY[name].wrapped()
    if _ENCODER.search(name):
        raise UnsupportedError(
            f"config.json: '{name[:80]}' reads a whole text at once and has no next token: "
            "encoder-only models (BERT's kind) are out of scope for now, also for embeddings; "
            "take a model for embeddings that is a decoder",
            code="spec_unsupported",
        )
    if _CLASSIFIER.search(name):
        raise UnsupportedError(
            f"config.json: '{name[:80]}' gives classes, not tokens; only decoders with a language "
            "model's head, or without one, can be converted",
            code="spec_unsupported",
        )
    read = CHANGES_NOTHING.union(HONOURED_ONLY_AS, *(family.defaults for family in _families()))
    unread = sorted(set(inner) - read)
    also = f"; config keys not understood: {', '.join(unread[:12])}" if unread else ""
    raise UnsupportedError(
        f"config.json: architecture '{name[:80]}' is not supported (supported: "
        f"{', '.join(known)}){also}",
        code="spec_unsupported",
    )


def families_of(arch: str) -> list[Family]:
    """The families whose models say that they are of `arch`, as a ModelSpec names it, each by
    itself and inside of a model that also sees or hears."""
    supported()
    found = [family for family in _families() if family.arch == arch]
    return [*found, *(family.wrapped() for family in found)]


def _families() -> Collection[Family]:
    return _REGISTRY.values()


def _class_name(config: Mapping[str, Any], known: list[str]) -> str:
    """The first name that is known, else the first; by the model type where there is none."""
    names = config.get("architectures")
    model_type = config.get("model_type")
    if names is None and isinstance(model_type, str):
        return _MODEL_TYPES.get(model_type, model_type)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise FormatError(
            "config.json: 'architectures' is missing; it must name the model class, for example "
            f'["{known[0]}"]',
            code="json_missing_key",
        )
    name = str(next((name for name in names if name in _REGISTRY), names[0]))
    return _MODEL_TYPES.get(str(model_type), name) if is_bare(config) else name
