"""ModelSpec and LayerSpec: a model as data.

The mirror of native/src/model/spec.h, field by field; tests/converters/test_spec_mirror.py keeps
the two equal. The JSON text travels in the file as "edgellm.spec". Knows nothing of checkpoints,
tensor bytes or any architecture.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgellm.errors import FormatError

# Inclusive ranges, equal to native/src/model/spec.cc.
MAX_VOCAB = 1 << 24
MAX_WIDTH = 65536
MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_HEAD_DIM = 1024
MAX_FFN = 1 << 20
MAX_CONTEXT = 1 << 24
MAX_EOS_IDS = 256


@dataclass(frozen=True)
class LayerSpec:
    """One decoder layer. Layers of a model may differ (pruning makes them differ)."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ffn: int


@dataclass(frozen=True)
class ModelSpec:
    """A whole model. Field meanings are documented in native/src/model/spec.h."""

    arch: str
    n_vocab: int
    d_model: int
    n_ctx_train: int
    norm_eps: float
    tied_head: bool
    n_rope: int
    rope_factor: float
    bos_id: int
    eos_ids: tuple[int, ...]
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        _check_model(self)
        for index, layer in enumerate(self.layers):
            _check_layer(self, layer, f"layers[{index}]")

    def to_json(self) -> str:
        """The JSON text that from_json and the native reader accept."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Parses and range-checks; unknown, missing and duplicate keys are refused."""
        try:
            root = json.loads(text, object_pairs_hook=_unique_keys)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(f"spec: not JSON: {error}", code="json_syntax") from error
        values = _exact_keys(root, cls, "spec")
        layers = values["layers"]
        if not isinstance(layers, list):
            raise FormatError("spec: 'layers' must be an array", code="json_type")
        eos_ids = values["eos_ids"]
        if not isinstance(eos_ids, list):
            raise FormatError("spec: 'eos_ids' must be an array", code="json_type")
        values["layers"] = tuple(
            LayerSpec(**_exact_keys(layer, LayerSpec, f"layers[{index}]"))
            for index, layer in enumerate(layers)
        )
        values["eos_ids"] = tuple(eos_ids)
        return cls(**values)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise FormatError(f"spec: key '{key}' stands twice", code="json_duplicate_key")
        result[key] = value
    return result


def _exact_keys(value: object, cls: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be an object", code="json_type")
    names = {field.name for field in fields(cls)}
    for key in value:
        if key not in names:
            raise FormatError(f"{where}: unknown key '{key}'", code="json_unknown_key")
    for name in names:
        if name not in value:
            raise FormatError(f"{where}: key '{name}' is missing", code="json_missing_key")
    return dict(value)


def _in_range(value: object, low: int, high: int, key: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{where}: '{key}' must be an integer", code="json_type")
    if not low <= value <= high:
        raise FormatError(
            f"{where}: '{key}' is {value}, allowed is {low} to {high}", code="spec_invalid"
        )
    return value


def _positive_float(value: object, key: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise FormatError(f"spec: '{key}' must be a number", code="json_type")
    if not (math.isfinite(value) and 1e-30 <= value <= 1e30):
        raise FormatError(
            f"spec: '{key}' is {value}, allowed is 1e-30 to 1e30", code="spec_invalid"
        )


def _check_model(spec: ModelSpec) -> None:
    if not isinstance(spec.arch, str):
        raise FormatError("spec: 'arch' must be a string", code="json_type")
    if not isinstance(spec.tied_head, bool):
        raise FormatError("spec: 'tied_head' must be true or false", code="json_type")
    _in_range(spec.n_vocab, 1, MAX_VOCAB, "n_vocab", "spec")
    _in_range(spec.d_model, 1, MAX_WIDTH, "d_model", "spec")
    _in_range(spec.n_ctx_train, 1, MAX_CONTEXT, "n_ctx_train", "spec")
    _positive_float(spec.norm_eps, "norm_eps")
    _positive_float(spec.rope_factor, "rope_factor")
    _in_range(spec.bos_id, -1, spec.n_vocab - 1, "bos_id", "spec")
    _in_range(len(spec.eos_ids), 0, MAX_EOS_IDS, "eos_ids (their number)", "spec")
    for index, eos_id in enumerate(spec.eos_ids):
        _in_range(eos_id, 0, spec.n_vocab - 1, f"eos_ids[{index}]", "spec")
    _in_range(len(spec.layers), 1, MAX_LAYERS, "layers (their number)", "spec")
    _in_range(spec.n_rope, 2, MAX_HEAD_DIM, "n_rope", "spec")
    _even(spec.n_rope, "n_rope", "spec")


def _check_layer(spec: ModelSpec, layer: LayerSpec, where: str) -> None:
    _in_range(layer.n_heads, 1, MAX_HEADS, "n_heads", where)
    _in_range(layer.n_kv_heads, 1, layer.n_heads, "n_kv_heads", where)
    if layer.n_heads % layer.n_kv_heads:
        raise FormatError(
            f"{where}: 'n_kv_heads' is {layer.n_kv_heads}, it must divide n_heads "
            f"({layer.n_heads})",
            code="spec_invalid",
        )
    _in_range(layer.head_dim, 2, MAX_HEAD_DIM, "head_dim", where)
    _even(layer.head_dim, "head_dim", where)
    _in_range(layer.d_ffn, 1, MAX_FFN, "d_ffn", where)
    if spec.n_rope > layer.head_dim:
        raise FormatError(
            f"{where}: 'head_dim' is {layer.head_dim}, it must be at least n_rope ({spec.n_rope})",
            code="spec_invalid",
        )


def _even(value: int, key: str, where: str) -> None:
    if value % 2:
        raise FormatError(f"{where}: '{key}' is {value}, it must be even", code="spec_invalid")
