"""Channel scales folded into the operator before: the same function of other weights.

The input channels of a matrix are multiplied by factors s and the rows of what produces that input
divided by them: a norm's weight for q, k, v and for gate, up; the value matrix for the attention
output, one factor for all heads that read a value channel; the up matrix for the down matrix.
Softmax, rotation and the gate's silu see nothing of it. Lies between the checkpoint, whose rows it
changes, and everything that reads them. Knows not how factors are chosen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.errors import NumericError

from .quant.tiles import F32Array
from .spec import LayerSpec, ModelSpec

IndexArray = npt.NDArray[np.int64]

# What produces an input -> the matrices that read it and nothing else reads.
CONSUMERS = {
    "attn_norm": ("attn_q", "attn_k", "attn_v"),
    "attn_v": ("attn_o",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "ffn_up": ("ffn_down",),
}
CONV_IN = ("conv_in",)  # instead of those of attention
PRODUCER = {consumer: producer for producer, roles in CONSUMERS.items() for consumer in roles}
PRODUCER |= dict.fromkeys(CONV_IN, "attn_norm")


def consumers(layer: LayerSpec) -> dict[str, tuple[str, ...]]:
    """CONSUMERS, as far as a layer has such operators: without a norm before a sublayer nothing
    can take its scales, an activation without a gate is not linear in them, and experts share an
    input with their router, whose choice must not move."""
    found = dict(CONSUMERS)
    if layer.mixer == "short_conv":
        found["attn_norm"] = CONV_IN
        del found["attn_v"]
    if not layer.pre_norm:
        del found["attn_norm"], found["ffn_norm"]
    elif not layer.ffn_gated:
        found["ffn_norm"] = ("ffn_up",)
    if layer.n_experts:
        found.pop("ffn_norm", None)
    if layer.n_experts or not layer.ffn_gated:
        del found["ffn_up"]
    return found


def producer_of(spec: ModelSpec, name: str) -> str | None:
    """The role of what can take the scales of the input of matrix `name`, None if nothing can."""
    parts = name.split(".")
    if len(parts) != 3:
        return None
    roles = consumers(spec.layers[int(parts[1])])
    return next((producer for producer, readers in roles.items() if parts[2] in readers), None)


class Folds:
    """The factors of one model, by the name of the tensor that is divided by them."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._factors: dict[str, F32Array] = {}

    def set(self, producer: str, factors: F32Array) -> None:
        """producer: "layers.0.ffn_up"; factors [its rows, or a norm's width], positive.
        NumericError where one is not."""
        if not bool(np.all((factors > 0) & np.isfinite(factors))):
            raise NumericError(
                f"the scales of '{producer}' are not all positive; recalibrate", code="numeric"
            )
        self._factors[producer] = factors.astype(np.float32)

    def width(self, producer: str) -> int:
        """How many factors `producer` takes."""
        layer, role = self._layer(producer)
        widths = {"attn_v": layer.n_kv_heads * layer.head_dim, "ffn_up": layer.d_ffn}
        return widths.get(role, self._spec.d_model)

    def owners(self, producer: str) -> IndexArray:
        """For every column of the matrices that read what `producer` gives, its factor's index."""
        layer, role = self._layer(producer)
        indices = np.arange(self.width(producer))
        if role != "attn_v":
            return indices
        heads = indices.reshape(layer.n_kv_heads, layer.head_dim)
        return np.repeat(heads, layer.n_heads // layer.n_kv_heads, axis=0).reshape(-1)

    def apply(self, name: str, rows: F32Array, row0: int = 0) -> F32Array:
        """Rows [row0, row0 + len(rows)) of tensor `name`, a vector being one row."""
        prefix, _, role = name.rpartition(".")
        # What a bias or a norm adds is divided by the same as what it is added to.
        own = self._factors.get(name.removesuffix("_bias"))
        before = self._factors.get(f"{prefix}.{PRODUCER.get(role, '')}")
        if own is not None:
            is_vector = role.endswith(("norm", "_bias"))
            rows = rows / (own if is_vector else own[row0 : row0 + len(rows), None])
        if before is not None:
            rows = rows * before[self.owners(f"{prefix}.{PRODUCER[role]}")]
        return rows

    def _layer(self, producer: str) -> tuple[LayerSpec, str]:
        _, index, role = producer.split(".")
        return self._spec.layers[int(index)], role
