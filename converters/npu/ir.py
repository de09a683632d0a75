"""A graph of fixed shapes: what every vendor's compiler is given, before it is written its way.

Eighteen operators, each with one output whose shape is known when it is added. Constants are
read when they are wanted, so that a graph of a large model is small. Knows no model and no vendor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

F32Array = npt.NDArray[np.float32]
F16Array = npt.NDArray[np.float16]
U8Array = npt.NDArray[np.uint8]
Shape = tuple[int, ...]

GROUP = 32  # columns that share a scale
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
KINDS = frozenset(
    {
        *("add", "mul", "linear", "matmul", "gather", "softmax", "tanh"),
        *("rms_norm", "layer_norm", "reshape", "transpose", "slice", "concat", "cast"),
        *ACTIVATIONS,
    }
)


class Constant(Protocol):
    """A weight. n_bytes: what it takes in a file."""

    @property
    def shape(self) -> Shape: ...
    @property
    def n_bytes(self) -> int: ...
    def values(self) -> F32Array:
        """float32 of `shape`, read anew."""


@dataclass(frozen=True)
class Dense:
    """stored: "f32", or "f16" where its values are exact in that."""

    shape: Shape
    stored: str
    read: Callable[[], F32Array]

    @property
    def n_bytes(self) -> int:
        return int(np.prod(self.shape)) * (4 if self.stored == "f32" else 2)

    def values(self) -> F32Array:
        return self.read()


@dataclass(frozen=True)
class Int4:
    """w = scale * (code - zero). read() gives scales and zeros [n_rows, groups of 32 columns] and
    codes [n_rows, n_cols], each 0..15."""

    shape: Shape
    read: Callable[[], tuple[F16Array, U8Array, U8Array]]

    @property
    def n_groups(self) -> int:
        return -(-self.shape[1] // GROUP)

    @property
    def n_bytes(self) -> int:
        return self.shape[0] * self.n_groups * (GROUP // 2 + 2) + self.shape[0] * self.n_groups // 2

    def values(self) -> F32Array:
        scales, zeros, codes = self.read()
        (n_rows, n_cols), n_groups = self.shape, self.n_groups
        levels = np.zeros((n_rows, n_groups * GROUP), dtype=np.float32)
        levels[:, :n_cols] = codes
        groups = levels.reshape(n_rows, n_groups, GROUP)
        groups -= zeros[..., None]
        groups *= scales.astype(np.float32)[..., None]
        return levels[:, :n_cols]


@dataclass(frozen=True)
class Value:
    """A tensor between operators. dtype: "f32", "f16" or "i32"."""

    name: str
    shape: Shape
    dtype: str = "f32"


@dataclass(frozen=True)
class Op:
    """stage: the part of the model that it belongs to, for messages."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    stage: str


