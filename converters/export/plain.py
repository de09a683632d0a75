"""Which models can be exported."""

from __future__ import annotations

from dataclasses import MISSING, fields

from edgellm.errors import UnsupportedError

from ..spec import LayerSpec, ModelSpec


def check_plain(spec: ModelSpec, kind: str) -> None:
    """UnsupportedError that names what of the model is not Llama's."""
    needed = {f.name for cls in (ModelSpec, LayerSpec) for f in fields(cls) if f.default is MISSING}
    value = spec.to_dict()
    other = set(value) - needed
    other = other.union(*(set(layer) - needed for layer in value["layers"]))
    if other:
        raise UnsupportedError(
            f"{kind} is written for models of Llama's blocks only; this one also has "
            f"{', '.join(sorted(other))}",
            code="spec_unsupported",
        )


def widths_differ(spec: ModelSpec) -> bool:
    """Whether layers have different numbers of heads or channels, as pruned ones may; other
    programs' files have one number for all."""
    return len({(one.n_heads, one.n_kv_heads, one.d_ffn, one.d_expert) for one in spec.layers}) > 1
