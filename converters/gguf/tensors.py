"""Which rows of which tensors of a GGUF file make each tensor of ours; places() is the table.

Undoes what llama.cpp's converters do to a checkpoint: rotary dimensions as neighbours, q, k and v
or gate and up in one matrix, experts in one tensor of three dimensions. A source is data; rows are
picked from bytes, so quantized weights need not be decoded for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ..layout import Shape, Slot, padded_rows
from ..safetensors_header import TensorInfo
from ..spec import LayerSpec, ModelSpec
from .types import PLAIN

Order = npt.NDArray[np.int64]

# Roles that llama.cpp calls otherwise; a bias is its matrix's name with another ending.
_NAMES: Mapping[str, str] = {
    "attn_o": "attn_output",
    "attn_post_norm": "post_attention_norm",
    "conv_in": "shortconv.in_proj",
    "conv_out": "shortconv.out_proj",
    "conv_taps": "shortconv.conv",
    "ffn_post_norm": "post_ffw_norm",
    "ffn_router": "ffn_gate_inp",
}
_QKV = ("attn_q", "attn_k", "attn_v")
EXPERTS = "_exps"
# Tables of rotary factors, read into the configuration.
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class Rows:
    """n_rows rows of a stored tensor from row0 on. order: instead of that, its rows by number.
    info: None for zeros."""

    info: TensorInfo | None
    n_rows: int
    row0: int = 0
    order: Order | None = None

    def cut(self, begin: int, end: int) -> Rows:
        """The part of rows [begin, end)."""
        order = None if self.order is None else self.order[begin:end]
        return replace(self, n_rows=end - begin, row0=self.row0 + begin, order=order)


@dataclass(frozen=True)
class Source:
    """A tensor of ours: rows one below the other, [n_rows, n_cols]; of a vector each element is a
    row. name: how it is called in messages."""

    name: str
    shape: Shape
    parts: tuple[Rows, ...]

    @property
    def n_cols(self) -> int:
        return self.shape[1] if len(self.shape) == 2 else 1

    @property
    def types(self) -> set[str]:
        """ggml's names of the types that it is stored in."""
        return {part.info.dtype for part in self.parts if part.info is not None}

    def rows(self, row0: int, n_rows: int) -> Iterator[Rows]:
        """The parts of rows [row0, row0 + n_rows)."""
        begin = 0
        for part in self.parts:
            first, end = max(begin, row0), min(begin + part.n_rows, row0 + n_rows)
            if first < end:
                yield part.cut(first - begin, end - begin)
            begin += part.n_rows


def stored_name(role: str, layer: int | None, ending: str | None = None) -> str:
    """What llama.cpp calls a tensor of a role."""
    stem = role.removesuffix("_bias")
    suffix = ending or ("bias" if role.endswith("_bias") else "weight")
    name = f"{_NAMES.get(stem, stem)}.{suffix}"
    return name if layer is None else f"blk.{layer}.{name}"


@dataclass(frozen=True)
class Place:
    """Where a tensor of ours may stand in a file: in tensor `name` of shape `shape` from row0 on.
    whole: what llama.cpp calls a tensor that others are in, too. unless: a tensor with which the
    file shows that it is not so."""

    name: str
    shape: Shape
    row0: int = 0
    whole: str = ""
    unless: str = ""


def places(slot: Slot, spec: ModelSpec) -> tuple[Place, ...]:
    """By itself, and where else it may stand. Experts are one below the other, without padding."""
    name, n_rows = stored_name(slot.role, slot.layer), slot.shape[0]
    if slot.role == "output_norm":  # LFM2's has the name of what it once was mistaken for
        return Place(name, slot.shape), Place("token_embd_norm.weight", slot.shape, unless=name)
    if slot.layer is None:
        return (Place(name, slot.shape),)
    layer, role = spec.layers[slot.layer], slot.role.removesuffix("_bias")
    if slot.role.endswith(EXPERTS):
        shape = (layer.n_experts, *expert_shape(slot.role, layer, spec))
        return (Place(name, shape),)
    if slot.role == "conv_taps":
        return (Place(name, (spec.d_model, layer.conv_kernel)),)
    alone = Place(name, slot.shape)

    def inside(whole: str, row0: int, n_stored: int, unless: str) -> tuple[Place, ...]:
        stored = stored_name(slot.role.replace(role, whole), slot.layer)
        return alone, Place(stored, (n_stored, *slot.shape[1:]), row0, whole, unless)

    if role in _QKV:
        d_q, d_kv = layer.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
        row0 = (0, d_q, d_q + d_kv)[_QKV.index(role)]
        return inside("attn_qkv", row0, d_q + 2 * d_kv, unless=name)
    if role in ("ffn_gate", "ffn_up") and layer.ffn_gated:
        gate = stored_name(slot.role.replace(role, "ffn_gate"), slot.layer)
        return inside("ffn_up", n_rows * (role == "ffn_up"), 2 * n_rows, unless=gate)
    if role == "ffn_norm" and layer.parallel:
        # One norm before attention and feed-forward side by side.
        return inside("attn_norm", 0, n_rows, unless=name)
    return (alone,)


