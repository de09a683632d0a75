"""Runs a graph in numpy: what every lowering is compared with. Clear, not fast; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgellm.errors import InvalidArgumentError

from .ir import F32Array, Graph, Op

Tensor = np.ndarray[Any, Any]
_DTYPES = {"f32": np.float32, "f16": np.float16, "i32": np.int32}


class Interpreter:
    """A graph with its constants read. run() may be called any number of times."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._constants: dict[str, Tensor] = {
            name: constant.values().reshape(constant.shape)
            for name, constant in graph.constants.items()
        }

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name. InvalidArgumentError: an input that is missing, or of another shape."""
        values = dict(self._constants)
        for name in self._graph.inputs:
            values[name] = self._checked(name, feeds)
        for op in self._graph.ops:
            result = _RUN[op.kind](op, *(values[name] for name in op.inputs))
            expected = self._graph.values[op.output]
            assert result.shape == expected.shape, (op, result.shape, expected)
            values[op.output] = result
        types = {name: _DTYPES[self._graph.values[name].dtype] for name in self._graph.outputs}
        return {name: values[name].astype(dtype) for name, dtype in types.items()}

    def _checked(self, name: str, feeds: Mapping[str, Tensor]) -> Tensor:
        value, expected = feeds.get(name), self._graph.values[name]
        if value is None or value.shape != expected.shape or value.dtype != _DTYPES[expected.dtype]:
            found = "missing" if value is None else f"{value.dtype} {list(value.shape)}"
            raise InvalidArgumentError(
                f"graph '{self._graph.name}': input '{name}' is {found}, it must be "
                f"{expected.dtype} {list(expected.shape)}",
                code="invalid_argument",
            )
        return value.astype(np.float32) if expected.dtype == "f16" else value


def _rms_norm(op: Op, x: F32Array, weight: F32Array) -> F32Array:
    mean = np.square(x).mean(-1, keepdims=True, dtype=np.float32)
    y: F32Array = weight * (x / np.sqrt(mean + np.float32(op.attributes["eps"])))
    return y


def _layer_norm(op: Op, x: F32Array, weight: F32Array, bias: F32Array) -> F32Array:
    centred = x - x.mean(-1, keepdims=True, dtype=np.float32)
    variance = np.square(centred).mean(-1, keepdims=True, dtype=np.float32)
    y: F32Array = centred / np.sqrt(variance + np.float32(op.attributes["eps"])) * weight + bias
    return y


def _matmul(op: Op, a: F32Array, b: F32Array) -> F32Array:
    y: F32Array = a @ (b.swapaxes(-1, -2) if op.attributes["transpose_b"] else b)
    return y


def _softmax(_: Op, x: F32Array) -> F32Array:
    shares: F32Array = np.exp(x - x.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return shares


def _silu(_: Op, x: F32Array) -> F32Array:
    with np.errstate(over="ignore"):  # exp of a large number divides to 0
        y: F32Array = x / (1 + np.exp(-x))
    return y


def _gelu(_: Op, x: F32Array) -> F32Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    y: F32Array = (0.5 * x * (1 + erf(x / math.sqrt(2)))).astype(np.float32)
    return y


def _gelu_tanh(_: Op, x: F32Array) -> F32Array:
    inner = math.sqrt(2 / math.pi) * (x + np.float32(0.044715) * x**3)
    y: F32Array = (np.float32(0.5) * x * (1 + np.tanh(inner))).astype(np.float32)
    return y


def _cast(op: Op, x: Tensor) -> Tensor:
    """Half precision is rounded to and goes on as float32, which holds it exactly."""
    rounded = x.astype(_DTYPES[op.attributes["to"]])
    return rounded.astype(np.float32) if op.attributes["to"] == "f16" else rounded


_RUN: dict[str, Callable[..., Tensor]] = {
    "add": lambda _, a, b: a + b,
    "mul": lambda _, a, b: a * b,
    "linear": lambda _, x, weight: x @ weight.T,
    "matmul": _matmul,
    "gather": lambda _, table, rows: table[rows],
    "softmax": _softmax,
    "tanh": lambda _, x: np.tanh(x),
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "reshape": lambda op, x: x.reshape(op.attributes["shape"]),
    "transpose": lambda op, x: x.transpose(op.attributes["order"]),
    "slice": lambda op, x: x[..., op.attributes["begin"] : op.attributes["end"]],
    "concat": lambda _, *parts: np.concatenate(parts, axis=-1),
    "cast": _cast,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": lambda _, x: np.maximum(x, 0),
}
