"""A graph as ONNX: opset 21, and MatMulNBits of onnxruntime for matrices of 4 bits. Needs onnx."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..export.onnx_graph import Initializers
from .ir import GROUP, Constant, Dense, Graph, Int4, Op, U8Array, Value
from .written import Written

OPSET, IR_VERSION = 21, 10
MICROSOFT = "com.microsoft"
FLOAT_PRODUCTS = 1  # accuracy_level of MatMulNBits: activations stay float32
_TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "i32": TensorProto.INT32}


class OnnxWriter:
    """Writes graphs into a folder. Those of the same part share a file of constants."""

    def __init__(self, folder: Path, *, packed_tables: bool = False) -> None:
        self._folder, self._packed_tables = folder, packed_tables

    def write(self, part: int, graphs: Iterable[Graph]) -> Mapping[str, Written]:
        """Checked by onnx."""
        data = self._folder / f"part{part}.data"
        written = {}
        with data.open("xb") as file:
            constants = Initializers(file, data.name)
            for graph in graphs:
                model = self.lowering(graph, constants).model()
                file.flush()
                path = self._folder / f"{graph.name}.onnx"
                path.write_bytes(model.SerializeToString())
                onnx.checker.check_model(str(path))
                written[graph.name] = Written(path, (path, data))
        return written

    def lowering(self, graph: Graph, constants: Initializers) -> OnnxLowering:
        return OnnxLowering(graph, constants, packed_tables=self._packed_tables)


class OnnxLowering:
    """Writes the operators of one graph. Subclasses write some of them another way. packed_tables:
    tables of 4 bits stay so, for who has onnxruntime's operators."""

    def __init__(
        self, graph: Graph, constants: Initializers, *, packed_tables: bool = False
    ) -> None:
        self.graph, self.constants = graph, constants
        self._packed_tables = packed_tables
        self.nodes: list[onnx.NodeProto] = []
        self._stage = ""
        self._n_named: Counter[str] = Counter()

    def model(self) -> onnx.ModelProto:
        for op in self.graph.ops:
            self._stage = op.stage
            inputs = [self.operand(name, op) for name in op.inputs]
            write: Callable[..., None] = getattr(self, op.kind)
            write(op, *inputs)
        values = self.graph.values
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            self.graph.name,
            [_info(values[name]) for name in self.graph.inputs],
            [_info(values[name]) for name in self.graph.outputs],
            [tensor for tensor in self.constants.tensors if tensor.name in used],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgellm"
        )

    def operand(self, name: str, op: Op) -> str:
        """How an operator reads a value or a constant."""
        constant = self.graph.constants.get(name)
        if constant is None:
            return name
        if isinstance(constant, Int4) and (op.kind == "linear" or self._looks_up(constant, op)):
            return name
        is_half = _is_half(constant)
        if name not in self.constants:
            values = constant.values().reshape(constant.shape)
            self.constants.add(name, values.astype(np.float16) if is_half else values)
        if not is_half or op.kind == "gather":  # which casts the rows that it takes
            return name
        return self._append("Cast", [name], f"{op.output}.of.{name}", to=TensorProto.FLOAT)

    def node(
        self, kind: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node and names its one output."""
        return self._append(kind, inputs, output or self._named(kind), domain, **attributes)

    def _named(self, kind: str) -> str:
        """As operators are: the same in every graph that has the stage."""
        self._n_named[self._stage] += 1
        return f"{self._stage}.{kind}_{self._n_named[self._stage]}"

    def _append(
        self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        name = f"n{len(self.nodes)}_{kind}"
        node = helper.make_node(kind, inputs, [output], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def number(self, value: float) -> str:
        return self.constants.add(f"float.{value!r}", np.array(value, dtype=np.float32))

    def ints(self, *values: int) -> str:
        name = "ints." + ".".join(map(str, values))
        return self.constants.add(name, np.array(values, dtype=np.int64))

    def add(self, op: Op, a: str, b: str) -> None:
        self.node("Add", [a, b], op.output)

    def mul(self, op: Op, a: str, b: str) -> None:
        self.node("Mul", [a, b], op.output)

    def linear(self, op: Op, x: str, weight: str) -> None:
        constant = self.graph.constants[op.inputs[1]]
        if not isinstance(constant, Int4):
            self.node("Gemm", [x, weight], op.output, transB=1)
            return
        n_rows, n_cols = constant.shape
        inputs = [x, *self._packed(weight, constant)]
        self.node(
            "MatMulNBits",
            inputs,
            op.output,
            MICROSOFT,
            K=n_cols,
            N=n_rows,
            bits=4,
            block_size=GROUP,
            accuracy_level=FLOAT_PRODUCTS,
        )

    def _packed(self, name: str, constant: Int4) -> list[str]:
        """codes [n_rows, groups, 16], scales [n_rows * groups] and zero points, two in a byte."""
        names = [f"{name}.codes", f"{name}.scales", f"{name}.zeros"]
        if names[0] in self.constants:
            return names
        scales, zeros, codes = constant.read()
        n_rows, n_cols = constant.shape
        codes = np.pad(codes, ((0, 0), (0, -n_cols % GROUP)))
        nibbles = codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)
        zeros = np.pad(zeros, ((0, 0), (0, constant.n_groups % 2)))
        pairs = zeros[:, 0::2] | zeros[:, 1::2] << np.uint8(4)
        values = (nibbles.reshape(n_rows, -1, GROUP // 2), scales.astype(np.float32), pairs)
        for one, value in zip(names, values, strict=True):
            self.constants.add(one, value if value.ndim == 3 else value.reshape(-1))
        return names

    def matmul(self, op: Op, a: str, b: str) -> None:
        if op.attributes["transpose_b"]:
            b = self.node("Transpose", [b], perm=[0, 2, 1])
        self.node("MatMul", [a, b], op.output)

    def gather(self, op: Op, table: str, rows: str) -> None:
        constant = self.graph.constants[op.inputs[0]]
        if not isinstance(constant, Int4) or not self._looks_up(constant, op):
            self._gather_plain(op, table, rows, is_half=_is_half(constant))
            return
        codes, scales, zeros = self._table(table, constant)
        self.node(
            "GatherBlockQuantized",
            [codes, rows, scales, zeros],
            op.output,
            MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=GROUP,
        )

    def _gather_plain(self, op: Op, table: str, rows: str, *, is_half: bool) -> None:
        if is_half:
            found = self._append("Gather", [table, rows], f"{op.output}.half")
            self._append("Cast", [found], op.output, to=TensorProto.FLOAT)
        else:
            self.node("Gather", [table, rows], op.output)

    def _looks_up(self, constant: Int4, op: Op) -> bool:
        """Whether rows are looked up in 4 bits, not in the table as float32."""
        return self._packed_tables and op.kind == "gather" and constant.shape[1] % GROUP == 0

    def _table(self, name: str, constant: Int4) -> list[str]:
        names = [f"{name}.table", f"{name}.table_scales", f"{name}.table_zeros"]
        if names[0] not in self.constants:
            scales, zeros, codes = constant.read()
            self.constants.add_packed(names[0], TensorProto.UINT4, codes.shape, pairs(codes))
            self.constants.add(names[1], scales.astype(np.float32))
            self.constants.add_packed(names[2], TensorProto.UINT4, zeros.shape, pairs(zeros))
        return names

    def softmax(self, op: Op, x: str) -> None:
        self.node("Softmax", [x], op.output, axis=-1)

    def tanh(self, op: Op, x: str) -> None:
        self.node("Tanh", [x], op.output)

    def silu(self, op: Op, x: str) -> None:
        self.node("Mul", [x, self.node("Sigmoid", [x])], op.output)

    def gelu(self, op: Op, x: str) -> None:
        self.node("Gelu", [x], op.output)  # whole: the HTP has it, and no Erf

    def gelu_tanh(self, op: Op, x: str) -> None:
        cube = self.node("Mul", [self.node("Mul", [x, x]), x])
        inner = self.node("Add", [x, self.node("Mul", [cube, self.number(0.044715)])])
        tanh = self.node("Tanh", [self.node("Mul", [inner, self.number(math.sqrt(2 / math.pi))])])
        half = self.node("Mul", [x, self.number(0.5)])
        self.node("Mul", [half, self.node("Add", [tanh, self.number(1.0)])], op.output)

    def relu(self, op: Op, x: str) -> None:
        self.node("Relu", [x], op.output)

    def rms_norm(self, op: Op, x: str, weight: str) -> None:
        scaled = self._over_root(x, self.node("Mul", [x, x]), op.attributes["eps"])
        self.node("Mul", [scaled, weight], op.output)

    def layer_norm(self, op: Op, x: str, weight: str, bias: str) -> None:
        mean = self.node("ReduceMean", [x, self.ints(-1)], keepdims=1)
        centred = self.node("Sub", [x, mean])
        square = self.node("Mul", [centred, centred])
        scaled = self._over_root(centred, square, op.attributes["eps"])
        self.node("Add", [self.node("Mul", [scaled, weight]), bias], op.output)

    def _over_root(self, x: str, square: str, eps: float) -> str:
        mean = self.node("ReduceMean", [square, self.ints(-1)], keepdims=1)
        root = self.node("Sqrt", [self.node("Add", [mean, self.number(eps)])])
        return self.node("Div", [x, root])

    def reshape(self, op: Op, x: str) -> None:
        self.node("Reshape", [x, self.ints(*op.attributes["shape"])], op.output)

    def transpose(self, op: Op, x: str) -> None:
        self.node("Transpose", [x], op.output, perm=list(op.attributes["order"]))

    def slice(self, op: Op, x: str) -> None:
        begin, end = op.attributes["begin"], op.attributes["end"]
        self.node("Slice", [x, self.ints(begin), self.ints(end), self.ints(-1)], op.output)

    def concat(self, op: Op, *parts: str) -> None:
        self.node("Concat", list(parts), op.output, axis=-1)

    def cast(self, op: Op, x: str) -> None:
        self.node("Cast", [x], op.output, to=_TYPES[op.attributes["to"]])


def _is_half(constant: Constant) -> bool:
    return isinstance(constant, Dense) and constant.stored == "f16"


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, _TYPES[value.dtype], list(value.shape))


def pairs(values: np.ndarray[Any, Any]) -> U8Array:
    """Integers of 4 bits, two in a byte, the first in the low half."""
    flat = values.reshape(-1).view(np.uint8) & 15
    flat = np.pad(flat, (0, len(flat) % 2))
    return (flat[0::2] | flat[1::2] << 4).astype(np.uint8)
