"""What ranges the values of graphs have, measured on text. Needs onnx and onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx

from edgellm.npu.host import Tensor
from edgellm.npu.ort import OrtRunner
from edgellm.npu.session import GraphSession, generate

from .decoder import decoder_graph
from .onnx_lowering import OnnxWriter
from .qdq import Range, widened
from .split import StepPlan
from .weights import NpuWeights

N_TOKENS = 128


class Observer:
    """Runs a graph that gives all its values, and keeps the least and the largest of each."""

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        self._runner, self._outputs = OrtRunner(path, threads=1), outputs
        self.seen: dict[str, Range] = {}

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = self._runner.run(feeds)
        for name, value in (*feeds.items(), *values.items()):
            low, high = self.seen.get(name, (np.inf, -np.inf))
            self.seen[name] = (min(low, float(value.min())), max(high, float(value.max())))
        return {name: values[name] for name in self._outputs}


def measure_ranges(
    weights: NpuWeights, plan: StepPlan, ids: Sequence[int] = ()
) -> dict[str, dict[str, Range]]:
    """Of each graph of the plan, each value's. ids: the text; none: what the model says itself,
    from id 1 on. Each graph sees all of it."""
    found: dict[str, dict[str, Range]] = {}
    shapes = sorted({(one.n_rows, one.n_past) for one in plan.graph_facts})
    with tempfile.TemporaryDirectory() as scratch:
        for shape in shapes:
            folder = Path(scratch) / f"{shape[0]}_{shape[1]}"
            folder.mkdir()
            observers = _observers(weights, plan, shape, folder)
            graphs = [one for one in plan.graph_facts if one.name in observers]
            session = GraphSession(plan.facts, graphs, observers)
            n_tokens = min(N_TOKENS, session.capacity)
            ids = list(ids)[:n_tokens] or [1, *generate(session, [1], n_tokens - 1)]
            session.rewind(0)
            session.append(ids[:n_tokens])
            for name, observer in observers.items():
                found[name] = {key: widened(value) for key, value in observer.seen.items()}
    return found


def _observers(
    weights: NpuWeights, plan: StepPlan, wanted: tuple[int, int], folder: Path
) -> dict[str, Observer]:
    observers: dict[str, Observer] = {}
    with closing(OnnxWriter(folder)) as writer:
        for facts, span, shape in plan.graphs:
            if (shape.n_rows, shape.n_past) != wanted:
                continue
            graph = decoder_graph(weights, shape, span, plan.facts.kv_dtype)
            graph.name = facts.name
            path = writer.write(graph, facts.part).entry
            _give_all(path)
            observers[facts.name] = Observer(path, facts.outputs)
    return observers


def _give_all(path: Path) -> None:
    """Makes every value of a graph an output."""
    model = onnx.load(str(path), load_external_data=False)
    given = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name not in given:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
    path.write_bytes(model.SerializeToString())
