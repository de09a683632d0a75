"""ModelSpec and LayerSpec: a model as data.

The mirror of native/src/model/spec.h, field by field; tests/converters/test_spec_mirror.py keeps
the two equal. The JSON text travels in the file as "edgellm.spec"; keys that have their default,
which means "as in Llama", are left out of it. Knows nothing of checkpoints, tensor bytes or any
architecture.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from edgellm.errors import FormatError, UnsupportedError

# Inclusive ranges, equal to native/src/model/spec.cc.
MAX_VOCAB = 1 << 24
MAX_WIDTH = 65536
MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_HEAD_DIM = 1024
MAX_FFN = 1 << 20
MAX_CONTEXT = 1 << 24
MAX_EOS_IDS = 256
MAX_EXPERTS = 1024
MAX_CONV_KERNEL = 16

NORMS = ("rms", "layer")
MIXERS = ("gqa", "short_conv")
ROPES = ("full", "local", "none")
QK_NORMS = ("none", "head", "full")
FFN_ACTS = ("silu", "gelu", "gelu_tanh", "relu")


@dataclass(frozen=True)
class LayerSpec:
    """One decoder layer. Layers of a model may differ (pruning makes them differ)."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ffn: int
    rope: str = "full"
    window: int = 0
    pre_norm: bool = True
    post_norm: bool = False
    parallel: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    ffn_bias: bool = False
    qk_norm: str = "none"
    rotate_keys: bool = False
    balance_keys: bool = False
    attn_scale: float = 0.0
    attn_softcap: float = 0.0
    ffn_act: str = "silu"
    ffn_gated: bool = True
    n_experts: int = 0
    n_experts_used: int = 0
    d_expert: int = 0
    d_shared: int = 0
    shared_gate: bool = False
    norm_topk: bool = False
    mixer: str = "gqa"
    conv_kernel: int = 0


# Keys of attention that may be left out, with the values that they then have.
_OF_HEADS = {
    "rope": "full",
    "window": 0,
    "qkv_bias": False,
    "o_bias": False,
    "qk_norm": "none",
    "rotate_keys": False,
    "balance_keys": False,
    "attn_scale": 0.0,
    "attn_softcap": 0.0,
}


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
    norm: str = "rms"
    embed_scale: float = 1.0
    final_softcap: float = 0.0
    n_positions: int = 0
    rope_local_factor: float = 1.0
    n_ctx_original: int = 0
    headless: bool = False

    def __post_init__(self) -> None:
        _check_model(self)
        for index, layer in enumerate(self.layers):
            _check_layer(self, layer, f"layers[{index}]")

    def to_dict(self) -> dict[str, Any]:
        """What to_json() writes."""
        value = _without_defaults(asdict(self), ModelSpec)
        value["layers"] = [_without_defaults(layer, LayerSpec) for layer in value["layers"]]
        return value

    def to_json(self) -> str:
        """The JSON text that from_json and the native reader accept."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def check_attention_only(self, what: str) -> None:
        """UnsupportedError for `what`, which is made for layers of attention, where others are."""
        other = next((i for i, one in enumerate(self.layers) if one.mixer != "gqa"), None)
        if other is not None:
            raise UnsupportedError(
                f"layer {other} is a {self.layers[other].mixer}: {what} only for models whose "
                "layers are all attention",
                code="feature_unsupported",
            )

    def without_key_changes(self) -> ModelSpec:
        """The same model, whose keys the runtime stores as they are."""
        layers = (replace(la, rotate_keys=False, balance_keys=False) for la in self.layers)
        return replace(self, layers=tuple(layers))

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Parses and range-checks; unknown, missing and duplicate keys are refused."""
        try:
            root = json.loads(text, object_pairs_hook=_unique_keys)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(f"spec: not JSON: {error}", code="json_syntax") from error
        values = _known_keys(root, cls, "spec")
        layers = values["layers"]
        if not isinstance(layers, list):
            raise FormatError("spec: 'layers' must be an array", code="json_type")
        eos_ids = values["eos_ids"]
        if not isinstance(eos_ids, list):
            raise FormatError("spec: 'eos_ids' must be an array", code="json_type")
        values["layers"] = tuple(
            LayerSpec(**_known_keys(layer, LayerSpec, f"layers[{index}]"))
            for index, layer in enumerate(layers)
        )
        values["eos_ids"] = tuple(eos_ids)
        return cls(**values)


