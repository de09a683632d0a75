"""What a host must know of a model to drive its graphs. Plain data, as it stands in a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ContextOverflowError, FormatError
from .host import MASKED, GraphInputs, Rotation, Tensor, mask, rows_of

NPU, HOST = "npu", "host"
PLACEMENTS = (NPU, HOST)


@dataclass(frozen=True)
class LayerFacts:
    """window: positions that a token sees, itself included; 0: all."""

    n_kv_heads: int
    head_dim: int
    window: int


@dataclass(frozen=True)
class Facts:
    """rotations: by kind of rope. n_positions: learned positions, 0 for none. masked: what is added
    to scores that do not count. stateful: the executor keeps keys and values, and is told by `at`
    where new rows go."""

    n_vocab: int
    d_model: int
    layers: tuple[LayerFacts, ...]
    rotations: Mapping[str, Rotation]
    eos_ids: tuple[int, ...] = ()
    n_positions: int = 0
    kv_dtype: str = "f16"
    stateful: bool = False
    masked: float = MASKED


@dataclass(frozen=True)
class GraphFacts:
    """One graph of a step: a part of the model for n_rows tokens beside n_past slots. part: its
    place among the parts of the same shape, which run one after the other; the last one of the
    parts gives `logits`, each other `hidden`, which is `x` of the next. placement: "npu", or "host"
    for what the target's NPU does not run: onnxruntime's CPU provider, or Core ML's CPU."""

    name: str
    n_rows: int
    n_past: int
    part: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    placement: str = NPU


def made_input(
    name: str, facts: Facts, graph: GraphFacts, ids: Sequence[int], n_before: int
) -> Tensor:
    """An input that follows from the ids of a step and the n_before tokens before them: all but the
    past and `x`."""
    kind, _, rest = name.partition(".")
    n_rows = graph.n_rows
    if kind == "at":
        return np.array([n_before], dtype=np.int32)
    if kind == "ids":
        return rows_of(ids, n_rows)
    if kind == "mask":
        return mask(n_rows, graph.n_past, n_before, int(rest or 0), facts.masked)
    if kind == "positions":
        last = facts.n_positions - 1
        return np.minimum(np.arange(n_before, n_before + n_rows, dtype=np.int32), last)
    rope = rest or "full"
    cos, sin = facts.rotations[rope].cos_sin(n_before, n_rows)
    return cos if name == GraphInputs.cos(rope) else sin


def check_inputs(facts: Facts, graphs: Iterable[GraphFacts]) -> None:
    """FormatError: an input that no host makes for this model."""
    windows = {layer.window for layer in facts.layers}
    known = {"ids", "x", "positions", "at"} | {GraphInputs.mask(window) for window in windows}
    for rope in facts.rotations:
        known |= {GraphInputs.cos(rope), GraphInputs.sin(rope)}
    for index in range(len(facts.layers)):
        known |= {f"past_k.{index}", f"past_v.{index}"}
    for graph in graphs:
        other = sorted(set(graph.inputs) - known)
        if other:
            raise FormatError(
                f"graph '{graph.name}' wants '{other[0][:80]}', which this model does not have",
                code="tensor_unexpected",
            )


class Steps:
    """The shapes of a bundle's steps, and which of them serves."""

    def __init__(self, graphs: tuple[GraphFacts, ...]) -> None:
        self._parts: dict[tuple[int, int], list[GraphFacts]] = {}
        for graph in sorted(graphs, key=lambda one: one.part):
            self._parts.setdefault((graph.n_rows, graph.n_past), []).append(graph)
        for shape, parts in self._parts.items():
            if [part.part for part in parts] != list(range(len(parts))):
                raise FormatError(
                    f"parts of the graph of {shape[0]} rows and {shape[1]} slots are missing",
                    code="tensor_missing",
                )
        if not self._parts:
            raise FormatError("there is no graph", code="tensor_missing")
        self.capacity = max(n_past for _, n_past in self._parts)

    def choose(self, n_pending: int, n_before: int) -> list[GraphFacts]:
        """The parts of the step that takes the most of n_pending tokens after n_before others with
        the least waste. ContextOverflowError: no bucket is as large."""
        buckets = [n_past for _, n_past in self._parts if n_past >= n_before]
        if not buckets:
            raise ContextOverflowError(
                f"{n_before} tokens are before this one, the graphs were made for "
                f"{self.capacity}; convert with a larger --context",
                code="context_overflow",
            )
        n_past = min(buckets)
        rows = [n_rows for n_rows, past in self._parts if past == n_past]
        fitting = [n_rows for n_rows in rows if n_rows >= n_pending]
        return self._parts[min(fitting) if fitting else max(rows), n_past]
