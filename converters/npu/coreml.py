"""Graphs as Core ML packages: keys and values are state, weights of 4 bits stay what they are.

Written by coremltools' MIL builder, without torch and on any machine; what compiles a package for
the Neural Engine is on Apple's. A package has one function for each shape, which share weights and
state: a function reads the past from the state and writes the new rows to it at position `at`, so
that no key or value crosses to the host. Needs coremltools; iOS 18 and macOS 15 run it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, redirect_stderr
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.converter import mil_convert
from coremltools.converters.mil.mil import Function, Program, types

from .ir import GROUP, Constant, Graph, Int4, Op
from .written import Written

_OPSET = ct.target.iOS18
_PAST, _NEW = ("past_k.", "past_v."), ("new_k.", "new_v.")
AT = "at"  # input: the position that the first row is written to, int32 [1]


class CoreMLWriter:
    """half: all values in half precision, as the Neural Engine has them; else float32 beside a
    state in half precision. n_slots: of the state, those for rows that are padding included."""

    def __init__(self, folder: Path, *, half: bool, n_slots: int) -> None:
        self._folder, self._half, self._n_slots = folder, half, n_slots

    def write(self, part: int, graphs: Iterable[Graph]) -> Mapping[str, Written]:
        """One package, with a function named as each graph; equal weights are stored once."""
        package = self._folder / f"part{part}.mlpackage"
        program, constants = Program(), Constants(half=self._half)
        for graph in graphs:
            lowering = MilLowering(graph, constants, half=self._half, n_slots=self._n_slots)
            program.add_function(graph.name, lowering.function())
        names = list(program.functions)
        program.default_function_name = names[0]
        # Joining packages that were saved would read every weight again, as a list of integers.
        program.export_as_multifunction = program.skip_all_passes = True
        with _quiet():
            mil_convert(
                program,
                convert_from="milinternal",
                convert_to="mlprogram",
                specification_version=_OPSET,
                compute_units=ct.ComputeUnit.CPU_ONLY,  # of loading it, which is not done here
                skip_model_load=True,
            ).save(str(package))
        return {name: Written(package, (package,)) for name in names}


class Constants:
    """What functions of a package have in common: in memory once, and in its file."""

    def __init__(self, *, half: bool) -> None:
        self._numpy = np.float16 if half else np.float32
        self._read: dict[str, tuple[Any, ...]] = {}

    def add(self, name: str, constant: Constant) -> Any:
        """The value, in the function that is being written."""
        if name not in self._read:
            self._read[name] = self._stored(constant)
        stored = self._read[name]
        if len(stored) == 1:
            value = mb.const(val=stored[0], name=mil_name(name))
            value.op.weight_id = name
            return value
        keys = ("data", "scale", "offset")
        value = mb.constexpr_blockwise_shift_scale(
            **dict(zip(keys, stored, strict=True)), name=mil_name(name)
        )
        for key in keys:
            value.op.inputs[key].op.weight_id = f"{name}.{key}"
        return value

    def _stored(self, constant: Constant) -> tuple[Any, ...]:
        if not isinstance(constant, Int4) or constant.shape[1] % GROUP:
            return (constant.values().reshape(constant.shape).astype(self._numpy),)
        scales, zeros, codes = constant.read()
        nibbles = types.nptype_from_builtin(types.uint4)
        return codes.view(nibbles), scales.astype(self._numpy), zeros.view(nibbles)


class MilLowering:
    """Writes the operators of one graph."""

    def __init__(self, graph: Graph, constants: Constants, *, half: bool, n_slots: int) -> None:
        self._graph, self._n_slots, self._shared = graph, n_slots, constants
        self._type = types.fp16 if half else types.fp32
        self._dtype = "fp16" if half else "fp32"
        self._numpy = np.float16 if half else np.float32
        self._inputs: dict[str, Any] = {}
        self._values: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}

    def function(self) -> Function:
        """Inputs and outputs are named as in the graph, with `_` for "."."""
        specs = {mil_name(name): self._spec(name) for name in self._graph.inputs}
        if any(name.startswith(_PAST) for name in self._graph.inputs):
            specs[AT] = mb.TensorSpec((1,), types.int32)
        with Function(specs, _OPSET) as function:
            self._inputs = dict(function.inputs)
            for name in self._graph.inputs:
                self._values[name] = self._read(name)
            for op in self._graph.ops:
                value = getattr(self, f"_{op.kind}")(op, *(self._operand(one) for one in op.inputs))
                self._values[op.output] = value
                if op.output.startswith(_NEW):
                    self._keep(op.output, value)
            names = [name for name in self._graph.outputs if not name.startswith(_NEW)]
            function.set_outputs([self._given(name) for name in names])
        return function

    def _spec(self, name: str) -> Any:
        value = self._graph.values[name]
        if name.startswith(_PAST):
            n_heads, _, width = value.shape
            return mb.StateTensorSpec((n_heads, self._n_slots, width), types.fp16)
        return mb.TensorSpec(value.shape, types.int32 if value.dtype == "i32" else self._type)

    def _read(self, name: str) -> Any:
        given = self._inputs[mil_name(name)]
        if not name.startswith(_PAST):
            return given
        shape = self._graph.values[name].shape
        return mb.slice_by_size(x=mb.read_state(input=given), begin=[0, 0, 0], size=shape)

    def _keep(self, name: str, value: Any) -> None:
        """Writes new rows into the state that the past comes from."""
        state = self._inputs[mil_name(name.replace("new", "past"))]
        n_heads, n_rows, width = self._graph.values[name].shape
        at = self._inputs[AT]
        zero = np.array([0], dtype=np.int32)
        end = mb.add(x=at, y=np.array([n_rows], dtype=np.int32))
        begin = mb.concat(values=[zero, at, zero], axis=0)
        ends = [np.array([n_heads], dtype=np.int32), end, np.array([width], dtype=np.int32)]
        row = mb.slice_update(
            x=mb.read_state(input=state),
            update=value,
            begin=begin,
            end=mb.concat(values=ends, axis=0),
        )
        mb.coreml_update_state(state=state, value=row)

    def _given(self, name: str) -> Any:
        return mb.identity(x=self._values[name], name=mil_name(name))

    def _operand(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name not in self._constants:
            self._constants[name] = self._shared.add(name, self._graph.constants[name])
        return self._constants[name]

    def _add(self, _op: Op, a: Any, b: Any) -> Any:
        return mb.add(x=a, y=b)

    def _mul(self, _op: Op, a: Any, b: Any) -> Any:
        return mb.mul(x=a, y=b)

    def _linear(self, _op: Op, x: Any, weight: Any) -> Any:
        return mb.linear(x=x, weight=weight)

    def _matmul(self, op: Op, a: Any, b: Any) -> Any:
        return mb.matmul(x=a, y=b, transpose_y=op.attributes["transpose_b"])

    def _gather(self, _op: Op, table: Any, rows: Any) -> Any:
        return mb.gather(x=table, indices=rows, axis=0)

    def _softmax(self, _op: Op, x: Any) -> Any:
        return mb.softmax(x=x, axis=-1)

    def _tanh(self, _op: Op, x: Any) -> Any:
        return mb.tanh(x=x)

    def _silu(self, _op: Op, x: Any) -> Any:
        return mb.silu(x=x)

    def _gelu(self, _op: Op, x: Any) -> Any:
        return mb.gelu(x=x, mode="EXACT")

    def _gelu_tanh(self, _op: Op, x: Any) -> Any:
        return mb.gelu(x=x, mode="TANH_APPROXIMATION")

    def _relu(self, _op: Op, x: Any) -> Any:
        return mb.relu(x=x)

    def _rms_norm(self, op: Op, x: Any, weight: Any) -> Any:
        mean = mb.reduce_mean(x=mb.square(x=x), axes=[-1], keep_dims=True)
        root = mb.rsqrt(x=mean, epsilon=self._numpy(op.attributes["eps"]))
        return mb.mul(x=mb.mul(x=x, y=root), y=weight)

    def _layer_norm(self, op: Op, x: Any, weight: Any, bias: Any) -> Any:
        eps = self._numpy(op.attributes["eps"])
        return mb.layer_norm(x=x, axes=[-1], gamma=weight, beta=bias, epsilon=eps)

    def _reshape(self, op: Op, x: Any) -> Any:
        return mb.reshape(x=x, shape=op.attributes["shape"])

    def _transpose(self, op: Op, x: Any) -> Any:
        return mb.transpose(x=x, perm=op.attributes["order"])

    def _slice(self, op: Op, x: Any) -> Any:
        begin = [0] * (len(x.shape) - 1) + [op.attributes["begin"]]
        size = [*x.shape[:-1], op.attributes["end"] - op.attributes["begin"]]
        return mb.slice_by_size(x=x, begin=begin, size=size)

    def _concat(self, _op: Op, *parts: Any) -> Any:
        return mb.concat(values=list(parts), axis=-1)

    def _cast(self, op: Op, x: Any) -> Any:
        wanted = "fp16" if op.attributes["to"] == "f16" else self._dtype
        return x if types.builtin_to_string(x.dtype) == wanted else mb.cast(x=x, dtype=wanted)


def _quiet() -> AbstractContextManager[Any]:
    """coremltools draws a bar for every pass."""
    return redirect_stderr(io.StringIO())


def mil_name(name: str) -> str:
    """Names of MIL have no dots."""
    return name.replace(".", "_")
