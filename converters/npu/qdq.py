"""A graph as ONNX in integers: every value between QuantizeLinear and DequantizeLinear ("QDQ").

Activations have 16 bits and one range each, as measured (ranges.py); weights have 4 or 8, in groups
of 32 inputs where those divide, else one scale for each output. Zero points are always written: the
HTP compiler takes 4-bit weights without them for 8-bit ones, silently. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgellm.errors import UnsupportedError

from ..export.onnx_graph import Initializers
from .ir import GROUP, F32Array, Graph, Int4, Op
from .onnx_lowering import OnnxLowering, OnnxWriter, pairs

Range = tuple[float, float]
Ranges = Mapping[str, Range]

_LEVELS = 65535
_MOVES = ("Reshape", "Transpose", "Slice")  # have the numbers of their input
_MARGIN = 1.1  # of a range, for what was not measured
_SCALE_TRIALS = np.linspace(0.7, 1.0, 16, dtype=np.float32)
_ROUNDED_AT_ONCE = 1 << 18  # weights: a few copies of them stay in a cache
# Errors of the head are the tokens' own, those of keys and values stay with all later tokens, and
# both are a small share of the weights: they keep 8 bits.
_FAITHFUL = (".attn_k", ".attn_v")
_Parameters = tuple[str, str]  # names of scale and zero point


class QdqWriter(OnnxWriter):
    """ranges: of every value of each graph, by its name. weight_bits: 4 or 8."""

    def __init__(self, folder: Path, ranges: Mapping[str, Ranges], weight_bits: int) -> None:
        super().__init__(folder)
        self._ranges, self._weight_bits = ranges, weight_bits

    def lowering(self, graph: Graph, constants: Initializers) -> OnnxLowering:
        return QdqLowering(graph, constants, self._ranges[graph.name], self._weight_bits)


class QdqLowering(OnnxLowering):
    """Writes the operators of one graph."""

    def __init__(
        self, graph: Graph, constants: Initializers, ranges: Ranges, weight_bits: int
    ) -> None:
        super().__init__(graph, constants)
        self._ranges, self._weight_bits = ranges, weight_bits
        self._parameters: dict[str, _Parameters] = {}
        self._read: dict[str, str] = {}  # an input, as operators read it

    def model(self) -> onnx.ModelProto:
        for name in self.graph.inputs:
            if self.graph.values[name].dtype == "f32":
                self._read[name] = self._rounded(name, f"{name}.read", self._range_of(name))
        return super().model()

    def operand(self, name: str, op: Op) -> str:
        constant = self.graph.constants.get(name)
        if constant is None:
            return self._read.get(name, name)
        if op.kind == "linear":
            return name
        if name not in self.constants:
            self._store_codes(name, constant.values().reshape(constant.shape))
        return self._dequantized(name)

    def number(self, value: float) -> str:
        name = f"float.{value!r}"
        if name not in self.constants:
            self._store_codes(name, np.array(value, dtype=np.float32))
        return self._dequantized(name)

    def node(
        self, kind: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        output = output or self._named(kind)
        raw = self._append(kind, inputs, f"{output}.raw", domain, **attributes)
        parameters = self._parameters.get(inputs[0]) if kind in _MOVES else None
        if parameters is None:
            parameters = self._parameters_of(output, self._range_of(output))
        return self._through(raw, output, parameters)

    def linear(self, op: Op, x: str, name: str) -> None:
        constant = self.graph.constants[name]
        n_cols = constant.shape[1]
        faithful = op.stage == "head" or name.endswith(_FAITHFUL)
        bits = 8 if faithful else self._weight_bits
        grouped = bits == 4 and n_cols % GROUP == 0
        stored = f"{name}.by_input"
        if stored not in self.constants:
            if isinstance(constant, Int4) and bits == 4:
                scales, codes = _symmetric(name, constant)
            else:
                group = GROUP if grouped else n_cols
                scales, codes = round_weights(constant.values(), bits, group)
            self._store_weights(stored, scales, codes, bits, grouped=grouped)
        layout: dict[str, Any] = {"axis": 0, "block_size": GROUP} if grouped else {"axis": 1}
        inputs = [stored, f"{stored}.scales", f"{stored}.zeros"]
        values = self._append("DequantizeLinear", inputs, f"{op.output}.weight", **layout)
        self.node("MatMul", [x, values], op.output)

    def gather(self, op: Op, table: str, rows: str) -> None:
        self.node("Gather", [table, rows], op.output)

    def _store_weights(
        self,
        name: str,
        scales: F32Array,
        codes: np.ndarray[Any, Any],
        bits: int,
        *,
        grouped: bool,
    ) -> None:
        """scales [n_rows, groups], codes [n_rows, n_cols]; stored [n_cols, n_rows]."""
        values = np.ascontiguousarray(codes.T)
        zeros = np.zeros_like(scales.T if grouped else scales.T[0], dtype=np.int8)
        if bits == 8:
            self.constants.add(name, values)
            self.constants.add(f"{name}.zeros", zeros)
        else:
            self.constants.add_packed(name, TensorProto.INT4, values.shape, pairs(values))
            self.constants.add_packed(f"{name}.zeros", TensorProto.INT4, zeros.shape, pairs(zeros))
        by_input = np.ascontiguousarray(scales.T if grouped else scales.T[0])
        self.constants.add(f"{name}.scales", by_input)

    def _store_codes(self, name: str, values: F32Array) -> None:
        """A constant of 16 bits."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale, zero = _scale_and_zero((low, high))
        codes = np.clip(np.rint(values / scale) + zero, 0, _LEVELS).astype(np.uint16)
        self.constants.add(name, codes)
        self.constants.add(f"{name}.scale", np.array(scale, dtype=np.float32))
        self.constants.add(f"{name}.zero", np.array(zero, dtype=np.uint16))

    def _dequantized(self, name: str) -> str:
        output = f"{name}.values{len(self.nodes)}"
        return self._append("DequantizeLinear", [name, f"{name}.scale", f"{name}.zero"], output)

    def _rounded(self, name: str, output: str, bounds: Range) -> str:
        return self._through(name, output, self._parameters_of(name, bounds))

    def _through(self, value: str, output: str, parameters: _Parameters) -> str:
        codes = self._append("QuantizeLinear", [value, *parameters], f"{output}.codes")
        self._parameters[output] = parameters
        return self._append("DequantizeLinear", [codes, *parameters], output)

    def _parameters_of(self, name: str, bounds: Range) -> _Parameters:
        scale, zero = _scale_and_zero(bounds)
        names = f"{self.graph.name}.{name}.scale", f"{self.graph.name}.{name}.zero"
        self.constants.add(names[0], np.array(scale, dtype=np.float32))
        self.constants.add(names[1], np.array(zero, dtype=np.uint16))
        return names

    def _range_of(self, name: str) -> Range:
        return self._ranges[name]


