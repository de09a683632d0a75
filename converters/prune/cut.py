"""What stays of a model: plain numbers, and what they make of its spec and tensors.

Knows neither scores nor files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..spec import LayerSpec, ModelSpec

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerCut:
    """What stays of layer `index` of the source, each ascending. kv_heads: with `heads`, as many
    query heads of each. channels: of the FFN; None: all, of experts always."""

    index: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cut:
    """tokens: ids that stay, ascending; their places are the new ids. None: all rows stay."""

    layers: tuple[LayerCut, ...]
    tokens: tuple[int, ...] | None = None


def whole_layer(index: int, layer: LayerSpec) -> LayerCut:
    return LayerCut(index, tuple(range(layer.n_heads)), tuple(range(layer.n_kv_heads)))


def new_id(tokens: Sequence[int] | None, old: int) -> int:
    """Of a token that stays; -1 stands for no token and stays so."""
    return old if tokens is None or old < 0 else tokens.index(old)


def cut_spec(spec: ModelSpec, cut: Cut) -> ModelSpec:
    """Of the pruned model."""
    layers = tuple(_cut_layer(spec.layers[layer.index], layer) for layer in cut.layers)
    if cut.tokens is None:
        return replace(spec, layers=layers)
    return replace(
        spec,
        layers=layers,
        n_vocab=len(cut.tokens),
        bos_id=new_id(cut.tokens, spec.bos_id),
        eos_ids=tuple(new_id(cut.tokens, one) for one in spec.eos_ids),
    )


def kept_places(spec: ModelSpec, cut: Cut, new_layer: int | None, role: str) -> _Kept:
    """Which rows and columns of a tensor of the source stay; a vector's elements are rows."""
    if new_layer is None:
        is_by_token = role in ("token_embd", "output") and cut.tokens is not None
        return _Kept(np.array(cut.tokens) if is_by_token else None, None)
    own = cut.layers[new_layer]
    head_dim = spec.layers[own.index].head_dim
    what = role.removesuffix("_bias")
    if what == "attn_q":
        return _Kept(_of_heads(own.heads, head_dim), None)
    if what in ("attn_k", "attn_v"):
        return _Kept(_of_heads(own.kv_heads, head_dim), None)
    if role == "attn_o":
        return _Kept(None, _of_heads(own.heads, head_dim))
    channels = None if own.channels is None else np.array(own.channels)
    if what in ("ffn_gate", "ffn_up"):
        return _Kept(channels, None)
    return _Kept(None, channels if role == "ffn_down" else None)


@dataclass(frozen=True)
class _Kept:
    """None: all."""

    rows: Places | None
    columns: Places | None

    def of(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """values: [n_rows, n_cols] or a vector."""
        if self.rows is not None:
            values = values[self.rows]
        return values if self.columns is None else values[:, self.columns]


def _cut_layer(layer: LayerSpec, cut: LayerCut) -> LayerSpec:
    d_ffn = layer.d_ffn if cut.channels is None else len(cut.channels)
    return replace(layer, n_heads=len(cut.heads), n_kv_heads=len(cut.kv_heads), d_ffn=d_ffn)


def _of_heads(heads: Sequence[int], head_dim: int) -> Places:
    first = np.array(heads, dtype=np.int64)[:, None] * head_dim
    return (first + np.arange(head_dim)).reshape(-1)
