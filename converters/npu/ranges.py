"""What ranges the values of graphs have, measured on text. Needs onnx and onnxruntime.

One stage of the model after the other: all of the text goes through a stage before the next one is
read, so that no more than one stage is in memory. It goes token by token and in chunks, between
which a row finds its past in different places; what was seen in either holds for all graphs, which
then agree about what they share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgellm.npu.facts import GraphFacts, made_input
from edgellm.npu.host import KvBuffer, Tensor
from edgellm.npu.ort import OrtRunner
from edgellm.npu.session import GraphSession, generate

from .decoder import Span, StepShape, after, decoder_graph, whole_span
from .ir import Graph
from .onnx_lowering import OnnxWriter
from .qdq import Range, widened
from .split import StepPlan, plan_steps, span_of
from .weights import NpuWeights

N_TOKENS = 128
N_ROWS = 32  # of a chunk
# Models up to this size write the text themselves, on which they are at home, and read all of it
# token by token; larger ones only its beginning, besides all of it in chunks.
MAX_SMALL_BYTES = 1 << 30
N_SINGLE = 16
_IN_MAPPED_FILES = {"session.disable_prepacking": "1"}  # weights are not copied

_PAST, _NEW = "past_", "new_"

Ranges = dict[str, Range]


def measure_ranges(
    weights: NpuWeights, plan: StepPlan, ids: Sequence[int] = ()
) -> dict[str, Ranges]:
    """Of each graph of the plan, each value's. ids: the text; none: what the model says from id 1
    on, or if it is large a text of ours, or if it has no tokenizer ids from all of its
    vocabulary."""
    n_tokens = min(N_TOKENS, plan.capacity)
    ids = list(ids)[:n_tokens] or _text(weights, n_tokens)
    n_rows = min(N_ROWS, len(ids), max(one.n_rows for one in plan.graph_facts))
    ids = ids[: len(ids) - len(ids) % n_rows]  # rows that are padding would be measured
    shapes = [StepShape(n, len(ids)) for n in sorted({1, n_rows})]  # chunks last: all is in them
    n_single = len(ids) if n_rows == 1 or _is_small(weights) else min(N_SINGLE, len(ids))
    found: Ranges = {}
    hidden = np.zeros((len(ids), 0), dtype=np.float32)
    for stage in whole_span(weights.spec).stages():
        span = span_of([stage], len(weights.spec.layers))
        graphs = [decoder_graph(weights, shape, span, plan.facts.kv_dtype) for shape in shapes]
        with tempfile.TemporaryDirectory() as scratch:
            written = OnnxWriter(Path(scratch)).write(0, graphs)
            for shape, graph in zip(shapes, graphs, strict=True):
                measured = _Stage(plan, span, shape, graph, written[graph.name].entry)
                n_ids = n_single if shape.n_rows == 1 else len(ids)
                given = measured.run(ids[:n_ids], hidden[:n_ids], found)
        hidden = given
    return {facts.name: _of_graph(found, span) for facts, span, _ in plan.graphs}


class _Stage:
    """One stage in one shape, which gives all its values."""

    def __init__(
        self, plan: StepPlan, span: Span, shape: StepShape, graph: Graph, path: Path
    ) -> None:
        self._facts, self._span, self._shape = plan.facts, span, shape
        inputs, outputs = tuple(graph.inputs), tuple(graph.outputs)
        self._own = GraphFacts(graph.name, shape.n_rows, shape.n_past, 0, inputs, outputs)
        _give_all(path)
        self._runner = OrtRunner(path, threads=1, entries=_IN_MAPPED_FILES)

    def run(self, ids: Sequence[int], hidden: Tensor, found: Ranges) -> Tensor:
        """What the stage gives for each id, from what the one before gave. What is seen is added
        to `found`."""
        facts, own, span = self._facts, self._own, self._span
        layers = facts.layers[span.first : span.end]
        shapes = [(one.n_kv_heads, one.head_dim) for one in layers]
        kv = KvBuffer(shapes, self._shape.n_past, facts.kv_dtype)
        given: list[Tensor] = []
        for at in range(0, len(ids), own.n_rows):
            rows = slice(at, at + own.n_rows)
            feeds = {name: self._feed(name, ids[rows], hidden[rows], kv) for name in own.inputs}
            values = self._runner.run(feeds)
            _see({**feeds, **values}, found, span)
            kept = {f"{name.partition('.')[0]}.0": values[name] for name in own.outputs}
            kv.keep(kept, own.n_rows)
            given.append(values["logits" if span.head else "hidden"])
        return np.concatenate(given)

    def _feed(self, name: str, ids: Sequence[int], hidden: Tensor, kv: KvBuffer) -> Tensor:
        if name.startswith(_PAST):
            return kv.past(0, name[len(_PAST)], self._shape.n_past)
        return hidden if name == "x" else made_input(name, self._facts, self._own, ids, kv.n_tokens)


def _see(values: Mapping[str, Tensor], found: Ranges, span: Span) -> None:
    for name, value in values.items():
        at = after(span.stages()[-1]) if name == "hidden" else name
        bounds = float(value.min()), float(value.max())
        _widen(found, at, bounds)
        if name.startswith(_NEW):  # which will be the past
            _widen(found, _PAST + name.removeprefix(_NEW), bounds)


def _widen(found: Ranges, name: str, bounds: Range) -> None:
    low, high = found.get(name, bounds)
    found[name] = min(low, bounds[0]), max(high, bounds[1])


def _of_graph(found: Mapping[str, Range], span: Span) -> Ranges:
    """As a graph of these stages names them."""
    ranges = {name: widened(value) for name, value in found.items()}
    stages = span.stages()
    if not span.embed:
        ranges["x"] = ranges[after(f"layers.{span.first - 1}" if span.first else "embed")]
    if not span.head:
        ranges["hidden"] = ranges[after(stages[-1])]
    return ranges


def _text(weights: NpuWeights, n_tokens: int) -> list[int]:
    """Ids to measure on."""
    if _is_small(weights):
        return _written_by_itself(weights, n_tokens)
    return weights.text_ids(n_tokens)


def _is_small(weights: NpuWeights) -> bool:
    return decoder_graph(weights, StepShape(1, 1)).n_bytes <= MAX_SMALL_BYTES


def _written_by_itself(weights: NpuWeights, n_tokens: int) -> list[int]:
    plan = plan_steps(weights, [StepShape(1, n_tokens)], kv_dtype="f32")
    facts = plan.graph_facts[0]
    with tempfile.TemporaryDirectory() as scratch:
        graph = decoder_graph(weights, StepShape(1, n_tokens), None, "f32")
        path = OnnxWriter(Path(scratch)).write(0, [graph])[graph.name].entry
        runner = OrtRunner(path, threads=1)
        session = GraphSession(plan.facts, [facts], {facts.name: runner})
        return [1, *generate(session, [1], n_tokens - 1)] if n_tokens > 1 else [1]


def _give_all(path: Path) -> None:
    """Makes every value of a graph an output."""
    model = onnx.load(str(path), load_external_data=False)
    given = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name not in given:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
    path.write_bytes(model.SerializeToString())
