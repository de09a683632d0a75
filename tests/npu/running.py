"""Graphs of a model, run in numpy by the session that every executor has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgellm.converters.npu.decoder import Span, StepShape, decoder_graph
from edgellm.converters.npu.interpret import Interpreter
from edgellm.converters.npu.split import StepPlan, plan_steps
from edgellm.converters.npu.weights import NpuWeights, open_weights

from edgellm.npu.session import GraphSession


def interpreted(weights: NpuWeights, plan: StepPlan) -> GraphSession:
    """A session whose graphs numpy runs."""
    kv_dtype = plan.facts.kv_dtype
    runners = {
        facts.name: Interpreter(decoder_graph(weights, shape, span, kv_dtype))
        for facts, span, shape in plan.graphs
    }
    return GraphSession(plan.facts, plan.graph_facts, runners)


def session_of(
    path: Path,
    shapes: Sequence[tuple[int, int]],
    *,
    bits: int | None = 32,
    kv_dtype: str = "f32",
    spans: Sequence[Span] | None = None,
) -> GraphSession:
    """shapes: (n_rows, n_past) of the graphs."""
    with open_weights(path, bits) as weights:
        steps = [StepShape(*shape) for shape in shapes]
        return interpreted(weights, plan_steps(weights, steps, spans=spans, kv_dtype=kv_dtype))
