"""A model in parts that a vendor's compiler takes, and what it does not take, named beforehand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

from edgellm.errors import UnsupportedError
from edgellm.npu.facts import HOST, NPU, Facts, GraphFacts, LayerFacts
from edgellm.npu.host import MASKED, Rotation

from .decoder import Span, StepShape, check_spec, decoder_graph, whole_span
from .ir import GROUP, Constant, Dense, Graph
from .weights import NpuWeights, rotary_table


@dataclass(frozen=True)
class StageSize:
    """What the constants of a stage take in a file, and how many operators it has."""

    stage: str
    n_bytes: int
    n_ops: int


def stored_bytes(graph: Graph, rounded_to: int | None = None) -> int:
    """What the constants of a graph take in a file, as they are or with matrices rounded to so many
    bits: a little less then, as some keep 8."""
    return sum(_constant_bytes(one, rounded_to) for one in graph.constants.values())


def _constant_bytes(constant: Constant, rounded_to: int | None) -> int:
    if rounded_to is None or not isinstance(constant, Dense) or len(constant.shape) != 2:
        return constant.n_bytes
    n_weights, n_rows = prod(constant.shape), constant.shape[0]
    n_scales = n_weights // GROUP if rounded_to == 4 else n_rows
    return n_weights * rounded_to // 8 + 4 * n_scales


def stage_sizes(weights: NpuWeights, rounded_to: int | None = None) -> list[StageSize]:
    """Of every stage: the embedding, the layers, the head. No weight is read. rounded_to: see
    stored_bytes()."""
    graph = decoder_graph(weights, StepShape(1, 1))
    readers: dict[str, set[str]] = {}
    n_ops = Counter(op.stage for op in graph.ops)
    for op in graph.ops:
        readers.setdefault(op.stage, set()).update(set(op.inputs) & set(graph.constants))
    return [
        StageSize(
            stage,
            sum(_constant_bytes(graph.constants[name], rounded_to) for name in readers[stage]),
            n_ops[stage],
        )
        for stage in whole_span(weights.spec).stages()
    ]


def split_spans(
    sizes: Sequence[StageSize], n_layers: int, max_bytes: int, on_host: Collection[str] = ()
) -> list[Span]:
    """Consecutive parts of at most max_bytes of constants each, as few as there can be; stages on
    the host are parts of their own, of any size. UnsupportedError names a stage that is larger by
    itself."""
    on_npu = [size for size in sizes if size.stage not in on_host]
    largest = max(on_npu, key=lambda size: size.n_bytes)
    if largest.n_bytes > max_bytes:
        raise UnsupportedError(
            f"'{largest.stage}' takes {largest.n_bytes / 2**20:.1f} MiB by itself, a graph of this "
            f"target may have {max_bytes / 2**20:.1f} MiB; choose fewer bits a weight",
            code="feature_unsupported",
        )
    parts: list[list[StageSize]] = []
    for size in sizes:
        alone = size.stage in on_host or (parts and parts[-1][-1].stage in on_host)
        if not parts or alone or _n_bytes(parts[-1]) + size.n_bytes > max_bytes:
            parts.append([])
        parts[-1].append(size)
    return [span_of([one.stage for one in part], n_layers) for part in parts]


def _n_bytes(part: Sequence[StageSize]) -> int:
    return sum(one.n_bytes for one in part)


def span_of(stages: Sequence[str], n_layers: int) -> Span:
    """Of consecutive stages."""
    layers = [int(stage.split(".")[1]) for stage in stages if stage.startswith("layers.")]
    at = n_layers if stages[0] == "head" else 0
    first, end = (layers[0], layers[-1] + 1) if layers else (at, at)
    return Span(stages[0] == "embed", first, end, stages[-1] == "head")


def check_ops(
    graph: Graph, known: Collection[str], target: str, on_host: Collection[str] = ()
) -> None:
    """UnsupportedError that names the operators of a graph that a target does not have, and where
    they are; on_host: stages that it need not have them for."""
    missing: dict[str, str] = {}
    for op in graph.ops:
        if op.kind not in known and op.stage not in on_host:
            missing.setdefault(op.kind, op.stage)
    if missing:
        named = ", ".join(f"{kind} (first in {stage})" for kind, stage in missing.items())
        raise UnsupportedError(
            f"target '{target}' has no {named}; nothing was compiled", code="feature_unsupported"
        )


@dataclass(frozen=True)
class StepPlan:
    """Which graphs a bundle has: every part for every shape, those of a part one after the other,
    and what the host must know."""

    facts: Facts
    graphs: tuple[tuple[GraphFacts, Span, StepShape], ...]

    @property
    def graph_facts(self) -> tuple[GraphFacts, ...]:
        return tuple(graph for graph, _, _ in self.graphs)

    @property
    def capacity(self) -> int:
        """Slots of the largest bucket."""
        return max(graph.n_past for graph in self.graph_facts)


def plan_steps(
    weights: NpuWeights,
    shapes: Sequence[StepShape],
    *,
    spans: Sequence[Span] | None = None,
    kv_dtype: str = "f16",
    masked: float = MASKED,
    stateful: bool = False,
    on_host: Collection[str] = (),
) -> StepPlan:
    """spans: the parts; None: one. stateful: the executor keeps keys and values. on_host: stages
    that are not for the NPU. UnsupportedError: see check_spec()."""
    check_spec(weights.spec)
    parts = list(spans or [whole_span(weights.spec)])
    graphs = []
    for index, span in enumerate(parts):
        placement = HOST if set(span.stages()) <= set(on_host) else NPU
        for shape in shapes:
            graph = decoder_graph(weights, shape, span, kv_dtype)
            name = f"{shape.name}_part{index}"
            inputs, outputs = tuple(graph.inputs), tuple(graph.outputs)
            if stateful and span.end > span.first:
                inputs = (*(one for one in inputs if not one.startswith("past_")), "at")
                outputs = tuple(one for one in outputs if not one.startswith("new_"))
            sizes = shape.n_rows, shape.n_past
            one = GraphFacts(name, *sizes, index, inputs, outputs, placement)
            graphs.append((one, span, shape))
    n_ctx = max(shape.n_past for shape in shapes)
    return StepPlan(model_facts(weights, n_ctx, kv_dtype, masked, stateful), tuple(graphs))


def model_facts(
    weights: NpuWeights, n_ctx: int, kv_dtype: str, masked: float, stateful: bool
) -> Facts:
    """What a host must know. n_ctx: the context planned, which chooses a table of LongRoPE."""
    spec = weights.spec
    ropes = {layer.rope for layer in spec.layers} - {"none"} if spec.n_rope else set()
    rotations = {rope: _rotation(weights, rope, n_ctx) for rope in sorted(ropes)}
    layers = tuple(LayerFacts(one.n_kv_heads, one.head_dim, one.window) for one in spec.layers)
    return Facts(
        spec.n_vocab,
        spec.d_model,
        layers,
        rotations,
        spec.eos_ids,
        spec.n_positions,
        kv_dtype,
        stateful,
        masked,
    )


def _rotation(weights: NpuWeights, rope: str, n_ctx: int) -> Rotation:
    spec = weights.spec
    factor = spec.rope_local_factor if rope == "local" else spec.rope_factor
    return Rotation(rotary_table(weights, rope, n_ctx), factor)
