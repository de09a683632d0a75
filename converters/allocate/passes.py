"""Which forward passes to measure: tensors grouped so that they stay within a number of passes.

A pass runs the held-out tokens through the model with one group of tensors in one format. The
embedding and the head are measured in every format worth it; a matrix of a layer on its own where
the passes suffice, else with its role's matrices of neighbouring layers. What passes are left
measure further formats. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgellm.edgefile import tensor_bytes
from edgellm.errors import InvalidArgumentError

from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..report import PlannedTensor

DEFAULT_PASSES = 64
ANCHOR = "E4_16"  # measured first: in the middle of what is chosen
FAITHFUL_BITS = 8  # formats of so many bits are not measured on the embedding: too near to zero


@dataclass(frozen=True)
class Group:
    """Tensors that are quantized together in a pass. first_layer: of the layers that see them, 0
    for the embedding, n_layers for the head. anchors: formats to measure, at least one."""

    name: str
    tensors: tuple[str, ...]
    first_layer: int
    anchors: tuple[str, ...]


def plan_passes(
    matrices: Sequence[PlannedTensor],
    n_layers: int,
    formats: Sequence[str],
    max_passes: int = DEFAULT_PASSES,
) -> tuple[Group, ...]:
    """matrices: of the layers, embedding, head. The sum of all anchors is at most max_passes.

    InvalidArgumentError: fewer passes than there are roles, and formats for embedding and head.
    """
    ends = [item for item in matrices if item.role in (EMBED_ROLE, HEAD_ROLE)]
    roles = list(dict.fromkeys(item.role for item in matrices if item not in ends))
    end_anchors = tuple(f for f in formats if bits_per_weight(f) < FAITHFUL_BITS) or tuple(
        formats[:1]
    )
    left = max_passes - len(ends) * len(end_anchors)
    if left < len(roles):
        raise InvalidArgumentError(
            f"{max_passes} passes are too few: {len(ends)} x {len(end_anchors)} for embedding and "
            f"head, and one for each of {len(roles)} roles",
            code="invalid_argument",
        )
    n_bands = min(n_layers, left // len(roles)) if roles else 0
    groups = [
        Group(item.name, (item.name,), 0 if item.role == EMBED_ROLE else n_layers, end_anchors)
        for item in ends
    ]
    order = _anchor_order(formats)
    n_anchors = min(len(order), left // (len(roles) * n_bands)) if roles else 0
    for role in roles:
        of_role = [item.name for item in matrices if item.role == role]
        for begin, end in _bands(n_layers, n_bands):
            names = tuple(of_role[begin:end])
            name = names[0] if len(names) == 1 else f"layers.{begin}-{end - 1}.{role}"
            groups.append(Group(name, names, begin, tuple(order[:n_anchors])))
    return tuple(groups)


def n_passes(groups: Sequence[Group]) -> int:
    """Forward passes over the held-out tokens that measuring takes, the shorter ones included."""
    return sum(len(group.anchors) for group in groups)


def bits_per_weight(format: str) -> float:
    """Of wide matrices, the scale of a row left out: what orders formats."""
    n_rows, n_cols = 16, 1 << 14
    return 8 * tensor_bytes(format, n_rows, n_cols) / (n_rows * n_cols)


def _anchor_order(formats: Sequence[str]) -> list[str]:
    """The anchor, then the coarsest, where additivity is worst, and so on upwards."""
    rising = sorted(formats, key=bits_per_weight)
    first = ANCHOR if ANCHOR in rising else rising[len(rising) // 2]
    return [first, *(f for f in rising if f != first and bits_per_weight(f) < FAITHFUL_BITS)]


def _bands(n_layers: int, n_bands: int) -> list[tuple[int, int]]:
    edges = [n_layers * band // n_bands for band in range(n_bands + 1)]
    return list(pairwise(edges))
