"""Which rows of which tensors of a GGUF file make each tensor of ours.

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
    "ffn_post_norm": "post_ffw_norm",
    "ffn_router": "ffn_gate_inp",
}
_QKV = ("attn_q", "attn_k", "attn_v")
_EXPERTS = "_exps"
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


class Finder:
    """Finds the sources of one model's tensors."""

    def __init__(self, tensors: Mapping[str, TensorInfo], spec: ModelSpec, in_pairs: bool) -> None:
        self._tensors, self._spec, self._in_pairs = tensors, spec, in_pairs

    def source(self, slot: Slot) -> Source:
        """FormatError: what it is made of is not there, or has another shape."""
        layer = None if slot.layer is None else self._spec.layers[slot.layer]
        name = stored_name(slot.role, slot.layer)
        if layer is not None and slot.role.endswith(_EXPERTS):
            return self._experts(slot, layer, name)
        n_rows = slot.shape[0]
        row0, n_stored = 0, n_rows
        if layer is not None:
            name, row0, n_stored = self._in_whole(slot, layer, name)
        info = self._tensor(name)
        shape = (n_stored, *slot.shape[1:])
        _check_shape(info, shape)
        rows = Rows(info, n_rows, row0)
        if self._in_pairs and layer is not None and _turns(slot.role):
            rows = replace(rows, order=row0 + _from_pairs(n_rows, layer.head_dim))
        is_whole = rows.order is None and n_stored == n_rows
        return Source(name if is_whole else f"{name} -> {slot.name}", slot.shape, (rows,))

    def _in_whole(self, slot: Slot, layer: LayerSpec, name: str) -> tuple[str, int, int]:
        """(name, first row, rows in all) of the tensor that this one is a part of, or is."""
        role, n_rows = slot.role.removesuffix("_bias"), slot.shape[0]
        alone = (name, 0, n_rows)
        whole = stored_name(slot.role.replace(role, "attn_qkv"), slot.layer)
        if role in _QKV and name not in self._tensors and whole in self._tensors:
            d_q, d_kv = layer.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
            return whole, (0, d_q, d_q + d_kv)[_QKV.index(role)], d_q + 2 * d_kv
        if role in ("ffn_gate", "ffn_up") and layer.ffn_gated:
            gate, up = (
                stored_name(slot.role.replace(role, name), slot.layer)
                for name in ("ffn_gate", "ffn_up")
            )
            is_fused = gate not in self._tensors and up in self._tensors
            return (up, n_rows * (role == "ffn_up"), 2 * n_rows) if is_fused else alone
        if role == "ffn_norm" and layer.parallel and name not in self._tensors:
            # One norm before attention and feed-forward side by side.
            return stored_name(slot.role.replace(role, "attn_norm"), slot.layer), 0, n_rows
        return alone

    def _experts(self, slot: Slot, layer: LayerSpec, name: str) -> Source:
        n_rows, n_cols = layer.d_expert, self._spec.d_model
        if slot.role == "ffn_down_exps":
            n_rows, n_cols = n_cols, n_rows
        n_padding = padded_rows(n_rows) - n_rows
        parts: list[Rows] = []
        for expert in range(layer.n_experts):
            if name in self._tensors:
                info = self._tensor(name)
                _check_shape(info, (layer.n_experts, n_rows, n_cols))
                parts.append(Rows(info, n_rows, expert * n_rows))
            else:  # files of early 2024 have them one by one
                stem = slot.role.removesuffix(_EXPERTS)
                one = f"blk.{slot.layer}.{stem}.{expert}.weight"
                info = self._tensor(one, instead=name)
                _check_shape(info, (n_rows, n_cols))
                parts.append(Rows(info, n_rows))
            if n_padding:
                parts.append(Rows(None, n_padding))
        return Source(f"{name} -> {slot.name}", slot.shape, tuple(parts))

    def _tensor(self, name: str, instead: str | None = None) -> TensorInfo:
        found = self._tensors.get(name)
        if found is None:
            where = next(iter(self._tensors.values())).path
            raise FormatError(
                f"{where}: tensor '{instead or name}' is missing", code="tensor_missing"
            )
        return found


def _turns(role: str) -> bool:
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
    if len(shape) == 1 and info.dtype not in PLAIN:
        raise UnsupportedError(
            f"{info.path}: tensor '{info.name}' is a vector of type {info.dtype}; only "
            f"{', '.join(PLAIN)} can be read",
            code="tensor_dtype",
        )
