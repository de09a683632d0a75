"""Executes a saved Core ML package in numpy: what is checked is the bytes that Apple will get.

Every result is rounded to the type that MIL says it has. Nothing is known here of how Apple's
compiler places or fuses operators. Needs coremltools, for reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types

from edgellm.errors import UnsupportedError

from .coreml import mil_name

Tensor = np.ndarray[Any, Any]
Arguments = dict[str, Any]


class Package:
    """A package's functions, which share its state."""

    def __init__(self, path: Path) -> None:
        spec = ct.utils.load_spec(str(path))
        weights = path / "Data" / "com.apple.CoreML" / "weights"
        self._program = load(
            spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights)
        )
        self._state: dict[str, Tensor] = {}

    def runner(self, function: str) -> PackageRunner:
        """UnsupportedError: an operator that is not known here."""
        return PackageRunner(self._program.functions[function], self._state)


class PackageRunner:
    """One function."""

    def __init__(self, function: Any, state: dict[str, Tensor]) -> None:
        self._function, self._state = function, state
        unknown = sorted({op.op_type for op in function.operations} - set(_RUN) - _SPECIAL)
        if unknown:
            raise UnsupportedError(
                f"MIL operators {', '.join(unknown)} are not interpreted",
                code="feature_unsupported",
            )
        for name, var in function.inputs.items():
            if types.is_state(var.sym_type):
                state.setdefault(name, np.zeros(var.shape, dtype=np.float16))
        self._constants = {
            op.outputs[0].name: _decoded(op)
            for op in function.operations
            if op.op_type == "constexpr_blockwise_shift_scale"
        }

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, `hidden` or `logits`."""
        values: dict[str, Tensor] = dict(self._constants)
        by_name = {mil_name(name): value for name, value in feeds.items()}
        for name, var in self._function.inputs.items():
            if not types.is_state(var.sym_type):
                values[name] = np.asarray(by_name[name]).astype(
                    types.nptype_from_builtin(var.dtype)
                )
        for op in self._function.operations:
            if op.op_type in ("const", "constexpr_blockwise_shift_scale"):
                continue
            self._run(op, values)
        return {var.name: values[var.name].astype(np.float32) for var in self._function.outputs}

    def _run(self, op: Any, values: dict[str, Tensor]) -> None:
        if op.op_type == "read_state":
            result = self._state[op.inputs["input"].name]
        elif op.op_type == "coreml_update_state":
            result = _value(op.inputs["value"], values)
            self._state[op.inputs["state"].name] = result
        else:
            given = {
                name: [_value(one, values) for one in var]
                if isinstance(var, (list, tuple))
                else _value(var, values)
                for name, var in op.inputs.items()
                if var is not None
            }
            result = _RUN[op.op_type](given)
        out = op.outputs[0]
        values[out.name] = np.asarray(result).astype(types.nptype_from_builtin(out.dtype))


def _value(var: Any, values: Mapping[str, Tensor]) -> Any:
    if var.name in values:
        found = values[var.name]
        return found.astype(np.float32) if found.dtype == np.float16 else found
    value = var.val
    return value.astype(np.float32) if getattr(value, "dtype", None) == np.float16 else value


def _decoded(op: Any) -> Tensor:
    data = op.inputs["data"].val.astype(np.float32)
    scale = op.inputs["scale"].val
    n = data.shape[-1] // scale.shape[-1]
    zeros = np.repeat(op.inputs["offset"].val.astype(np.float32), n, -1)
    values: Tensor = (data - zeros) * np.repeat(scale.astype(np.float32), n, -1)
    return values.astype(scale.dtype)


def _gelu(given: Arguments) -> Tensor:
    x = given["x"]
    if given["mode"] == "EXACT":
        erf = np.vectorize(math.erf, otypes=[np.float64])
        return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)))


def _softmax(given: Arguments) -> Tensor:
    x = given["x"]
    shares = np.exp(x - x.max(given["axis"], keepdims=True))
    return np.asarray(shares / shares.sum(given["axis"], keepdims=True))


def _layer_norm(given: Arguments) -> Tensor:
    x = given["x"] - given["x"].mean(-1, keepdims=True)
    root = np.sqrt(np.square(x).mean(-1, keepdims=True) + given["epsilon"])
    return np.asarray(x / root * given["gamma"] + given["beta"])


def _slice_update(given: Arguments) -> Tensor:
    result = np.array(given["x"])
    bounds = zip(given["begin"], given["end"], strict=True)
    result[tuple(slice(int(a), int(b)) for a, b in bounds)] = given["update"]
    return result


def _slice_by_size(given: Arguments) -> Tensor:
    bounds = zip(given["begin"], given["size"], strict=True)
    return np.asarray(given["x"][tuple(slice(int(a), int(a) + int(n)) for a, n in bounds)])


def _matmul(given: Arguments) -> Tensor:
    y = given["y"].swapaxes(-1, -2) if given["transpose_y"] else given["y"]
    return np.asarray(given["x"] @ y)


_SPECIAL = {"const", "constexpr_blockwise_shift_scale", "read_state", "coreml_update_state"}
_RUN: dict[str, Callable[[Arguments], Any]] = {
    "add": lambda given: given["x"] + given["y"],
    "mul": lambda given: given["x"] * given["y"],
    "square": lambda given: np.square(given["x"]),
    "rsqrt": lambda given: 1 / np.sqrt(given["x"] + given["epsilon"]),
    "reduce_mean": lambda given: given["x"].mean(
        tuple(given["axes"]), keepdims=bool(given["keep_dims"])
    ),
    "linear": lambda given: given["x"] @ given["weight"].T + given.get("bias", 0),
    "matmul": _matmul,
    "gather": lambda given: np.take(given["x"], given["indices"], int(given["axis"])),
    "softmax": _softmax,
    "tanh": lambda given: np.tanh(given["x"]),
    "silu": lambda given: given["x"] / (1 + np.exp(-given["x"].astype(np.float64))),
    "gelu": _gelu,
    "relu": lambda given: np.maximum(given["x"], 0),
    "layer_norm": _layer_norm,
    "reshape": lambda given: np.reshape(given["x"], given["shape"]),
    "transpose": lambda given: np.transpose(given["x"], given["perm"]),
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "concat": lambda given: np.concatenate(
        [np.asarray(x) for x in given["values"]], int(given["axis"])
    ),
    "cast": lambda given: given["x"],
    "identity": lambda given: given["x"],
}
