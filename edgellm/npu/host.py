"""What a host does around a graph of fixed shapes: inputs made, new rows of keys and values kept.

A graph takes `ids` (or `x`), `positions` where positions are learned, `mask` [n_rows, n_past +
n_rows] (one more for each window), `cos` and `sin` [n_rows, n_rope], and of every layer N
`past_k.N` and `past_v.N` [n_kv_heads, n_past, head_dim]; it gives `new_k.N` and `new_v.N`
[n_kv_heads, n_rows, head_dim]. What rows beyond those in use give is thrown away. numpy only;
knows no executor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ContextOverflowError

F32Array = npt.NDArray[np.float32]
Tensor = np.ndarray[Any, Any]

MASKED = -1e4  # added to a score that does not count; exact and still finite in half precision


class GraphInputs:
    """Names of inputs that depend on the layer."""

    @staticmethod
    def mask(window: int) -> str:
        return f"mask.{window}" if window else "mask"

    @staticmethod
    def cos(rope: str) -> str:
        return "cos" if rope == "full" else f"cos.{rope}"

    @staticmethod
    def sin(rope: str) -> str:
        return "sin" if rope == "full" else f"sin.{rope}"


@dataclass(frozen=True)
class Rotation:
    """inv_freq [n_rope / 2] of one rotary table, and what cos and sin are multiplied by."""

    inv_freq: F32Array
    factor: float

    def cos_sin(self, first: int, n_rows: int) -> tuple[F32Array, F32Array]:
        """[n_rows, n_rope] each, from position `first`; sin is negative in the first half."""
        positions = np.arange(first, first + n_rows, dtype=np.float32)
        angles = (positions[:, None] * self.inv_freq[None, :]).astype(np.float64)
        cos = np.tile(np.cos(angles), 2) * self.factor
        sin = np.concatenate([-np.sin(angles), np.sin(angles)], axis=1) * self.factor
        return cos.astype(np.float32), sin.astype(np.float32)


def mask(
    n_rows: int, n_past: int, n_before: int, window: int = 0, masked: float = MASKED
) -> F32Array:
    """[n_rows, n_past + n_rows]: what is added to scores. n_before slots of the past are filled;
    row i is position n_before + i and sees what is not after it, only `window` positions if > 0."""
    own = np.arange(n_before, n_before + n_rows)
    seen = np.concatenate([np.arange(n_past), own])
    is_there = np.concatenate([np.arange(n_past) < n_before, np.ones(n_rows, dtype=bool)])
    distance = own[:, None] - seen[None, :]
    visible = is_there[None, :] & (distance >= 0)
    if window:
        visible &= distance < window
    return np.where(visible, np.float32(0), np.float32(masked))


class KvBuffer:
    """Keys and values of a sequence, one buffer a layer, as graphs take and give them.

    shapes: (n_kv_heads, head_dim) of each layer; none where the executor keeps them. capacity:
    slots, the largest bucket.
    """

    def __init__(self, shapes: Iterable[tuple[int, int]], capacity: int, dtype: str) -> None:
        kind = np.float16 if dtype == "f16" else np.float32
        self.capacity, self.n_tokens = capacity, 0
        self._slots = [
            {part: np.zeros((n_heads, capacity, d), dtype=kind) for part in ("k", "v")}
            for n_heads, d in shapes
        ]

    def past(self, layer: int, part: str, n_past: int) -> Tensor:
        """A contiguous [n_kv_heads, n_past, head_dim]; the buffer itself for the largest bucket."""
        return np.ascontiguousarray(self._slots[layer][part][:, :n_past])

    def keep(self, outputs: Mapping[str, Tensor], n_rows: int) -> None:
        """Takes the first n_rows of what a step computed. ContextOverflowError: no room."""
        end = self.n_tokens + n_rows
        if end > self.capacity:
            raise ContextOverflowError(
                f"{end} tokens, but the graphs were made for {self.capacity}; convert with a "
                "larger --context",
                code="context_overflow",
            )
        for index, slots in enumerate(self._slots):
            for part, buffer in slots.items():
                buffer[:, self.n_tokens : end] = outputs[f"new_{part}.{index}"][:, :n_rows]
        self.n_tokens = end

    def rewind(self, n_tokens: int) -> None:
        """Forgets what came after the first n_tokens."""
        self.n_tokens = min(self.n_tokens, n_tokens)


def rows_of(ids: Sequence[int], n_rows: int) -> npt.NDArray[np.int32]:
    """ids, padded with zeros to n_rows."""
    rows = np.zeros(n_rows, dtype=np.int32)
    rows[: len(ids)] = ids
    return rows
