"""The tensors of a GGUF file that is written, and which rows of ours make them: the way back from
gguf/tensors.py, by the same table of places.

| kind | matrices of the layers | embedding and head |
|---|---|---|
| gguf-f16 | F16 | F16 |
| gguf-q8_0 | Q8_0 | Q8_0 |
| gguf-q4_0 | Q4_0 | Q8_0 |
| gguf-iq4_nl | IQ4_NL | Q8_0 |

Rows that are not whole blocks are F16. Vectors, routers and learned positions are F32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gguf.architectures import Architecture
from ..gguf.tensors import EXPERTS, Place, places, turns
from ..gguf.types import BY_NAME
from ..gguf.writer import OutTensor
from ..layout import Slot, padded_rows, tensor_slots
from ..plan import Job
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..report import PlannedTensor
from ..spec import ModelSpec

F32Array = npt.NDArray[np.float32]
Block = npt.NDArray[Any]
Read = Callable[[int, int], Block]  # first row, number of rows -> [rows, columns or bytes]

READ_WEIGHTS = 4 << 20
_OUTER = {"Q4_0": "Q8_0", "IQ4_NL": "Q8_0"}  # of embedding and head
_F32_ROLES = ("position_embd", "ffn_router", "ffn_gate_inp_shexp")


@dataclass(frozen=True)
class Piece:
    """All rows of one tensor of ours, in their place. head_dim: of the heads whose rows are put in
    another order; 0 for none. n_rows, n_stored: of each of the matrices one below the other, with
    and without their padding. divisor: what our rows were multiplied by and the file's are not."""

    item: PlannedTensor
    head_dim: int
    n_matrices: int
    n_rows: int
    n_stored: int
    divisor: float

    def blocks(self, read: Read) -> Iterator[Block]:
        """Its rows for the file, some at a time, as `read` gives them."""
        n_cols = self.item.rows_cols[1]
        unit = self.head_dim or 1
        step = max(unit, READ_WEIGHTS // n_cols // unit * unit)
        for row0 in range(0, self.n_matrices * self.n_rows, self.n_rows):
            for begin in range(row0, row0 + self.n_stored, step):
                block = read(begin, min(step, row0 + self.n_stored - begin))
                if not self.head_dim:
                    yield block
                elif len(self.item.shape) == 1:
                    yield in_pairs(block.T, self.head_dim).T
                else:
                    yield in_pairs(block, self.head_dim)

    def rows(self, job: Job, row0: int, n_rows: int) -> F32Array:
        """Rows as the file has them, but for their order."""
        rows = job.read_rows(self.item, row0, n_rows)
        return rows if self.divisor == 1 else rows / np.float32(self.divisor)


@dataclass(frozen=True)
class Written:
    """A tensor of the file: the pieces one below the other."""

    out: OutTensor
    pieces: tuple[Piece, ...]


def written_tensors(
    job: Job, spec: ModelSpec, kind: Architecture, type_name: str, divisors: Mapping[str, float]
) -> list[Written]:
    """In execution order. spec: as it will be read again; its head may be a copy of the embedding.
    type_name: of the layers' matrices. divisors: by role, see Piece."""
    items = {item.name: item for item in job.planned}
    slots = {slot.name: slot for slot in tensor_slots(spec)}
    placed = [(name, _place(slot, spec, kind)) for name, slot in slots.items()]
    found = []
    order = list(dict.fromkeys(place.name for _, place in placed))
    placed.sort(key=lambda pair: (order.index(pair[1].name), pair[1].row0))
    for name, group in groupby(placed, key=lambda pair: pair[1].name):
        parts: dict[int, tuple[Slot, Place]] = {}
        for own, place in group:  # what several of ours share is the same in all of them
            parts.setdefault(place.row0, (slots[own], place))
        shape = _squeezed(*parts[0])
        out = OutTensor(name, shape, _type(parts[0][0], shape, type_name))
        pieces = (_piece(slot, items, spec, kind, divisors) for slot, _ in parts.values())
        found.append(Written(out, tuple(pieces)))
    return found


def _place(slot: Slot, spec: ModelSpec, kind: Architecture) -> Place:
    first, *others = places(slot, spec)
    return next((place for place in others if place.whole in kind.wholes), first)


def _squeezed(slot: Slot, place: Place) -> tuple[int, ...]:
    """The gate of a shared expert is a vector there."""
    return place.shape[1:] if slot.role == "ffn_gate_inp_shexp" else place.shape


def _type(slot: Slot, shape: tuple[int, ...], type_name: str) -> str:
    if len(shape) == 1 or slot.role in _F32_ROLES:
        return "F32"
    outer = slot.role in (EMBED_ROLE, HEAD_ROLE)
    kind = _OUTER.get(type_name, type_name) if outer else type_name
    return kind if shape[-1] % BY_NAME[kind].n_weights == 0 else "F16"


def _piece(
    slot: Slot,
    items: Mapping[str, PlannedTensor],
    spec: ModelSpec,
    kind: Architecture,
    divisors: Mapping[str, float],
) -> Piece:
    item = items.get(slot.name) or items[EMBED_ROLE]
    divisor = divisors.get(slot.role.removesuffix("_bias"), 1.0)
    if slot.role.endswith(EXPERTS):
        n_experts, n_stored, _ = places(slot, spec)[0].shape
        return Piece(item, 0, n_experts, padded_rows(n_stored), n_stored, divisor)
    head_dim = 0
    if slot.layer is not None and kind.in_pairs and turns(slot.role):
        head_dim = spec.layers[slot.layer].head_dim
    n_rows = item.rows_cols[0]
    return Piece(item, head_dim, 1, n_rows, n_rows, divisor)


def in_pairs(rows: Block, head_dim: int) -> Block:
    """Rows of whole heads, numbers or bytes: from halves that turn together to neighbours."""
    n_rows, n_cols = rows.shape
    halves = rows.reshape(-1, 2, head_dim // 2, n_cols)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(n_rows, n_cols)
