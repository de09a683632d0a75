"""A PEFT directory and the model it was trained on -> one small adapter file.

Every matrix that the adapter changes is found by the name map of the model's family; of a fused
matrix each part gets its rows of B, and what the converter folded into the model's matrix it folds
into B as well, with alpha / rank, in float32 before the one rounding to F16. The base model is its
`.edge` file: nothing of it is read but the header and the recipe. docs/ADAPTERS.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm import _native
from edgellm.edgefile import EdgeHeader, EdgeWriter, read_header, read_tensor
from edgellm.errors import FormatError, NumericError, UnsupportedError

from .archs import TensorSource, by_layer, families_of
from .checkpoint import F32Array
from .peft import PeftAdapter, read_peft
from .rotation import ValueRotation
from .spec import ModelSpec

KIND = "adapter"
# The matrices that the runtime can change, in execution order.
ROLES = ("attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down")
MAX_RECIPE_BYTES = 16 << 20
MAX_F16 = 65504.0


@dataclass(frozen=True)
class AdapterReport:
    """What was written."""

    path: Path
    n_bytes: int
    n_matrices: int
    n_parameters: int
    rank: int
    base_name: str | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class _Change:
    """B A of one matrix of the file: A [rank, columns], B [rows, rank] with every factor in it."""

    name: str
    a: F32Array
    b: F32Array


def convert_adapter(src: Path, out: Path, *, base: Path) -> AdapterReport:
    """Writes `out` (whole, or not at all). src: a PEFT directory; base: the model's `.edge` file.

    UnsupportedError: what the adapter asks for and is not honoured, by name. FormatError: a file
    that is wrong, or an adapter of another model. NumericError: values that F16 does not hold.
    """
    peft = read_peft(Path(src))
    header = read_header(Path(base))
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    _check_base(header)
    places = _places(peft, spec, header)
    own_spec = {
        "kind": KIND,
        "arch": spec.arch,
        "d_model": spec.d_model,
        "n_layers": len(spec.layers),
    }
    n_parameters = 0
    with EdgeWriter(Path(out), spec=own_spec) as writer:
        names = _ordered(places, spec)
        for name in names:
            rank, (n_rows, n_cols) = peft.pairs[places[name].module].rank, places[name].shape
            writer.plan(f"{name}.lora_a", "lora_a", format="F16", shape=(rank, n_cols), act="f32")
            writer.plan(f"{name}.lora_b", "lora_b", format="F16", shape=(n_rows, rank), act="f32")
        for change in _changes(peft, places, names, _stored_rotation(header, spec)):
            for half, values in (("lora_a", change.a), ("lora_b", change.b)):
                full_name = f"{change.name}.{half}"
                writer.add(full_name, _encoded(values, full_name).data)
                n_parameters += values.size
        digests = {path.name: _sha256(path) for path in peft.files}
        writer.set_source({"kind": "peft", "base": peft.base_name, "files": digests})
    return AdapterReport(
        path=Path(out),
        n_bytes=Path(out).stat().st_size,
        n_matrices=len(names),
        n_parameters=n_parameters,
        rank=max(pair.rank for pair in peft.pairs.values()),
        base_name=peft.base_name,
    )


@dataclass(frozen=True)
class _Place:
    """Where the change of a matrix of the file comes from. rows: of the module's B, one after the
    other; scale: what the matrix itself was multiplied by."""

    module: str
    shape: tuple[int, int]
    rows: tuple[slice, ...]
    scale: float


def _check_base(header: EdgeHeader) -> None:
    """Channel scales of a model would have to be folded into A and B; they are not kept."""
    info = header.tensors.get("recipe")
    if info is None or info.n_bytes > MAX_RECIPE_BYTES:
        return
    try:
        rules = json.loads(bytes(read_tensor(header, "recipe")))["rules"]
        scaled = any(rule.get("scale") is not None for rule in rules)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{header.path}: its recipe is not one: {error}", "json_type") from error
    if scaled:
        raise UnsupportedError(
            f"{header.path}: was converted with channel scales, which the adapter was not trained "
            "with; convert the model with a recipe without 'scale'",
            code="feature_unsupported",
        )


def _places(peft: PeftAdapter, spec: ModelSpec, header: EdgeHeader) -> dict[str, _Place]:
    """By the name of the matrix in the model's file."""
    stored = {f"{module}.weight" for module in peft.pairs}
    config = _config_of(spec)
    best: tuple[int, list[TensorSource], dict[str, float]] = (-1, [], {})
    for family in families_of(spec.arch):
        sources = family.tensors(spec, config, stored)
        n_found = len(stored & {name for source in sources for name in source.stored})
        folded = family.scales(config)
        scales = {} if folded is None else _stored_scales(header, set(folded))
        best = max(best, (n_found, sources, scales), key=lambda found: found[0])
    n_found, sources, scales = best
    known = {name for source in sources for name in source.stored}
    if unknown := sorted(stored - known):
        raise FormatError(
            f"{peft.directory}: changes '{unknown[0].removesuffix('.weight')[:200]}'"
            f"{_and_more(len(unknown))}, which a model of family '{spec.arch}' with "
            f"{len(spec.layers)} layers does not have; give the model it was trained on",
            code="adapter_mismatch",
        )
    places: dict[str, _Place] = {}
    for source in sources:
        if stored & source.stored.keys():
            places[source.name] = _place(peft, source, scales)
    return places