@dataclass
class Graph:
    """Operators in execution order. values: of inputs and operators; constants: by name."""

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Of all constants as stored."""
        return sum(constant.n_bytes for constant in self.constants.values())


class Builder:
    """Adds operators to a graph. Arguments and results are names; axes count from the end, as -1,
    so that they mean the same for every rank. A result is named by its stage and its place in that,
    so that a stage has the same names in every graph."""

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self.stage = ""
        self._n_ops: Counter[str] = Counter()

    def input(self, name: str, shape: Shape, dtype: str = "f32") -> str:
        """Once for each name; asked again it is the same input."""
        if name not in self.graph.values:
            self.graph.inputs.append(name)
            self.graph.values[name] = Value(name, shape, dtype)
        return name

    def output(self, name: str, value: str) -> None:
        """Makes `value`, the result of an operator, an output of that name."""
        self.rename(name, value)
        self.graph.outputs.append(name)

    def rename(self, name: str, value: str) -> str:
        """Gives the result of an operator another name."""
        graph = self.graph
        old = graph.values.pop(value)
        graph.values[name] = Value(name, old.shape, old.dtype)
        graph.ops = [
            Op(
                op.kind,
                tuple(name if one == value else one for one in op.inputs),
                name if op.output == value else op.output,
                op.attributes,
                op.stage,
            )
            for op in graph.ops
        ]
        return name

    def constant(self, name: str, constant: Constant) -> str:
        self.graph.constants[name] = constant
        return name

    def shape(self, name: str) -> Shape:
        values, constants = self.graph.values, self.graph.constants
        return values[name].shape if name in values else constants[name].shape

    def add(self, a: str, b: str) -> str:
        return self._op("add", (a, b), np.broadcast_shapes(self.shape(a), self.shape(b)))

    def mul(self, a: str, b: str) -> str:
        return self._op("mul", (a, b), np.broadcast_shapes(self.shape(a), self.shape(b)))

    def scaled(self, x: str, factor: float) -> str:
        """x times a number."""
        if factor == 1:
            return x
        value = np.array(factor, dtype=np.float32)
        return self.mul(x, self.constant(f"number.{factor!r}", Dense((), "f32", lambda: value)))

    def linear(self, x: str, weight: str) -> str:
        """x [..., n_cols] times the matrix [n_rows, n_cols] transposed."""
        n_rows, n_cols = self.shape(weight)
        if self.shape(x)[-1] != n_cols:
            raise ValueError(f"{weight} has {n_cols} columns, its input {self.shape(x)}")
        return self._op("linear", (x, weight), (*self.shape(x)[:-1], n_rows))

    def matmul(self, a: str, b: str, *, transpose_b: bool = False) -> str:
        left, right = self.shape(a), self.shape(b)
        inner, n_cols = (right[-1], right[-2]) if transpose_b else (right[-2], right[-1])
        if left[-1] != inner or left[:-2] != right[:-2]:
            raise ValueError(f"{left} cannot be multiplied with {right}")
        return self._op("matmul", (a, b), (*left[:-1], n_cols), transpose_b=transpose_b)

    def gather(self, table: str, rows: str) -> str:
        """The rows of a matrix that `rows` [n], of type i32, names."""
        return self._op("gather", (table, rows), (*self.shape(rows), self.shape(table)[1]))

    def unary(self, kind: str, x: str) -> str:
        """softmax (over the last axis), tanh, or one of ACTIVATIONS."""
        return self._op(kind, (x,), self.shape(x))

    def rms_norm(self, x: str, weight: str, eps: float) -> str:
        return self._op("rms_norm", (x, weight), self.shape(x), eps=eps)

    def layer_norm(self, x: str, weight: str, bias: str, eps: float) -> str:
        return self._op("layer_norm", (x, weight, bias), self.shape(x), eps=eps)

    def reshape(self, x: str, shape: Shape) -> str:
        if self.shape(x) == shape:
            return x
        return self._op("reshape", (x,), shape, shape=shape)

    def transpose(self, x: str, order: Shape) -> str:
        shape = self.shape(x)
        return self._op("transpose", (x,), tuple(shape[i] for i in order), order=order)

    def slice(self, x: str, begin: int, end: int) -> str:
        """Of the last axis."""
        shape = self.shape(x)
        if (begin, end) == (0, shape[-1]):
            return x
        return self._op("slice", (x,), (*shape[:-1], end - begin), begin=begin, end=end)

    def concat(self, *parts: str) -> str:
        """Along the last axis."""
        if len(parts) == 1:
            return parts[0]
        n = sum(self.shape(part)[-1] for part in parts)
        return self._op("concat", parts, (*self.shape(parts[0])[:-1], n))

    def cast(self, x: str, dtype: str) -> str:
        if self.graph.values[x].dtype == dtype:
            return x
        return self._op("cast", (x,), self.shape(x), dtype, to=dtype)

    def _op(
        self,
        kind: str,
        inputs: tuple[str, ...],
        shape: Shape,
        dtype: str = "f32",
        /,
        **attributes: Any,
    ) -> str:
        graph = self.graph
        output = f"{self.stage}.{kind}.{self._n_ops[self.stage]}"
        self._n_ops[self.stage] += 1
        graph.values[output] = Value(output, tuple(shape), dtype)
        graph.ops.append(Op(kind, inputs, output, attributes, self.stage))
        return output
