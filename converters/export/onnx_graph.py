"""A whole decoder as an ONNX graph: ids in, logits of every position out, matrices in int8.

Matrices are DequantizeLinear(int8) on both sides of a MatMul ("QDQ"), which onnxruntime turns into
one integer product and vendors' compilers for NPUs read as int8. Where each token has its own
scale, tokens are divided by their largest magnitude before and multiplied by it after. Opset 17,
plain operators only. Knows nothing of calibration. Needs onnx.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..spec import LayerSpec, ModelSpec
from .smoothquant import INT8_MAX, MIN_TOKEN_AMAX, F32Array, Int8Matrix, QuantizedLayer

OPSET = 17
IR_VERSION = 8
DATA_ALIGNMENT = 4096  # so that a reader can map it
_INLINE_BYTES = 1024  # smaller tensors stay in the graph


class Initializers:
    """Constants of a graph: inside it, or in a file beside it as they come."""

    def __init__(self, data: BinaryIO | None, location: str) -> None:
        self.tensors: list[TensorProto] = []
        self._data, self._location = data, location
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, value: npt.NDArray[Any]) -> str:
        """Its name; what has been added under it before stays."""
        if name in self._names:
            return name
        self._names.add(name)
        value = np.asarray(value, order="C")  # ascontiguousarray would make a vector of a number
        if self._data is None or value.nbytes < _INLINE_BYTES:
            self.tensors.append(numpy_helper.from_array(value, name))
            return name
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        return self._beside(self._data, name, kind, value.shape, value)

    def add_packed(
        self, name: str, kind: int, shape: tuple[int, ...], packed: npt.NDArray[np.uint8]
    ) -> str:
        """The same of a type that numpy does not have, as onnx packs it into bytes."""
        self._names.add(name)
        if self._data is None or packed.nbytes < _INLINE_BYTES:
            tensor = TensorProto(name=name, dims=shape, data_type=kind, raw_data=packed.tobytes())
            self.tensors.append(tensor)
            return name
        return self._beside(self._data, name, kind, shape, packed)

    def _beside(
        self,
        data: BinaryIO,
        name: str,
        kind: int,
        shape: tuple[int, ...],
        value: npt.NDArray[Any],
    ) -> str:
        """Writes a constant to the file and says in the graph where it is."""
        data.write(bytes(-data.tell() % DATA_ALIGNMENT))
        tensor = TensorProto(
            name=name, dims=shape, data_type=kind, data_location=TensorProto.EXTERNAL
        )
        place = {"location": self._location, "offset": data.tell(), "length": value.nbytes}
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))
        data.write(value.reshape(-1).view(np.uint8).data)
        self.tensors.append(tensor)
        return name


class DecoderGraph:
    """Call embed(), layer() for every layer in order, head(), then save()."""

    def __init__(self, spec: ModelSpec, inv_freq: F32Array, constants: Initializers) -> None:
        self._spec = spec
        self._constants = constants
        self._nodes: list[onnx.NodeProto] = []
        self._x = ""
        self._cos, self._sin, self._mask = self._positions(inv_freq)

    def embed(self, table: F32Array) -> None:
        """table: [n_vocab, d_model]"""
        self._x = self._op("Gather", self._const("token_embd", table), "input_ids")

    def layer(self, index: int, layer: QuantizedLayer) -> None:
        prefix, shape = f"layers.{index}.", self._spec.layers[index]
        h = self._norm(self._x, prefix + "attn_norm", layer.norms["attn_norm"])
        q, k, v = self._matmul(h, prefix, ("attn_q", "attn_k", "attn_v"), layer)
        mixed = self._attention(q, k, v, shape)
        self._x = self._op("Add", self._x, *self._matmul(mixed, prefix, ("attn_o",), layer))

        h = self._norm(self._x, prefix + "ffn_norm", layer.norms["ffn_norm"])
        gate, up = self._matmul(h, prefix, ("ffn_gate", "ffn_up"), layer)
        gated = self._op("Mul", self._op("Mul", gate, self._op("Sigmoid", gate)), up)
        self._x = self._op("Add", self._x, *self._matmul(gated, prefix, ("ffn_down",), layer))

    def head(self, norm: F32Array, table: F32Array) -> None:
        """table: [n_vocab, d_model], in float32; a tied one is stored once."""
        h = self._norm(self._x, "output_norm", norm)
        rows = self._op("Reshape", h, self._ints([-1, self._spec.d_model]))
        name = "token_embd" if self._spec.tied_head else "output"
        logits = self._op("Gemm", rows, self._const(name, table), transB=1)
        shape = self._op("Shape", "input_ids")
        shape = self._op("Concat", shape, self._ints([self._spec.n_vocab]), axis=0)
        self._nodes.append(helper.make_node("Reshape", [logits, shape], ["logits"]))

    def save(self, path: Path) -> None:
        """Checked by onnx before it returns."""
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "n_tokens"])
        shape = ["batch", "n_tokens", self._spec.n_vocab]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self._nodes, self._spec.arch, [ids], [logits], self._constants.tensors
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="edgellm"
        )
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path))

    def _positions(self, inv_freq: F32Array) -> tuple[str, str, str]:
        """cos and sin [n_tokens, n_rope / 2], and the causal mask [n_tokens, n_tokens]."""
        n = self._op("Gather", self._op("Shape", "input_ids"), self._int(1))
        positions = self._op("Range", self._int(0), n, self._int(1))
        positions = self._op("Cast", positions, to=TensorProto.FLOAT)
        positions = self._op("Unsqueeze", positions, self._ints([1]))
        angles = self._op("Mul", positions, self._const("rope_inv_freq", inv_freq.reshape(1, -1)))
        factor = self._float(self._spec.rope_factor)
        cos, sin = (self._op("Mul", self._op(op, angles), factor) for op in ("Cos", "Sin"))
        side = self._op("Unsqueeze", n, self._ints([0]))
        blocked = self._op(
            "ConstantOfShape",
            self._op("Concat", side, side, axis=0),
            value=numpy_helper.from_array(np.array([-np.inf], dtype=np.float32)),
        )
        return cos, sin, self._op("Trilu", blocked, self._int(1), upper=1)

    def _norm(self, x: str, name: str, weight: F32Array) -> str:
        mean = self._op("ReduceMean", self._op("Mul", x, x), axes=[-1], keepdims=1)
        root = self._op("Sqrt", self._op("Add", mean, self._float(self._spec.norm_eps)))
        return self._op("Mul", self._op("Div", x, root), self._const(name, weight))

    def _matmul(
        self, x: str, prefix: str, roles: tuple[str, ...], layer: QuantizedLayer
    ) -> list[str]:
        """The products of x with matrices that share it, computed as one: onnxruntime makes no int8
        product of an input that several read."""
        amax = None
        if layer.input_scales:
            name = f"{prefix}{roles[0]}.input_scale"
            scale = self._const(name, layer.input_scales[roles[0]])
        else:
            amax = self._op("ReduceMax", self._op("Abs", x), axes=[-1], keepdims=1)
            amax = self._op("Max", amax, self._float(MIN_TOKEN_AMAX))
            x = self._op("Div", x, amax)
            scale = self._float(1 / INT8_MAX)
        zero = self._const("zero", np.array(0, dtype=np.int8))
        codes = self._op("QuantizeLinear", x, scale, zero)
        values = self._op("DequantizeLinear", codes, scale, zero)
        matrices = [layer.matrices[role] for role in roles]
        product = self._op("MatMul", values, self._weights(prefix + "+".join(roles), matrices))
        if amax is not None:
            product = self._op("Mul", product, amax)
        if len(roles) == 1:
            return [product]
        return self._split(product, [len(matrix.scales) for matrix in matrices])

    def _weights(self, name: str, matrices: list[Int8Matrix]) -> str:
        """[n_cols, all rows], as MatMul reads it."""
        codes = np.concatenate([matrix.codes for matrix in matrices])
        scales = np.concatenate([matrix.scales for matrix in matrices])
        return self._op(
            "DequantizeLinear",
            self._const(name, codes.T),
            self._const(name + ".scale", scales),
            self._const(f"zeros.{len(scales)}", np.zeros(len(scales), dtype=np.int8)),
            axis=1,
        )

    def _attention(self, q: str, k: str, v: str, shape: LayerSpec) -> str:
        """Heads that share a kv head stand beside each other, so that products broadcast."""
        n_kv, dim = shape.n_kv_heads, shape.head_dim
        n_groups = shape.n_heads // n_kv
        q = self._rotated(self._heads(q, shape.n_heads, dim), dim)
        k = self._rotated(self._heads(k, n_kv, dim), dim)
        v = self._op("Unsqueeze", self._heads(v, n_kv, dim), self._ints([2]))
        q = self._op("Reshape", q, self._ints([0, n_kv, n_groups, -1, dim]))
        k = self._op("Transpose", k, perm=[0, 1, 3, 2])
        k = self._op("Unsqueeze", k, self._ints([2]))
        scores = self._op("Div", self._op("MatMul", q, k), self._float(math.sqrt(dim)))
        weights = self._op("Softmax", self._op("Add", scores, self._mask), axis=-1)
        mixed = self._op("MatMul", weights, v)
        mixed = self._op("Reshape", mixed, self._ints([0, shape.n_heads, -1, dim]))
        mixed = self._op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self._op("Reshape", mixed, self._ints([0, 0, shape.n_heads * dim]))

    def _heads(self, x: str, n_heads: int, dim: int) -> str:
        """[batch, n_tokens, n_heads * dim] -> [batch, n_heads, n_tokens, dim]"""
        x = self._op("Reshape", x, self._ints([0, 0, n_heads, dim]))
        return self._op("Transpose", x, perm=[0, 2, 1, 3])

    def _rotated(self, x: str, dim: int) -> str:
        half = self._spec.n_rope // 2
        sizes = [half, half] + ([dim - 2 * half] if dim > 2 * half else [])
        parts = self._split(x, sizes)
        a, b = parts[:2]
        left = self._op("Sub", self._op("Mul", a, self._cos), self._op("Mul", b, self._sin))
        right = self._op("Add", self._op("Mul", b, self._cos), self._op("Mul", a, self._sin))
        return self._op("Concat", left, right, *parts[2:], axis=-1)

    def _split(self, x: str, sizes: list[int]) -> list[str]:
        parts = [f"{x}.part{i}" for i in range(len(sizes))]
        self._nodes.append(helper.make_node("Split", [x, self._ints(sizes)], parts, axis=-1))
        return parts

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and names its one output."""
        output = f"{kind}.{len(self._nodes)}"
        node = helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self._nodes.append(node)
        return output

    def _const(self, name: str, value: Any) -> str:
        return self._constants.add(name, np.asarray(value))

    def _int(self, value: int) -> str:
        return self._const(f"int.{value}", np.array(value, dtype=np.int64))

    def _ints(self, values: list[int]) -> str:
        name = "ints." + ".".join(map(str, values))
        return self._const(name, np.array(values, dtype=np.int64))

    def _float(self, value: float) -> str:
        return self._const(f"float.{value!r}", np.array(value, dtype=np.float32))