def _place(peft: PeftAdapter, source: TensorSource, scales: Mapping[str, float]) -> _Place:
    name = next(iter(source.stored))
    module = name.removesuffix(".weight")
    if source.role not in ROLES or len(source.stored) != 1 or len(source.shape) != 2:
        raise UnsupportedError(
            f"{peft.directory}: changes '{module}' ({source.role}); adapters of "
            f"{', '.join(ROLES)} can be used, those of embeddings, heads, routers and experts "
            "cannot",
            code="feature_unsupported",
        )
    parts = source.view.parts
    n_out, n_in = parts[0].shape[::-1] if parts[0].transposed else parts[0].shape
    pair = peft.pairs[module]
    if (pair.b.shape[0], pair.a.shape[1]) != (n_out, n_in):
        raise FormatError(
            f"{pair.a.path}: '{module}' changes a matrix of {pair.b.shape[0]} x {pair.a.shape[1]}, "
            f"that of the model is {n_out} x {n_in}; give the model it was trained on",
            code="adapter_mismatch",
        )
    return _Place(
        module=module,
        shape=(source.shape[0], source.shape[1]),
        rows=tuple(slice(part.row0, part.row0 + part.n_rows) for part in parts),
        scale=source.view.scale * scales.get(source.role, 1.0),
    )


def _config_of(spec: ModelSpec) -> dict[str, Any]:
    """What families read of a config.json to know where the parts of a fused matrix are."""
    return {
        "hidden_size": spec.d_model,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": by_layer([layer.n_heads for layer in spec.layers]),
        "num_key_value_heads": by_layer([layer.n_kv_heads for layer in spec.layers]),
        "head_dim": spec.layers[0].head_dim,
        "intermediate_size": by_layer([layer.d_ffn for layer in spec.layers]),
    }


def _stored_scales(header: EdgeHeader, roles: set[str]) -> dict[str, float]:
    scales = header.source.get("scales") if isinstance(header.source, dict) else None
    if not isinstance(scales, dict) or set(scales) != roles:
        raise UnsupportedError(
            f"{header.path}: does not say what multipliers were folded into it; convert the model "
            "again with this edgellm",
            code="feature_unsupported",
        )
    found: dict[str, float] = {}
    for role, value in scales.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise FormatError(f"{header.path}: source: scale of '{role}'", code="json_type")
        found[role] = float(value)
    return found


def _stored_rotation(header: EdgeHeader, spec: ModelSpec) -> ValueRotation:
    """Of the values of the model's layers."""
    found = header.source.get("rotated_values", []) if isinstance(header.source, dict) else []
    values = found if isinstance(found, list) else [None]
    layers = [n for n in values if type(n) is int and 0 <= n < len(spec.layers)]
    if len(layers) != len(values):
        raise FormatError(f"{header.path}: source: 'rotated_values'", code="json_type")
    return ValueRotation(spec, layers)


def _ordered(places: Mapping[str, _Place], spec: ModelSpec) -> list[str]:
    """In execution order."""
    names = (f"layers.{index}.{role}" for index in range(len(spec.layers)) for role in ROLES)
    return [name for name in names if name in places]


def _changes(
    peft: PeftAdapter, places: Mapping[str, _Place], names: list[str], rotation: ValueRotation
) -> Iterator[_Change]:
    for name in names:
        place = places[name]
        a, b = peft.pairs[place.module].read()
        rows = np.concatenate([b[part] for part in place.rows]) * np.float32(place.scale)
        if name.endswith(".attn_v"):
            rows = rotation.apply(name, rows)
        else:
            a = rotation.apply(name, a)
        yield _Change(name, a, rows)


def _encoded(values: F32Array, name: str) -> Any:
    if not bool(np.all(np.abs(values) <= MAX_F16)):
        raise NumericError(f"tensor '{name}': a value that F16 does not hold", code="numeric")
    return _native.encode_tensor("F16", np.ascontiguousarray(values))


def _and_more(n: int) -> str:
    return f" and {n - 1} more" if n > 1 else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
