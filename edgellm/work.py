"""What one token costs a model, counted from the header of its file; nothing is timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .edgeheader import EdgeHeader, TensorInfo
from .planner import int_field, layers_of

_EMBEDDING, _HEAD = "token_embd", "output"


@dataclass(frozen=True)
class TokenWork:
    """`weight_bytes`: read for one decoded token, of experts those that it uses; `body_macs`:
    multiply-adds of one prompt token, `head_macs`: those that give its logits."""

    weight_bytes: int
    body_macs: int
    head_macs: int
    n_layers: int
    # Layers with attention: multiply-adds for every position seen, and the window (0: none).
    attention: tuple[tuple[int, int], ...]

    def attention_macs_at(self, position: int) -> int:
        """Of a token that stands behind `position` others."""
        return sum(
            macs * (min(position, window) if window else position)
            for macs, window in self.attention
        )


def work_of(header: EdgeHeader) -> TokenWork:
    """Embedding rows are looked up, so that table counts only where it is the head as well. The
    spec is a stranger's: fields that are missing count as 0."""
    tensors = [tensor for tensor in header.tensors.values() if len(tensor.shape) == 2]
    has_own_head = any(tensor.role == _HEAD for tensor in tensors)
    head = [t for t in tensors if t.role == (_HEAD if has_own_head else _EMBEDDING)]
    body = [t for t in tensors if t.role not in (_EMBEDDING, _HEAD)]
    layers = layers_of(header.spec)
    return TokenWork(
        weight_bytes=int(sum(t.n_bytes * _used(t, layers) for t in body + head)),
        body_macs=int(sum(math.prod(t.shape) * _used(t, layers) for t in body)),
        head_macs=sum(math.prod(t.shape) for t in head),
        n_layers=len(layers),
        attention=tuple(
            (2 * int_field(la, "n_heads") * int_field(la, "head_dim"), int_field(la, "window"))
            for la in layers
            if int_field(la, "n_heads") > 0
        ),
    )


def _used(tensor: TensorInfo, layers: Sequence[Mapping[str, object]]) -> Fraction:
    """Of stacked experts, the part that one token uses."""
    parts = tensor.name.split(".")
    if not tensor.role.endswith("_exps") or len(parts) < 2 or not parts[1].isdecimal():
        return Fraction(1)
    at = int(parts[1])
    layer = layers[at] if at < len(layers) else {}
    n_experts = int_field(layer, "n_experts")
    return Fraction(int_field(layer, "n_experts_used"), n_experts) if n_experts else Fraction(1)