def expert_shape(role: str, layer: LayerSpec, spec: ModelSpec) -> tuple[int, int]:
    """Of the matrix of one expert."""
    inner, outer = layer.d_expert, spec.d_model
    return (outer, inner) if role == "ffn_down_exps" else (inner, outer)


class Finder:
    """Finds the sources of one model's tensors."""

    def __init__(self, tensors: Mapping[str, TensorInfo], spec: ModelSpec, in_pairs: bool) -> None:
        self._tensors, self._spec, self._in_pairs = tensors, spec, in_pairs

    def source(self, slot: Slot) -> Source:
        """FormatError: what it is made of is not there, or has another shape."""
        first, *others = places(slot, self._spec)
        if slot.role.endswith(EXPERTS):
            return self._experts(slot, first)
        there = (p for p in others if p.name in self._tensors and p.unless not in self._tensors)
        place = next(there, first)
        info = self._tensor(place.name)
        _check_shape(info, place.shape)
        n_rows = slot.shape[0]
        rows = Rows(info, n_rows, place.row0)
        if slot.role == "conv_taps":
            _check_plain(info)
            rows = replace(rows, order=np.arange(n_rows).reshape(place.shape).T.reshape(-1))
        if self._in_pairs and slot.layer is not None and turns(slot.role):
            head_dim = self._spec.layers[slot.layer].head_dim
            rows = replace(rows, order=place.row0 + _from_pairs(n_rows, head_dim))
        is_whole = rows.order is None and place.shape[0] == n_rows
        name = place.name if is_whole else f"{place.name} -> {slot.name}"
        return Source(name, slot.shape, (rows,))

    def _experts(self, slot: Slot, place: Place) -> Source:
        n_experts, n_rows, n_cols = place.shape
        n_padding = padded_rows(n_rows) - n_rows
        parts: list[Rows] = []
        for expert in range(n_experts):
            if place.name in self._tensors:
                info = self._tensor(place.name)
                _check_shape(info, place.shape)
                parts.append(Rows(info, n_rows, expert * n_rows))
            else:  # files of early 2024 have them one by one
                stem = slot.role.removesuffix(EXPERTS)
                one = f"blk.{slot.layer}.{stem}.{expert}.weight"
                info = self._tensor(one, instead=place.name)
                _check_shape(info, (n_rows, n_cols))
                parts.append(Rows(info, n_rows))
            if n_padding:
                parts.append(Rows(None, n_padding))
        return Source(f"{place.name} -> {slot.name}", slot.shape, tuple(parts))

    def _tensor(self, name: str, instead: str | None = None) -> TensorInfo:
        found = self._tensors.get(name)
        if found is None:
            where = next(iter(self._tensors.values())).path
            raise FormatError(
                f"{where}: tensor '{instead or name}' is missing", code="tensor_missing"
            )
        return found


def turns(role: str) -> bool:
    """Whether rotary positions turn its rows."""
    return role.removesuffix("_bias") in ("attn_q", "attn_k")


def _from_pairs(n_rows: int, head_dim: int) -> Order:
    """Where the rows of heads stand whose rotary dimensions i and i + head_dim / 2 are neighbours
    in the file."""
    in_file = np.arange(n_rows, dtype=np.int64).reshape(-1, head_dim // 2, 2)
    return np.ascontiguousarray(in_file.swapaxes(1, 2)).reshape(-1)


def _check_shape(info: TensorInfo, shape: Shape) -> None:
    wanted, found = (tuple(n for n in dims if n != 1) for dims in (shape, info.shape))
    if wanted != found:
        raise FormatError(
            f"{info.path}: tensor '{info.name}' is {list(info.shape)}, its keys ask for "
            f"{list(shape)}",
            code="tensor_shape",
        )
    if len(shape) == 1:
        _check_plain(info)


def _check_plain(info: TensorInfo) -> None:
    if info.dtype not in PLAIN:
        raise UnsupportedError(
            f"{info.path}: tensor '{info.name}' is a vector of type {info.dtype}; only "
            f"{', '.join(PLAIN)} can be read",
            code="tensor_dtype",
        )