def round_weights(
    values: F32Array, bits: int, group: int
) -> tuple[F32Array, np.ndarray[Any, np.dtype[np.int8]]]:
    """Symmetric codes of [n_rows, n_cols] with the scale of least squares for every `group`
    columns: scales [n_rows, groups], codes [n_rows, n_cols]."""
    n_rows, n_cols = values.shape
    scales = np.empty((n_rows, n_cols // group), dtype=np.float32)
    codes = np.empty(values.shape, dtype=np.int8)
    step = max(1, _ROUNDED_AT_ONCE // n_cols)
    for at in range(0, n_rows, step):
        rows = slice(at, at + step)
        scales[rows], codes[rows] = _round_rows(values[rows], bits, group)
    return scales, codes


def _round_rows(
    values: F32Array, bits: int, group: int
) -> tuple[F32Array, np.ndarray[Any, np.dtype[np.int8]]]:
    limit = (1 << (bits - 1)) - 1
    blocks = values.reshape(len(values), -1, group)
    widest = np.abs(blocks).max(-1, keepdims=True) / limit
    widest[widest == 0] = 1.0
    best, best_error = widest, np.full(widest.shape, np.inf, dtype=np.float32)
    for trial in _SCALE_TRIALS:
        scale = widest * trial
        rounded = np.clip(np.rint(blocks / scale), -limit, limit) * scale
        error = np.square(rounded - blocks).sum(-1, keepdims=True)
        best = np.where(error < best_error, scale, best)
        best_error = np.minimum(error, best_error)
    codes = np.clip(np.rint(blocks / best), -limit, limit).astype(np.int8)
    return best[..., 0].astype(np.float32), codes.reshape(values.shape)


def _symmetric(name: str, constant: Int4) -> tuple[F32Array, np.ndarray[Any, np.dtype[np.int8]]]:
    """What the file holds, if its zero points are all 8."""
    scales, zeros, codes = constant.read()
    if (zeros[scales != 0] != 8).any() or constant.shape[1] % GROUP:
        raise UnsupportedError(
            f"'{name}' is stored with zero points or an odd width, which integer graphs do not "
            "have; rounding it again would lose more than 4 bits have to: convert from the source "
            "checkpoint",
            code="tensor_format",
        )
    return scales.astype(np.float32), codes.astype(np.int8) - np.int8(8)


def _scale_and_zero(bounds: Range) -> tuple[float, int]:
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = max((high - low) / _LEVELS, 1e-9)
    return float(np.float32(scale)), int(np.clip(round(-low / scale), 0, _LEVELS))


def widened(bounds: Range) -> Range:
    """A measured range with room for what was not measured."""
    return bounds[0] * _MARGIN, bounds[1] * _MARGIN


__all__ = ["QdqLowering", "QdqWriter", "Range", "Ranges", "round_weights", "widened"]