def _without_defaults(values: dict[str, Any], cls: type[Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(cls)}
    return {key: value for key, value in values.items() if value != defaults[key]}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise FormatError(f"spec: key '{key}' stands twice", code="json_duplicate_key")
        result[key] = value
    return result


def _known_keys(value: object, cls: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be an object", code="json_type")
    needed = {field.name: field.default is MISSING for field in fields(cls)}
    for key in value:
        if key not in needed:
            raise FormatError(f"{where}: unknown key '{key}'", code="json_unknown_key")
    for name, is_needed in needed.items():
        if is_needed and name not in value:
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


def _positive_float(value: object, key: str, where: str = "spec", *, or_zero: bool = False) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise FormatError(f"{where}: '{key}' must be a number", code="json_type")
    if or_zero and value == 0:
        return
    if not (math.isfinite(value) and 1e-30 <= value <= 1e30):
        allowed = "0 or 1e-30 to 1e30" if or_zero else "1e-30 to 1e30"
        raise FormatError(f"{where}: '{key}' is {value}, allowed is {allowed}", code="spec_invalid")


def _one_of(value: object, names: tuple[str, ...], key: str, where: str) -> None:
    if not isinstance(value, str):
        raise FormatError(f"{where}: '{key}' must be a string", code="json_type")
    if value not in names:
        raise FormatError(
            f"{where}: '{key}' is '{value[:80]}', allowed is {', '.join(names)}",
            code="spec_invalid",
        )


def _check_booleans(owner: object, where: str) -> None:
    for field in fields(owner):  # type: ignore[arg-type]
        if field.type == "bool" and not isinstance(getattr(owner, field.name), bool):
            raise FormatError(f"{where}: '{field.name}' must be true or false", code="json_type")


def _check_model(spec: ModelSpec) -> None:
    if not isinstance(spec.arch, str):
        raise FormatError("spec: 'arch' must be a string", code="json_type")
    _check_booleans(spec, "spec")
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
    _in_range(spec.n_rope, 0, MAX_HEAD_DIM, "n_rope", "spec")
    _even(spec.n_rope, "n_rope", "spec")
    _one_of(spec.norm, NORMS, "norm", "spec")
    _positive_float(spec.embed_scale, "embed_scale")
    _positive_float(spec.final_softcap, "final_softcap", or_zero=True)
    _in_range(spec.n_positions, 0, MAX_CONTEXT, "n_positions", "spec")
    if 0 < spec.n_positions < spec.n_ctx_train:
        raise FormatError(
            f"spec: 'n_ctx_train' is {spec.n_ctx_train}, it must be at most n_positions "
            f"({spec.n_positions})",
            code="spec_invalid",
        )
    _positive_float(spec.rope_local_factor, "rope_local_factor")
    if spec.headless and spec.tied_head:
        raise FormatError("spec: 'headless' is true, which excludes tied_head", code="spec_invalid")
    # Two tables to choose between need a rotation.
    _in_range(spec.n_ctx_original, 0, MAX_CONTEXT if spec.n_rope else 0, "n_ctx_original", "spec")


def _check_layer(spec: ModelSpec, layer: LayerSpec, where: str) -> None:
    _check_booleans(layer, where)
    _one_of(layer.mixer, MIXERS, "mixer", where)
    if layer.mixer == "short_conv":
        _check_short_conv(layer, where)
    else:
        _check_attention(spec, layer, where)
    _one_of(layer.ffn_act, FFN_ACTS, "ffn_act", where)
    parallel = layer.parallel and (layer.post_norm or not layer.pre_norm)
    _refuse(where, {"parallel": parallel}, layer)
    _check_experts(layer, where)


def _check_short_conv(layer: LayerSpec, where: str) -> None:
    _in_range(layer.conv_kernel, 2, MAX_CONV_KERNEL, "conv_kernel", where)
    for key in ("n_heads", "n_kv_heads", "head_dim"):
        _in_range(getattr(layer, key), 0, 0, key, where)
    _refuse(where, {key: getattr(layer, key) != usual for key, usual in _OF_HEADS.items()}, layer)


def _check_attention(spec: ModelSpec, layer: LayerSpec, where: str) -> None:
    _in_range(layer.conv_kernel, 0, 0, "conv_kernel", where)
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
    if spec.n_rope > layer.head_dim:
        raise FormatError(
            f"{where}: 'head_dim' is {layer.head_dim}, it must be at least n_rope ({spec.n_rope})",
            code="spec_invalid",
        )
    _one_of(layer.rope, ROPES, "rope", where)
    _in_range(layer.window, 0, MAX_CONTEXT, "window", where)
    _one_of(layer.qk_norm, QK_NORMS, "qk_norm", where)
    _positive_float(layer.attn_scale, "attn_scale", where, or_zero=True)
    _positive_float(layer.attn_softcap, "attn_softcap", where, or_zero=True)
    _refuse(
        where,
        {
            "rope": layer.rope == "local" and spec.n_rope == 0,
            "balance_keys": layer.balance_keys and layer.attn_softcap > 0,
        },
        layer,
    )


def _check_experts(layer: LayerSpec, where: str) -> None:
    n_experts = _in_range(layer.n_experts, 0, MAX_EXPERTS, "n_experts", where)
    least, experts = (1, MAX_FFN) if n_experts else (0, 0)
    plain = (0, 0) if n_experts else (1, MAX_FFN)
    _in_range(layer.d_ffn, *plain, "d_ffn", where)
    _in_range(layer.n_experts_used, least, n_experts, "n_experts_used", where)
    _in_range(layer.d_expert, least, experts, "d_expert", where)
    _in_range(layer.d_shared, 0, experts, "d_shared", where)
    _refuse(
        where,
        {
            "ffn_bias": n_experts > 0 and layer.ffn_bias,
            "ffn_gated": n_experts > 0 and not layer.ffn_gated,
            "norm_topk": n_experts == 0 and layer.norm_topk,
            "shared_gate": layer.d_shared == 0 and layer.shared_gate,
        },
        layer,
    )


def _refuse(where: str, refused: dict[str, bool], layer: LayerSpec) -> None:
    """Values that are fine by themselves and not beside others of the layer."""
    for key, is_refused in refused.items():
        if is_refused:
            raise FormatError(
                f"{where}: '{key}' is {json.dumps(getattr(layer, key))}, which does not go with "
                "the rest of the layer",
                code="spec_invalid",
            )


def _even(value: int, key: str, where: str) -> None:
    if value % 2:
        raise FormatError(f"{where}: '{key}' is {value}, it must be even", code="spec_invalid")
